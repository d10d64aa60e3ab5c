"""Measures one service with many models, in one run on one machine.

    make bench-models                      # about ten minutes; ARGS='--seconds 20 --rounds 5' for steadier figures

One worker serves 1, 10 and 50 models: copies of a gradient-boosted model of 17 features that come from Redis, with the
prediction log on. For each number: memory, the CPU that the idle service uses, the most requests per second, and the
latency at 500 requests/s over all models together. Then services of 1 and of 50 models take turns, the other one
stopped meanwhile, so that other load on the machine affects both alike; their p99s are compared. `--parts faults`: how
long the requests to two models take while a third one has a fault.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import httpx
import psutil

from benchmarks.models.faults import faults
from benchmarks.serving import load
from benchmarks.serving.bench_environment import (
    BIN,
    BenchEnvironment,
    add_models,
    cpu_seconds,
    event,
    make,
    running,
)
from benchmarks.serving.report import line, verdict

PORT = 21_100
NUMBERS = (1, 10, 50)
RATE = 500
#: The goal: p99 with 50 models, as a multiple of that with one.
RATIO = 1.5
BODIES = [event(i, []) for i in range(1_000)]


@dataclass
class Served:
    """A running service of some models."""

    url: str
    pid: int
    models: Sequence[str]

    @property
    def paths(self) -> list[str]:
        return [f"/models/{name}/predict" for name in self.models]

    @property
    def memory(self) -> float:
        """MB that the service's processes have for themselves."""
        process = psutil.Process(self.pid)
        return sum(each.memory_full_info().uss for each in (process, *process.children(recursive=True))) / 1e6

    def full(self, seconds: int, folder: Path) -> load.Load:
        before = cpu_seconds(self.pid)
        found = load.full(self.url, BODIES, seconds, folder, paths=self.paths)
        return replace(found, cpu=(cpu_seconds(self.pid) - before) * 1e6 / (found.per_second * seconds))

    def steady(self, seconds: float, rate: float = RATE) -> load.Load:
        before = cpu_seconds(self.pid)
        found = load.steady(self.url, BODIES, rate, seconds, paths=self.paths)
        return replace(found, cpu=(cpu_seconds(self.pid) - before) * 1e6 / (rate * seconds))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The processes get no time meanwhile."""
        os.killpg(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.pid, signal.SIGCONT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=8, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int, default=PORT, help="the first of a few ports in a row")
    parser.add_argument("--parts", default="numbers,ratio,faults", help="what to measure, comma separated")
    args = parser.parse_args()
    for program in ("wrk", "redis-server"):
        if not shutil.which(program):
            raise SystemExit(f"{program} is not on the PATH (Debian: apt install wrk redis-server)")
    parts = args.parts.split(",")
    if "faults" in parts:
        faults(args.seconds)
    if not {"numbers", "ratio"} & set(parts):
        return
    with environment(args.port) as (world, folder):
        models = add_models(world, max(NUMBERS))
        if "numbers" in parts:
            for number in NUMBERS:
                with serving(world, models[:number], args.port + 2, folder) as served:
                    measure(served, args.seconds, folder)
        if "ratio" in parts:
            compare(world, models, args.port + 2, folder, args)


@contextmanager
def environment(port: int) -> Iterator[tuple[BenchEnvironment, Path]]:
    """Redis with feature rows, and MLflow."""
    with tempfile.TemporaryDirectory(prefix="perennial-bench-") as name, contextlib.ExitStack() as stack:
        command = ["redis-server", "--port", str(port), "--save", "", "--dir", name, "--bind", "127.0.0.1"]
        redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        stack.callback(redis.wait, 10)
        stack.callback(redis.terminate)
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(port + 1), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{name}/mlflow.db", "--artifacts-destination", f"{name}/art"]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        folder, url = Path(name), f"http://127.0.0.1:{port + 1}"
        stack.enter_context(running(command, quiet, f"{url}/health", folder / "mlflow.log"))
        yield make(folder, f"redis://127.0.0.1:{port}/0", url), folder


@contextmanager
def serving(
    world: BenchEnvironment, models: Sequence[str], port: int, folder: Path, **settings: str
) -> Iterator[Served]:
    """A service of `models`, all of which have their champions. `settings`: more CT_SERVING_…"""
    world_settings = world.settings
    env = {
        "CT_HOME": str(world_settings.home),
        "CT_TRACKING_URI": world_settings.tracking_uri,
        "CT_ONLINE_STORE": world_settings.online,
        "CT_MODELS_DIR": str(world_settings.models_dir),
        "CT_FEATURE_REPO": str(world_settings.feature_repo),
        "CT_SERVING_MODELS": ",".join(models),
        "CT_SERVING_STATE": str(world_settings.home / f"serving-{port}"),
        "BENTOML_HOME": str(world_settings.home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
        **{f"CT_SERVING_{name.upper()}": value for name, value in settings.items()},
    }
    url = f"http://127.0.0.1:{port}"
    command = [str(BIN / "bentoml"), "serve", "serving.service:Service", "--host", "127.0.0.1", "--port", str(port)]
    with running(command, env, f"{url}/readyz", folder / "service.log") as pid:
        while not all("champion" in found["models"] for found in httpx.get(f"{url}/models").json()["models"].values()):
            time.sleep(0.2)
        served = Served(url, pid, models)
        served.full(2, folder)  # warm
        yield served


def measure(served: Served, seconds: int, folder: Path) -> None:
    print(f"{len(served.models)} models in one worker:", flush=True)
    time.sleep(2)
    before, began = cpu_seconds(served.pid), time.perf_counter()
    time.sleep(seconds)
    idle = (cpu_seconds(served.pid) - before) / (time.perf_counter() - began)
    line("as many as it can, 8 callers", [served.full(seconds, folder)])
    line(f"{RATE} requests/s together", [served.steady(seconds)])
    print(f"  memory {served.memory:.0f} MB; idle it uses {100 * idle:.1f} % of a core", flush=True)


def compare(world: BenchEnvironment, models: Sequence[str], port: int, folder: Path, args: argparse.Namespace) -> None:
    one, many = models[:1], models
    print(f"{RATE} requests/s together, services of {len(one)} and {len(many)} models in turns:", flush=True)
    with serving(world, one, port, folder) as first, serving(world, many, port + 1, folder) as second:
        found: dict[int, list[load.Load]] = {len(one): [], len(many): []}
        for _ in range(args.rounds):
            for served, other in ((first, second), (second, first)):
                with other.stopped():
                    served.steady(2)  # It was stopped, and catches up.
                    found[len(served.models)].append(served.steady(args.seconds))
        print(f"  {(second.memory - first.memory) / (len(many) - len(one)):.1f} MB of memory per model", flush=True)
    for number, loads in found.items():
        line(f"{number} models", loads)
        print(f"    p99 of the rounds: {', '.join(f'{each.p99:.2f}' for each in loads)} ms", flush=True)
    p99 = {number: median(each.p99 for each in loads) for number, loads in found.items()}
    ratio = p99[len(many)] / p99[len(one)]
    verdict(f"p99 with {len(many)} models ≤ {RATIO} × that with one", ratio <= RATIO, f"{ratio:.2f} ×")


if __name__ == "__main__":
    main()
