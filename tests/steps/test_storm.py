"""A storm of reasons to train: many events in an hour, from several processes at once, end in few trainings."""

import random
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from training.adapters.lake import Lake
from training.adapters.ledger import Ledger
from training.contract.base import Days
from training.contract.messages import DecideRetrainingInputs, Degradation, DriftResult, PerformanceResult, Snapshot
from training.contract.model_spec import MODELS_DIR
from training.settings import Settings
from training.steps.decide_retraining import run

SOURCE, MODEL = "card_payments", "card_fraud"
TODAY = date(2026, 2, 9)
ROOT = Path(__file__).parents[2]
EVENTS, PROCESSES, THREADS, BUDGET, COST = 1000, 2, 2, 5, 12.5


def _event(number: int) -> dict[str, Any]:
    """The inputs of one event: what monitoring found today or on a day before, new data, a schedule or code."""
    chance = random.Random(number)
    day, kind = TODAY - timedelta(days=chance.randrange(3)), chance.randrange(5)
    if kind < 2:
        snapshot = Snapshot(as_of=day, champion_version=1)
        drift = {"drifted": kind == 0, "drifted_share": 0.3 + chance.randrange(5) / 10}
        test = Degradation(
            metric="average_precision",
            drop=0.9,
            standard_error=0.1,
            look=1,
            confidence=0.99,
            lowest_drop=0.6,
            allowed=0.1,
        )
        fallen = {"test": test, "degraded": True} if kind == 1 else {}
        return {
            "drift": DriftResult(outcome="measured", snapshot=snapshot, window=Days.ending(day, 7), **drift),
            "performance": PerformanceResult(outcome="measured", snapshot=snapshot, **fallen),
        }
    trigger, runs = {2: ("new_data", 20), 3: ("schedule", 20), 4: ("code", 20)}[kind]
    return {"trigger": trigger, "run": f"run-{kind}-{chance.randrange(runs)}", "reason": "a storm"}


def storm(home: str, models: str, tracking_uri: str, part: int) -> None:
    """What one process does."""
    settings = Settings(home=Path(home), models_dir=Path(models), tracking_uri=tracking_uri)
    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(
            lambda number: run(DecideRetrainingInputs(model=MODEL, **_event(number)), settings),
            range(part, EVENTS, PROCESSES),
        ):
            pass


@pytest.fixture
def settings(tmp_path: Path, mlflow_database: Path) -> Settings:
    """A lake with an event and a label a day; budgets in trainings and in money."""
    spec = yaml.safe_load((MODELS_DIR / f"{MODEL}.yaml").read_text())
    costs = {"costs": {"training": COST}, "maximum_cost_per_30_days": 100}
    spec["retraining"] = {"budget_per_30_days": BUDGET, "persistence": 1, **costs}
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{MODEL}.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    shutil.copy(mlflow_database, tmp_path)
    made = Settings(
        home=tmp_path / "home", models_dir=tmp_path / "models", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"
    )
    noons = [datetime(2026, 1, 5, 12, tzinfo=UTC) + timedelta(days=n) for n in range(35)]
    for feed, column in (("events", "event_time"), ("labels", "reported_at")):
        times = pa.array(noons, pa.timestamp("us", tz="UTC"))
        table = pa.table({column: times, "partition": pa.array([str(noon.date()) for noon in noons])})
        Lake(made.lake, SOURCE, MODEL).replace(feed, table, "true", ["partition"])
    return made


@pytest.mark.long
def test_a_storm_of_events_ends_in_no_more_trainings_than_the_budget(settings: Settings) -> None:
    code = "import sys; from tests.steps.test_storm import storm; storm(*sys.argv[1:4], int(sys.argv[4]))"
    given = [str(settings.home), str(settings.models_dir), settings.tracking_uri]
    started = [
        subprocess.Popen([sys.executable, "-c", code, *given, str(part)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for part in range(PROCESSES)
    ]
    for process in started:
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said[-2000:]
    ledger = Ledger(settings.ledger)
    assert ledger.problems(MODEL) == []
    requests = [entry.body for entry in ledger.entries(MODEL, "request")]
    decided = [entry for entry in ledger.entries(MODEL, "decision") if entry.key == entry.body["request_id"]]
    assert len(requests) == len(decided) > 50
    outcomes = Counter(entry.body["outcome"] for entry in decided)
    assert 0 < outcomes["granted"] <= BUDGET
    taken = [entry.body["run"] for entry in ledger.entries(MODEL, "decision") if entry.body["outcome"] == "taken"]
    assert len(taken) == len(set(taken)) <= BUDGET
    granted = [entry.body for entry in decided if entry.body["outcome"] == "granted"]
    assert all(body["cost"] == COST and body["numbers"]["budget"] == BUDGET for body in granted)
    refused = [entry.body for entry in decided if entry.body["outcome"] == "refused"]
    assert refused
    assert all("would be granted from" in body["why"] and body["numbers"] for body in refused)
