"""What the loop costs beyond its steps: from landing to a new champion that serves, against the same steps called one
after the other in one process, on the same data, machine and servers, in one run.

    make bench-loop                  # about five minutes; ARGS='--customers 5000' makes the data larger

Prints the ratio (goal: at most 1.2) and where the loop's time goes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx

from local.credentials import USER
from local.generator import Generator, land
from local.place import Place, Ports
from local.stack import Stack
from local.traffic import Serving
from testing.ports import free_ports
from training.contract.base import Days
from training.contract.messages import SourceInputs
from training.contract.model_spec import MODELS_DIR
from training.contract.steps import STEPS

SOURCE, MODEL = "card_payments", "card_fraud"
START, DAYS = date(2026, 1, 5), 42
GOAL = 1.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=5000)
    parser.add_argument("--terminals", type=int, default=10_000)
    parser.add_argument("--in-process", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.in_process:
        print(json.dumps(in_process(args.in_process)))
        return
    generator = Generator(0, args.customers, args.terminals)
    with tempfile.TemporaryDirectory(prefix="perennial-") as folder:
        home = Path(folder)
        stack = Stack(Place(home / "loop", home / "loop" / "landing", Ports(*free_ports(3))))
        try:
            stack.start(lambda text: print(f"… {text}", file=sys.stderr, flush=True))
            looped, tasks = loop(stack, generator)
            called = _in_a_process_of_its_own(stack, generator, home / "called")
        finally:
            stack.stop()
    report(looped, tasks, called)


def land_all(generator: Generator, landing: Path) -> list[Path]:
    """One partition of payments, one of labels."""
    end = START + timedelta(days=DAYS)
    events = land(generator, landing, SOURCE, "events", Days(start=START, end=end))
    return [events, land(generator, landing, SOURCE, "labels", Days(start=START + timedelta(days=7), end=end))]


def loop(stack: Stack, generator: Generator) -> tuple[float, list[dict[str, Any]]]:
    """Seconds from the moment the files are there until the champion serves, and the tasks that ran meanwhile."""
    land_all(generator, stack.place.home / "prepared")
    (stack.place.landing / SOURCE).parent.mkdir(parents=True, exist_ok=True)
    (stack.place.home / "prepared" / SOURCE).rename(stack.place.landing / SOURCE)
    started, serving = time.monotonic(), Serving(stack.place.serving_url, "card_fraud")
    while serving.champion() is None:
        if time.monotonic() - started > 900:
            raise SystemExit(f"No champion after 15 minutes; see {stack.place.logs}")
        time.sleep(0.25)
    seconds = time.monotonic() - started
    login = {"username": USER, "password": stack.credentials.password}
    token = httpx.post(f"{stack.place.airflow_url}/auth/token", json=login, timeout=30).json()["access_token"]
    url = f"{stack.place.airflow_url}/api/v2/dags/~/dagRuns/~/taskInstances?limit=100"
    found = httpx.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=30).json()["task_instances"]
    return seconds, [task for task in found if task["state"] in ("success", "running")]


def _in_a_process_of_its_own(stack: Stack, generator: Generator, home: Path) -> dict[str, float]:
    """The same steps against the same servers; without a champion, as the loop began."""
    from training.adapters.registry import Registry

    registry = Registry(stack.place.mlflow_url)
    registry.remove_alias(MODEL, "champion")
    files = land_all(generator, home / "landing")
    environment = os.environ | stack.place.step_environment | {"CT_HOME": str(home), "CT_LANDING_URI": ""}
    environment["OMP_WAIT_POLICY"] = "PASSIVE"  # As the runner does for every step.
    # Another seed: what the loop has made with the same one would be found again instead of made.
    environment["CT_MODELS_DIR"] = str(home / "models")
    (home / "models").mkdir()
    spec = (MODELS_DIR / f"{MODEL}.yaml").read_text()
    (home / "models" / f"{MODEL}.yaml").write_text(spec.replace("training:\n", "training:\n  seed: 2\n", 1))
    command = [sys.executable, "-m", "benchmarks.loop", "--in-process", str(files[0].parents[1])]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    timings: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return timings


def in_process(landing: Path) -> dict[str, float]:
    """Step → seconds, each step's imports included where it is the first to need them."""
    from training.settings import load_settings

    settings, timings = load_settings(), {}

    def call(step: str, label: str = "", **inputs: Any) -> Any:
        spec = STEPS[step]
        started = time.monotonic()
        run: Callable[..., Any] = spec.load()
        of = {"source": SOURCE} if issubclass(spec.inputs, SourceInputs) else {"model": MODEL}
        result = run(spec.inputs.model_validate({**of, **inputs}), settings)
        timings[" ".join(filter(None, (step, label)))] = time.monotonic() - started
        return json.loads(result.model_dump_json())

    for feed in ("events", "labels"):
        (file,) = (landing / feed).glob("*.parquet")
        call("check", feed)
        taken = call("ingest", feed, feed=feed, partition=file.stem, uri=str(file))
        made = call("features", feed, days=taken["affected"], table_versions=taken["table_versions"])
        call("materialize", feed, table_versions=made["table_versions"])
    drift = call("drift")
    performance = call("performance", snapshot=drift["snapshot"])
    call("audit", snapshot=drift["snapshot"])
    request = call("decide_retraining", drift=drift, performance=performance)
    data = call("dataset", as_of=request["as_of"])
    candidates = []
    for estimator in ("hist_gradient_boosting", "logistic_regression", "mlp"):
        fitted = call("train", estimator, estimator=estimator, dataset_uri=data["uri"], seed=data["seed"])
        candidates.append({name: fitted[name] for name in ("estimator", "run_id", "artifact_uri", "digest")})
    verdict = call("evaluate", candidates=candidates, dataset_uri=data["uri"], seed=data["seed"])
    chosen = {"challenger": verdict["challenger"], "verdict": verdict["verdict"]}
    chosen["champion_version"] = verdict["champion_version"]
    version = call("register", **chosen)["version"]
    call("rollout", version=version)
    return timings


def report(looped: float, tasks: list[dict[str, Any]], called: dict[str, float]) -> None:
    total = sum(called.values())
    print("\n| step | in one process, s | as Airflow tasks, s |\n|---|---|---|")
    for step in STEPS:
        alone = [seconds for name, seconds in called.items() if name.split()[0] == step]
        inside = [task["duration"] or 0 for task in tasks if task["task_id"] == step]
        if alone or inside:
            print(f"| {step} ×{len(inside)} | {sum(alone):.1f} | {sum(inside):.1f} |")
    others = sum(task["duration"] or 0 for task in tasks if task["task_id"] not in STEPS)
    print(f"| Airflow's own tasks | | {others:.1f} |")
    print(f"| all of it | {total:.1f} | {looped:.1f} from landing to serving |")
    print(f"\nLoop over steps: {looped / total:.2f}× (goal: at most {GOAL}×)")


if __name__ == "__main__":
    main()
