"""Compares the prediction service with other servers, in one run on one machine.

    make bench-serving                     # about five minutes; ARGS='--seconds 10 --rounds 5' for steadier figures

Rounds are interleaved and medians compared, so other load on the machine affects all servers alike. Each server has one
worker. The load is wrk with 8 connections and with 1, and a steady 500 requests/s with everything on. MLServer needs
another Starlette than the service, so it runs in its own environment, made for the run. `--without-others` skips it and
`mlflow models serve`.
"""

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.serving import load, others
from benchmarks.serving.bench_environment import BIN, BenchEnvironment, challenge, cpu_seconds, event, make, running
from benchmarks.serving.report import line, ratio, verdict

PORT = 21_000
RATE = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=PORT, help="the first of a few ports in a row")
    parser.add_argument("--without-others", action="store_true")
    args = parser.parse_args()
    for program in ("wrk", "redis-server"):
        if not shutil.which(program):
            raise SystemExit(f"{program} is not on the PATH (Debian: apt install wrk redis-server)")
    with tempfile.TemporaryDirectory(prefix="perennial-bench-") as name, contextlib.ExitStack() as stack:
        folder, port = Path(name), args.port
        redis, mlflow = port, port + 1
        command = ["redis-server", "--port", str(redis), "--save", "", "--dir", name, "--bind", "127.0.0.1"]
        stack.callback(_end, subprocess.Popen(command, stdout=subprocess.DEVNULL))
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(mlflow), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{name}/mlflow.db", "--artifacts-destination", f"{name}/art"]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        stack.enter_context(running(command, quiet, f"http://127.0.0.1:{mlflow}/health", folder / "mlflow.log"))
        world = make(folder, f"redis://127.0.0.1:{redis}/0", f"http://127.0.0.1:{mlflow}")
        measure(world, folder, port + 2, args)


def measure(world: BenchEnvironment, folder: Path, port: int, args: argparse.Namespace) -> None:
    plain = [event(i, world.names) for i in range(1_000)]
    short = [event(i, []) for i in range(1_000)]
    print("features with the request, 8 connections:")
    contenders = {
        "bare uvicorn": bare(world, port, ""),
        "Perennial": perennial(world, port + 1, "plain"),
        "BentoML stock": stock(world, port + 2),
    }
    found = compare(contenders, plain, folder, args)
    ratio("≥ 10 × stock BentoML", found["Perennial"], found["BentoML stock"], 10)
    ratio("≥ 0.8 × bare uvicorn", found["Perennial"], found["bare uvicorn"], 0.8)
    print("the same, one caller alone:")
    del contenders["BentoML stock"]
    found = compare(contenders, plain, folder, args, connections=1)
    ratio("≥ 0.85 × bare uvicorn", found["Perennial"], found["bare uvicorn"], 0.85)
    print("features of two entities from Redis, 8 connections:")
    contenders = {
        "bare uvicorn, Redis by hand": bare(world, port, world.settings.online),
        "Perennial": perennial(world, port + 1, "card_fraud"),
    }
    found = compare(contenders, short, folder, args)
    ratio("≥ 0.5 × bare uvicorn", found["Perennial"], found["bare uvicorn, Redis by hand"], 0.5)
    challenge(world)
    print(f"everything on (Redis, canary 10 %, prediction log, metrics), {RATE} requests/s:")
    everything(world, folder, port, short, args)
    if not args.without_others:
        print("other model servers, the same ONNX file, features with the request, 8 connections:")
        others.compare(world, folder, port, args.seconds)


def everything(world: BenchEnvironment, folder: Path, port: int, bodies: list[Any], args: argparse.Namespace) -> None:
    contenders = {
        "bare uvicorn, Redis by hand": bare(world, port, world.settings.online),
        "Perennial": perennial(world, port + 1, "card_fraud"),
    }
    found: dict[str, list[load.Load]] = {name: [] for name in contenders}
    with contextlib.ExitStack() as stack:
        for command, env, url in contenders.values():
            stack.enter_context(running(command, env, url, folder / "contenders.log"))
        url = _predict(contenders["Perennial"][2])
        wait_for_canary(url.removesuffix("/predict"))
        for _ in range(args.rounds):
            for name, (_, _, url) in contenders.items():
                found[name].append(load.steady(_predict(url), bodies, RATE, 2 * args.seconds))
        for name, loads in found.items():
            line(name, loads)
        p99 = median(each.p99 for each in found["Perennial"])
        verdict("p99 ≤ 10 ms", p99 <= 10, f"{p99:.1f} ms")
        url = _predict(contenders["Perennial"][2])
        print("its price of an explanation, 1 connection:")
        line("without", [load.full(url, bodies, args.seconds, folder, 1)])
        line("?explain=true", [load.full(f"{url}?explain=true", bodies, args.seconds, folder, 1)])
        print("more than it can do, 512 connections:")
        loaded = load.full(url, bodies, args.seconds, folder, 512)
        line("Perennial", [loaded])
        print(f"    {loaded.failed} requests were refused with 503")


