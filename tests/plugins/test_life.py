"""What tasks keep of their steps for the pages, and the summary of a model that is made of it."""

import itertools
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException
from perennial_airflow.life import store
from perennial_airflow.life.facts import LARGEST, facts
from perennial_airflow.life.summary import add, health, unserved
from perennial_airflow.reports import StepFailedError
from perennial_airflow.step_task import StepTask

from testing.model_life import ModelLife
from training import storage
from training.contract.life import Event, Overview
from training.settings import Settings, load_settings

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
MODEL = "card_fraud"
SNAPSHOT = {"as_of": "2026-03-02", "champion_version": 1, "table_versions": {"events": 3}}
MEASURED = {
    "outcome": "measured",
    "current": {"ap": 0.5},
    "reference": {"ap": 0.6},
    "snapshot": SNAPSHOT,
    "degraded": False,
}


def event(step: str, minutes: float, status: str = "succeeded", task: str = "", **fields: Any) -> Event:
    known = {"dag_id": f"{MODEL}_train", "run_id": "run-1", "task_id": task or step}
    at = NOW + timedelta(minutes=minutes)
    return Event.model_validate({**known, "at": at, "step": step, "status": status, **fields})


def summary(*events: Event) -> Overview:
    found = Overview(model=MODEL, primary="ap")
    for each in events:
        found = add(found, each)
    return found


def run_task(step: str, inputs: dict[str, Any], outcome: Any, map_index: int = -1) -> None:
    """As a launcher does: `outcome` is the step's result, or the error."""

    def run() -> dict[str, Any]:
        if isinstance(outcome, Exception):
            raise outcome
        return dict(outcome)

    task = StepTask(task_id=step, step=step, inputs=inputs)
    run_of = {"dag_id": f"{MODEL}_monitor", "run_id": "scheduled__1", "task_id": step, "map_index": map_index}
    ti = SimpleNamespace(**run_of, try_number=1, start_date=datetime.now(UTC) - timedelta(seconds=3), xcom_push=print)
    task.conclude(run, {"ti": ti})


def test_a_task_leaves_an_event_with_its_run_and_the_summary_follows(step_settings: Path) -> None:
    columns = {"amount": {"drifted": True, "score": 1.0}, "hour": {"drifted": False, "score": 0.0}}
    result = {"outcome": "measured", "drifted": True, "drifted_share": 0.5, "columns": columns, "snapshot": SNAPSHOT}
    run_task("drift", {"model": MODEL}, result)
    settings = load_settings()
    (kept,) = store.events("models", MODEL, 10, settings)
    assert (kept.dag_id, kept.run_id, kept.task, kept.status) == (
        f"{MODEL}_monitor",
        "scheduled__1",
        "drift",
        "succeeded",
    )
    assert kept.seconds == pytest.approx(3, abs=2)
    assert kept.facts["drifted_columns"] == ["amount"]
    assert "columns" not in kept.facts
    found = store.overview(MODEL, settings)
    assert (found.title, found.owner, found.source) == ("Card fraud", "payments-ml", "card_payments")
    assert found.champion is not None
    assert found.champion.version == 1
    assert found.drift is not None
    assert found.drift.drifted
    assert health(found).level == "attention"


def test_a_step_that_failed_is_red_until_it_succeeds(step_settings: Path) -> None:
    failure = StepFailedError("performance: MLflow does not answer\n  → Retry.")
    with pytest.raises(AirflowException):
        run_task("performance", {"model": MODEL}, failure)
    settings = load_settings()
    its = health(store.overview(MODEL, settings))
    assert (its.level, its.why) == ("bad", ["performance failed: MLflow does not answer"])
    run_task("performance", {"model": MODEL}, MEASURED)
    assert health(store.overview(MODEL, settings)).level == "none"


def test_a_store_that_takes_no_events_fails_no_task(step_settings: Path) -> None:
    step_settings.mkdir(parents=True)
    (step_settings / "work").write_text("no folder")
    run_task("drift", {"model": MODEL}, {"outcome": "no data"})
    run_task("drift", {"model": "no_such_model"}, {"outcome": "no data"})


def test_an_event_that_nobody_understands_fails_no_task_and_stops_no_summary(step_settings: Path) -> None:
    run_task("evaluate", {"model": MODEL}, {"verdict": {"no": "verdict"}})
    run_task("rollout", {"model": MODEL}, {"version": 4})
    champion = store.overview(MODEL, load_settings()).champion
    assert champion is not None
    assert champion.version == 4


def test_a_source_has_events_of_its_own(step_settings: Path) -> None:
    inputs = {"source": "card_payments", "feed": "events", "partition": "2026-03-01", "uri": "x"}
    run_task("ingest", inputs, {"outcome": "appended", "rows_kept": 10, "data_docs": None})
    (kept,) = store.events("sources", "card_payments", 10, load_settings())
    assert (kept.facts["feed"], kept.facts["partition"], kept.facts["rows_kept"]) == ("events", "2026-03-01", 10)
    assert store.Overviews().read(load_settings()) == {}


