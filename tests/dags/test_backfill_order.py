"""A real scheduler takes the mapped tasks of a backfill one after the other, in the order of the plan."""

import os
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from testing.airflow_server import AirflowServer

pytestmark = [pytest.mark.airflow, pytest.mark.long, pytest.mark.timeout(900)]

SOURCE, START, DAYS = "card_payments", date(2026, 1, 1), 10
DELIVERIES = 12


def test_days_are_taken_in_and_computed_in_their_order(tmp_path: Path) -> None:
    events = tmp_path / "perennial" / "landing" / SOURCE / "events"
    events.mkdir(parents=True)
    for number in reversed(range(DELIVERIES)):
        first = START + timedelta(days=DAYS * number)
        path = events / f"{first}_{first + timedelta(days=DAYS - 1)}.parquet"
        path.touch()
        os.utime(path, (0, 0))  # It has lain there for a while.
    last = START + timedelta(days=DAYS * DELIVERIES - 1)
    airflow = AirflowServer(tmp_path)
    airflow.run_no_steps()
    dag = f"/dags/{SOURCE}_backfill"
    with airflow.running(triggerer=False):
        airflow.until(lambda: airflow.api.get(dag).is_success)
        conf = {"first_day": str(START), "last_day": str(last), "monitor": False}
        by_hand = {"logical_date": None, "dag_run_id": "by_hand", "conf": conf}
        airflow.api.post(f"{dag}/dagRuns", json=by_hand).raise_for_status()
        airflow.until(lambda: airflow.runs(f"{SOURCE}_backfill")[0]["state"] in ("success", "failed"), 700)
        found = airflow.api.get(f"{dag}/dagRuns/by_hand/taskInstances", params={"limit": 100}).json()["task_instances"]
    assert {each["state"] for each in found} == {"success"}

    def of(task: str) -> list[dict[str, Any]]:
        return sorted((each for each in found if each["task_id"] == task), key=lambda each: each["start_date"])

    for task, count in (("ingest", DELIVERIES), ("features", -(-DAYS * DELIVERIES // 31))):
        assert [each["map_index"] for each in of(task)] == list(range(count)), task
        assert all(earlier["end_date"] <= later["start_date"] for earlier, later in pairwise(of(task))), task
    assert of("features")[0]["start_date"] >= of("ingest")[-1]["end_date"]
    assert of("materialize")[0]["start_date"] >= of("features")[-1]["end_date"]
