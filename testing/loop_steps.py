"""The steps of one loop of the reference model, in order: from landed files to a champion that is monitored."""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import yaml

from local.generator import Generator, land
from training.contract.base import Days
from training.settings import ROOT

SOURCE, MODEL = "card_payments", "card_fraud"
#: The days of events. Labels come a week later.
HISTORY = Days(start=date(2026, 1, 5), end=date(2026, 2, 16))
#: Runs a step with its inputs and returns its result.
Step = Callable[..., dict[str, Any]]


def small_generator() -> Generator:
    return Generator(seed=1, customers=400, terminals=800)


def write_spec(folder: Path, **changes: Any) -> Path:
    """Write the model's spec to the new folder `folder`, scored in batch and with other `changes`. Returns `folder`."""
    spec = yaml.safe_load((ROOT / "training" / "models" / f"{MODEL}.yaml").read_text())
    folder.mkdir(parents=True)
    spec |= {"scoring": {"when": "new_data", "maximum_age_days": 14}, **changes}
    (folder / f"{MODEL}.yaml").write_text(yaml.safe_dump(spec))
    return folder


def run_loop(step: Step, landing: Path) -> None:
    """Land the history in `landing`, and call `step` for each step, with the step's name and its inputs."""
    generator, versions = small_generator(), dict[str, int]()
    for feed, days in (("events", HISTORY), ("labels", Days(start=HISTORY.start + timedelta(days=7), end=HISTORY.end))):
        path = land(generator, landing, SOURCE, feed, days)
        given = {"source": SOURCE, "feed": feed, "partition": path.stem, "uri": str(path)}
        versions |= step("ingest", **given)["table_versions"]
    whole = {"start": str(HISTORY.start), "end": str(HISTORY.end + timedelta(days=1))}
    computed = step("features", source=SOURCE, days=whole, table_versions=versions)["table_versions"]
    online = {table: version for table, version in computed.items() if table not in versions}
    step("materialize", source=SOURCE, table_versions=online)
    _train(step)
    step("score", model=MODEL, partition=f"{HISTORY.start}_{HISTORY.end - timedelta(days=1)}", run="score")
    drift = step("drift", model=MODEL, run="monitor")
    performance = step("performance", model=MODEL, snapshot=drift["snapshot"])
    step("audit", model=MODEL, snapshot=drift["snapshot"])
    step("decide_retraining", model=MODEL, drift=drift, performance=performance)


def _train(step: Step) -> None:
    asked = step("decide_retraining", model=MODEL, trigger="person", reason="loop", run="train", force=True)
    made = step("dataset", model=MODEL, snapshot=asked["snapshot"])
    given = {"model": MODEL, "dataset_uri": made["uri"], "seed": made["seed"]}
    trained = step("train", **given, estimator="logistic_regression")
    candidate = {name: trained[name] for name in ("estimator", "run_id", "digest", "artifact_uri")}
    judged = step("evaluate", **given, candidates=[candidate], snapshot=asked["snapshot"])
    decided = {name: judged[name] for name in ("challenger", "verdict", "champion_version")}
    version = step("register", model=MODEL, **decided, force=True)["version"]
    step("rollout", model=MODEL, version=version, reason="loop")
