"""What the loop costs beyond its steps: from landing to a new champion that serves, against the same steps called one
after the other in one process, on the same data, machine and servers, in one run.

    make bench-loop                  # about five minutes; ARGS='--customers 5000' makes the data larger

The stack has started before the files land: its start is not part of the loop. The stack is healthy when its programs
answer, but for ten seconds more Airflow parses all DAG files for the first time, and nothing watches landing.

Prints the ratio (goal: at most 1.2), the steps of both, and a timeline: the tasks that decided when the champion
served, one after the other. `until scheduled` is the time from the end of the task before to the scheduler's decision
that this one may run, `until started` from there to the start of its process, `ran` from there to its end. `step` is
what its step took when it was called in one process, with the imports that it was the first to need. Last come the CPU
seconds of each program of the stack during the loop; those of `steps` are the steps'.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.critical_path import KINDS, Link, critical_path, links
from benchmarks.idle import settle, spent, usage
from local.airflow_api import Airflow
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
            stack.start(_say)
            _say("Waiting until the programs have settled")
            settle(stack.place.home)
            before = usage(stack.place.home)
            landed, looped = loop(stack, generator)
            cpu = spent(before, usage(stack.place.home))
            tasks, path = _tasks(stack)
            called = _in_a_process_of_its_own(stack, generator, home / "called")
        finally:
            stack.stop()
    timeline(path, landed, looped, called)
    report(looped, tasks, called)
    print("\nCPU seconds during the loop: " + ", ".join(f"{name} {used:.1f}" for name, used in sorted(cpu.items())))


def _say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


def land_all(generator: Generator, landing: Path) -> list[Path]:
    """One partition of payments, one of labels."""
    end = START + timedelta(days=DAYS)
    events = land(generator, landing, SOURCE, "events", Days(start=START, end=end))
    return [events, land(generator, landing, SOURCE, "labels", Days(start=START + timedelta(days=7), end=end))]


def loop(stack: Stack, generator: Generator) -> tuple[datetime, float]:
    """When the files were there, and the seconds from then until the champion serves."""
    land_all(generator, stack.place.home / "prepared")
    (stack.place.landing / SOURCE).parent.mkdir(parents=True, exist_ok=True)
    (stack.place.home / "prepared" / SOURCE).rename(stack.place.landing / SOURCE)
    landed, started, serving = datetime.now(UTC), time.monotonic(), Serving(stack.place.serving_url, "card_fraud")
    while serving.champion() is None:
        if time.monotonic() - started > 900:
            raise SystemExit(f"No champion after 15 minutes; see {stack.place.logs}")
        time.sleep(0.25)
    return landed, time.monotonic() - started


def _tasks(stack: Stack) -> tuple[list[Link], list[Link]]:
    """All tasks of the loop, and those that decided when the champion served."""
    place = stack.place
    with Airflow(place.airflow_url, USER, stack.credentials.password, SOURCE, MODEL) as airflow:
        found = links(airflow)
        upstream = {kind: airflow.upstream(kind) for kind in KINDS}
    last = max((link for link in found if link.task.id == "rollout"), key=lambda link: link.began)
    return found, critical_path(last, found, upstream)


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


def timeline(path: list[Link], landed: datetime, looped: float, called: dict[str, float]) -> None:
    """Print the tasks on the critical path with their times. The last one counts until the champion serves."""
    print("\n| at, s | task | until scheduled, s | until started, s | ran, s | step, s |\n|---|---|---|---|---|---|")
    before, waits = landed, []
    for link in path:
        ended = landed + timedelta(seconds=looped) if link is path[-1] else link.task.ended
        assert ended is not None  # only the last task of the path still runs
        scheduled = link.task.scheduled or link.began
        parts = [scheduled - before, link.began - scheduled, ended - link.began]
        seconds = " | ".join(f"{part.total_seconds():.2f}" for part in parts)
        alone = f"{called[link.name]:.2f}" if link.name in called else ""
        print(f"| {(link.began - landed).total_seconds():.1f} | {link.run.kind}: {link.name} | {seconds} | {alone} |")
        waits.append((link.began - before).total_seconds())
        before = ended
    print(
        f"\n{len(path)} tasks one after the other, {sum(waits):.1f} s between them, {sum(waits) / len(path):.2f} s each"
    )


def report(looped: float, tasks: list[Link], called: dict[str, float]) -> None:
    total = sum(called.values())
    ran = [(link.task.id, link.task.ended - link.began) for link in tasks if link.task.ended]
    print("\n| step | in one process, s | as Airflow tasks, s |\n|---|---|---|")
    for step in STEPS:
        alone = [seconds for name, seconds in called.items() if name.split()[0] == step]
        inside = [spent.total_seconds() for name, spent in ran if name == step]
        if alone or inside:
            print(f"| {step} ×{len(inside)} | {sum(alone):.1f} | {sum(inside):.1f} |")
    others = sum(spent.total_seconds() for name, spent in ran if name not in STEPS)
    print(f"| Airflow's own tasks | | {others:.1f} |")
    print(f"| all of it | {total:.1f} | {looped:.1f} from landing to serving |")
    print(f"\nLoop over steps: {looped / total:.2f}× (goal: at most {GOAL}×)")


if __name__ == "__main__":
    main()
