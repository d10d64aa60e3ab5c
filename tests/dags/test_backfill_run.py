"""Runs of the backfill DAG itself, with real steps: deliveries in landing become features, once."""

import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.utils.state import TaskInstanceState as State
from perennial_airflow.deliveries import SETTLE_SECONDS

from local.generator import Generator
from local.generator import land as land_days
from tests.dags.real_steps import run_dag, use_settings
from training.adapters.lake import Lake
from training.contract.base import Days
from training.settings import Settings

pytestmark = [pytest.mark.ci, pytest.mark.usefixtures("airflow_database")]

SOURCE, START = "card_payments", date(2026, 1, 5)
TABLES = ("customer_features", "terminal_features")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Six days of events in landing, and labels in one file of four days."""
    folder = tmp_path_factory.mktemp("backfill")
    made = Settings(home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db")
    generator = Generator(seed=1, customers=200, terminals=400)
    for number in range(6):
        day = START + timedelta(days=number)
        land_days(generator, Path(made.landing), SOURCE, "events", Days(start=day, end=day + timedelta(days=1)))
    labels = Days(start=START + timedelta(days=2), end=START + timedelta(days=6))
    land_days(generator, Path(made.landing), SOURCE, "labels", labels)
    time.sleep(SETTLE_SECONDS)  # A file that was changed a moment ago is left for later.
    return made


@pytest.fixture
def backfill(settings: Settings, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """Runs the backfill DAG of a range of days: the DAG run, and task (and map index) → its instance."""
    use_settings(settings, ("home", "tracking_uri"), monkeypatch, request)

    def run(first: date, last: date, **parameters: Any) -> tuple[Any, dict[str, Any]]:
        conf = {"first_day": str(first), "last_day": str(last), **parameters}
        done = run_dag("backfill.py", f"{SOURCE}_backfill", conf)
        return done, {
            ti.task_id if ti.map_index < 0 else f"{ti.task_id}-{ti.map_index}": ti for ti in done.get_task_instances()
        }

    return run


def test_a_range_of_days_is_taken_in_once(backfill: Any, settings: Settings) -> None:
    lake = Lake(settings.lake, SOURCE)
    run, tis = backfill(START, START + timedelta(days=3))
    assert {ti.state for ti in tis.values()} == {State.SUCCESS}
    assert run.state == "success"
    labels = [tis[f"ingest-{number}"].rendered_map_index for number in range(5)]
    assert labels == [
        "1 of 5: events 2026-01-05",
        "2 of 5: events 2026-01-06",
        "3 of 5: events 2026-01-07",
        "4 of 5: labels 2026-01-07_2026-01-10",
        "5 of 5: events 2026-01-08",
    ]
    assert tis["features-0"].rendered_map_index == "1 of 1: 2026-01-06 to 2026-01-10"
    assert {str(span.newest.date()) for span in lake.spans("events", "event_time")} == {
        f"2026-01-0{day}" for day in (5, 6, 7, 8)
    }
    rows = {table: lake.scan(table).count_rows() for table in TABLES}
    assert all(rows.values())
    assert tis["materialize"].xcom_pull(task_ids="materialize")["as_of"] == "2026-01-09"

    # The same range again: nothing is doubled.
    _, again = backfill(START, START + timedelta(days=3), monitor=False)
    results = again["ingest-0"].xcom_pull(task_ids="ingest", map_indexes=list(range(5)))
    assert [result["outcome"] for result in results] == ["unchanged"] * 5
    assert {table: lake.scan(table).count_rows() for table in TABLES} == rows


def test_a_range_without_deliveries_says_where_it_looked(
    backfill: Any, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    run, tis = backfill(date(2020, 1, 1), date(2020, 1, 31))
    assert run.state == "failed"
    assert (tis["plan"].state, tis["ingest"].state) == (State.FAILED, State.UPSTREAM_FAILED)
    out = "".join(capfd.readouterr())
    assert f"No delivery of 2020-01-01 to 2020-01-31 in {settings.landing}/{SOURCE}" in out