def compare(
    contenders: dict[str, tuple[list[str], dict[str, str], str]],
    bodies: list[Any],
    folder: Path,
    args: Any,
    connections: int = load.CONNECTIONS,
) -> dict[str, float]:
    """Median requests per second."""
    found: dict[str, list[load.Load]] = {name: [] for name in contenders}
    with contextlib.ExitStack() as stack:
        sessions = {
            name: stack.enter_context(running(command, env, url, folder / "contenders.log"))
            for name, (command, env, url) in contenders.items()
        }
        sent = {name: _wrapped(bodies) if "stock" in name else bodies for name in contenders}
        for name, (_, _, url) in contenders.items():
            load.full(_predict(url), sent[name], 2, folder)  # warm
        for _ in range(args.rounds):
            for name, (_, _, url) in contenders.items():
                before = cpu_seconds(sessions[name])
                loaded = load.full(_predict(url), sent[name], args.seconds, folder, connections)
                used = (cpu_seconds(sessions[name]) - before) / (loaded.per_second * args.seconds)
                found[name].append(replace(loaded, cpu=used * 1e6))
    for name, loads in found.items():
        line(name, loads)
    return {name: median(each.per_second for each in loads) for name, loads in found.items()}


def bare(world: BenchEnvironment, port: int, redis: str) -> tuple[list[str], dict[str, str], str]:
    command = [str(BIN / "uvicorn"), "benchmarks.serving.bare:app", "--port", str(port), "--no-access-log"]
    return command, _model(world) | {"BENCH_REDIS": redis}, f"http://127.0.0.1:{port}/"


def stock(world: BenchEnvironment, port: int) -> tuple[list[str], dict[str, str], str]:
    command = [str(BIN / "bentoml"), "serve", "benchmarks.serving.stock:Stock", "--host", "127.0.0.1"]
    env = _model(world) | _quiet_bento(world)
    return [*command, "--port", str(port)], env, f"http://127.0.0.1:{port}/readyz"


def perennial(world: BenchEnvironment, port: int, model: str) -> tuple[list[str], dict[str, str], str]:
    settings = world.settings
    command = [str(BIN / "bentoml"), "serve", "serving.service:Service", "--host", "127.0.0.1", "--port", str(port)]
    env = {
        "CT_HOME": str(settings.home),
        "CT_TRACKING_URI": settings.tracking_uri,
        "CT_ONLINE_STORE": settings.online,
        "CT_MODELS_DIR": str(settings.models_dir),
        "CT_FEATURE_REPO": str(settings.feature_repo),
        "CT_SERVING_MODELS": model,
        "CT_SERVING_EXPLAIN": "true",
        "CT_SERVING_STATE": str(settings.home / f"serving-{model}"),
    }
    return command, env | _quiet_bento(world), f"http://127.0.0.1:{port}/readyz"


def wait_for_canary(url: str) -> None:
    import httpx

    while httpx.get(f"{url}/models/card_fraud").json()["traffic"]["mode"] != "canary":
        time.sleep(0.2)


def _quiet_bento(world: BenchEnvironment) -> dict[str, str]:
    return {"BENTOML_HOME": str(world.settings.home / "bentoml"), "BENTOML_DO_NOT_TRACK": "true"}


def _wrapped(bodies: list[Any]) -> list[Any]:
    """BentoML takes an endpoint's parameters by their names."""
    return [{"event": body} for body in bodies]


def _model(world: BenchEnvironment) -> dict[str, str]:
    return {"BENCH_MODEL": str(world.model / "model.onnx"), "BENCH_NAMES": ",".join(world.names)}


def _predict(url: str) -> str:
    return url.rpartition("/")[0] + "/predict"


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.wait(10)


if __name__ == "__main__":
    main()
