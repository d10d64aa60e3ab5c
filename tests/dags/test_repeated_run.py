"""A real Airflow and an outage: the run is queued again, waits, and starts, until what was away is back."""

from pathlib import Path

import pytest

from testing.airflow_server import AirflowServer

pytestmark = [pytest.mark.airflow, pytest.mark.long, pytest.mark.timeout(900)]

DAG = """
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, task
from perennial_airflow.try_again import TryAgainLaterOperator


@task
def look():
    assert Path({there!r}).exists()


with DAG("subject", schedule=None, max_active_runs=1, default_args={{"retries": 0}}):
    waits = [timedelta(seconds=5)] * 50
    look() >> TryAgainLaterOperator(task_id="try_again_later", source="card_payments", waits=waits)
"""


def test_a_run_is_repeated_until_what_was_away_is_back(tmp_path: Path) -> None:
    there = tmp_path / "there"
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "subject.py").write_text(DAG.format(there=str(there)))
    environment = {"AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags")}
    first = "events_2026-01-05_1_aaaa"
    with AirflowServer(tmp_path, environment=environment).running(triggerer=False) as airflow:

        def states() -> dict[str, str]:
            return {run["dag_run_id"]: run["state"] for run in airflow.runs("subject")}

        airflow.until(lambda: airflow.api.get("/dags/subject").is_success)
        by_hand = {"logical_date": None, "dag_run_id": first}
        airflow.api.post("/dags/subject/dagRuns", json=by_hand).raise_for_status()
        airflow.until(lambda: states().get(f"{first}-again-2") == "failed")
        there.touch()
        airflow.until(lambda: "success" in states().values())
        runs = airflow.runs("subject")
    # When the file was made, the third repetition may have looked already.
    assert [run["dag_run_id"] for run in runs[:3]] == [first, f"{first}-again-1", f"{first}-again-2"]
    assert [run["state"] for run in runs] == ["failed"] * (len(runs) - 1) + ["success"]
    for run in runs:
        assert run["start_date"] >= run["run_after"], "no run starts before its time"
