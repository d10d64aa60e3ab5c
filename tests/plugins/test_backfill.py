"""Which days a backfill computes features of, and what the landing DAG learns from it."""

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import AirflowFailException, ParamValidationError
from perennial_airflow.assets import backfill_event, landing_asset
from perennial_airflow.backfill import PlanBackfillOperator, RecordBackfillOperator, chunks
from perennial_airflow.operators import StartDataRunsOperator
from perennial_airflow.params import backfill_params

from training.contract.source_spec import load_source_spec

FEEDS = ["events", "labels"]


def ingested(start: str, end: str, **versions: int) -> dict[str, Any]:
    return {"affected": {"start": start, "end": end}, "table_versions": versions}


def test_overlapping_days_are_computed_once_a_month_at_a_time_from_the_newest_versions() -> None:
    results = [
        ingested("2026-01-01", "2026-01-31", events=4),
        ingested("2026-01-02", "2026-02-10", events=5, labels=2),
        {"affected": None, "table_versions": {"events": 5, "labels": 1}},
        ingested("2026-06-01", "2026-06-02", events=3),
    ]
    found = chunks(results)
    assert [(each["days"]["start"], each["days"]["end"]) for each in found] == [
        ("2026-01-01", "2026-02-01"),
        ("2026-02-01", "2026-02-10"),
        ("2026-06-01", "2026-06-02"),
    ]
    assert all(each["table_versions"] == {"events": 5, "labels": 2} for each in found)


def test_nothing_affected_is_nothing_to_compute() -> None:
    assert chunks([{"affected": None, "table_versions": {}}]) == []


class Task(dict[str, Any]):
    """The task instance and the asset state store of a run, as its tasks see them."""

    def xcom_push(self, key: str, value: Any) -> None:
        self[key] = value

    def xcom_pull(self, task_ids: str, key: str) -> Any:
        return self[key]

    def set(self, key: str, value: Any) -> None:
        self[key] = value


@pytest.fixture
def landing(step_settings: Path) -> Path:
    folder = step_settings / "landing" / "card_payments"
    for name in ("events/2026-01-05", "events/2026-01-06", "events/2026-01-01_2026-01-04", "events/other"):
        path = folder / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def plan(first: str, last: str, task: Task) -> list[dict[str, str]]:
    context = {"params": {"first_day": first, "last_day": last}, "ti": task}
    return PlanBackfillOperator(task_id="plan", source="card_payments", feeds=FEEDS).execute(context)


def test_a_delivery_with_one_day_in_the_range_is_planned(landing: Path, settled: None) -> None:
    found = plan("2026-01-04", "2026-01-05", Task())
    assert [each["partition"] for each in found] == ["2026-01-01_2026-01-04", "2026-01-05"]
    assert found[1]["uri"] == str(landing / "events" / "2026-01-05.parquet")


def test_more_deliveries_than_airflow_can_map_are_refused(
    landing: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")
    with pytest.raises(AirflowFailException, match="one run takes at most 2"):
        plan("2026-01-01", "2026-01-31", Task())


def test_the_landing_dag_starts_no_run_for_what_a_backfill_took_in(
    landing: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr("perennial_airflow.operators.start_run", lambda dag, run, conf, note: started.append(run))
    asset, store, task = landing_asset(load_source_spec("card_payments")), Task(), Task()
    plan("2026-01-01", "2026-01-05", task)
    stores = {"asset_state_store": {asset: store}, "ti": task}
    RecordBackfillOperator(task_id="record", landing=asset).execute(stores)
    start = StartDataRunsOperator(task_id="start", source="card_payments", feeds=FEEDS, landing=asset)
    start.execute(stores)
    assert [run.split("_")[1] for run in started] == ["2026-01-06", "other"]


def test_a_run_needs_both_days_and_proposes_none() -> None:
    days = {"first_day": "2013-01-01", "last_day": "2013-01-31"}
    for missing in days:
        params = ParamsDict(backfill_params())
        params.update({name: day for name, day in days.items() if name != missing})
        with pytest.raises(ParamValidationError, match=missing):
            params.validate()
    params = ParamsDict(backfill_params())
    params.update(days)
    assert params.validate() == {**days, "monitor": True}


@pytest.mark.parametrize(("monitor", "sent"), [(True, True), (False, False)])
def test_the_monitors_start_once_or_not_at_all(monitor: bool, sent: bool) -> None:
    params = {"first_day": "2026-01-05", "last_day": "2026-01-06", "monitor": monitor}
    event = backfill_event({"as_of": "2026-01-07"}, {"params": params})
    assert (event is not None) == sent


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the files had lain there for a while."""
    from perennial_airflow import backfill, operators

    for module in (backfill, operators):
        monkeypatch.setattr(module.time, "time", lambda: 2.0**40)