def test_tasks_that_end_at_the_same_time_lose_nothing(settings: Settings) -> None:
    events = [event("train", number / 10, map_index=number, run_id=f"run-{number}") for number in range(40)]
    threads = [
        threading.Thread(target=store.record, args=(e, "models", MODEL, {"title": "T"}, settings)) for e in events
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = store.overview(MODEL, settings)
    assert found.outcomes.keys() == {each.task for each in events}
    assert set(found.seen) == {each.file_name for each in events}


def test_the_order_in_which_events_are_seen_does_not_matter() -> None:
    """Of a task that ends later, the event may be seen first."""
    verdict = {"promote": False, "reasons": ["failed: x"]}
    events = [
        event("rollout", 1, facts={"version": 1}),
        event("rollback", 2, facts={"version": 2}),
        event("performance", 3, facts={**MEASURED, "degraded": True}),
        event("performance", 4, facts={**MEASURED, "degraded": False}),
        event("evaluate", 5, facts={"verdict": verdict, "challenger": {"estimator": "mlp"}}),
    ]
    found = {summary(*order).model_dump_json(exclude={"outcomes"}) for order in itertools.permutations(events)}
    assert len(found) == 1
    (only,) = map(Overview.model_validate_json, found)
    assert only.champion is not None
    assert only.champion.version == 2
    assert [point.degraded for point in only.performance] == [False]


@pytest.mark.parametrize(
    ("events", "level", "why"),
    [
        ([], "none", "No version is in service yet."),
        ([event("rollout", 1, facts={"version": 1})], "good", ""),
        ([event("rollout", 1, facts={"version": 1}), event("performance", 2, facts={**MEASURED, "degraded": True})],
         "bad", "Performance has degraded beyond chance."),
        ([event("performance", 1, facts={**MEASURED, "degraded": True}),
          event("drift", 2, facts={"outcome": "measured", "drifted": True, "drifted_share": 0.4}),
          event("rollout", 3, facts={"version": 2})], "good", ""),
        ([event("decide_retraining", 1, facts={"waiting": ["r1", "r2"]})], "attention",
         "2 granted requests to train wait for a run."),
        ([event("register", 1, facts={"version": 2})], "attention", "Version 2 is not in service."),
        ([event("register", 1, facts={"version": 2, "ask": True})], "attention",
         "Version 2 waits for a person to decide."),
        ([event("rollout", 1, "failed", error="A guard tripped\nmore")], "bad", "rollout failed: A guard tripped"),
        ([event("train", 1, "failed", map_index=1, error="no memory")], "bad", "train[1] failed: no memory"),
        ([event("train", 1, "failed", map_index=1), event("evaluate", 2, facts={"verdict": {"promote": True}})],
         "none", "No version is in service yet."),
    ],
)  # fmt: skip
def test_red_or_green_and_why(events: list[Event], level: str, why: str) -> None:
    its = health(summary(*events))
    assert its.level == level
    assert (its.why or [""])[0] == why


def test_a_version_that_a_person_refused_waits_no_longer() -> None:
    asked = event("register", 1, facts={"version": 2, "ask": True})
    refused = event("record_approval", 2, facts={"version": 2, "approved": False, "outcome": "refused"})
    rejected = event("record_approval", 3, facts={"version": 2, "approved": False, "outcome": "rejected"})
    assert unserved(summary(asked)) == unserved(summary(asked, refused)) == 2
    assert unserved(summary(asked, refused, rejected)) is None


def test_facts_are_small_whatever_a_result_holds() -> None:
    deep = {f"key{a}": {f"key{b}": {"c": {"d": {"e": "x" * 2_000}}} for b in range(60)} for a in range(60)}
    found = facts("evaluate", {}, {"deep": deep, "text": "y" * 10_000, "many": list(range(500)), "number": 1})
    assert len(json.dumps(found)) <= LARGEST
    assert found["number"] == 1
    assert len(found["text"]) == 500


def test_a_summary_is_read_again_when_it_has_changed_and_one_that_is_broken_is_left_out(settings: Settings) -> None:
    for model in ("a", "b"):
        store.record(event("rollout", 1, facts={"version": 1}), "models", model, {}, settings)
    overviews = store.Overviews()
    assert overviews.read(settings).keys() == {"a", "b"}
    store.record(event("rollout", 2, facts={"version": 2}), "models", "a", {}, settings)
    champion = overviews.read(settings)["a"].champion
    assert champion is not None
    assert champion.version == 2
    storage.write(storage.join(settings.work, "_life/overviews/b.json"), b"broken")
    assert overviews.read(settings).keys() == {"a"}


def test_what_the_ledger_says_is_read_as_it_is(settings: Settings) -> None:
    ModelLife(settings, MODEL, "card_payments", weeks=2, end=NOW).write(with_source=False)
    kinds = [entry["kind"] for entry in store.entries(MODEL, 100, settings)]
    assert {"request", "decision", "rollout", "monitoring_run"} <= set(kinds)
    assert [entry["kind"] for entry in store.entries(MODEL, 2, settings)] == kinds[-2:]
