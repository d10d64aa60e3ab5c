"""Two schedulers and two triggerers on one PostgreSQL: every delivery and every wait is handled exactly once."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.airflow_server import ROOT, AirflowServer
from testing.postgresql import postgresql, postgresql_programs

pytestmark = [
    pytest.mark.long,
    pytest.mark.airflow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(postgresql_programs() is None, reason="there is no PostgreSQL"),
]
#: A DAG whose tasks wait in the triggerer, and then say so in a file.
WAITS = """
from datetime import timedelta
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator

class Wait(BaseOperator):
    def __init__(self, *, seconds, **kwargs):
        super().__init__(**kwargs)
        self.seconds = seconds

    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=self.seconds)), method_name="resume")

    def resume(self, context, event):
        with open("{file}", "a") as file:
            file.write(f"{{context['ti'].map_index}}\\n")

with DAG("waits", schedule=None):
    Wait.partial(task_id="wait").expand(seconds=[20, 21, 22, 23, 24, 25])
"""


@pytest.fixture
def airflow(tmp_path: Path) -> Iterator[AirflowServer]:
    """With a second scheduler and a second triggerer."""
    programs = postgresql_programs()
    assert programs is not None
    shutil.copytree(ROOT / "dags", tmp_path / "dags")
    (tmp_path / "dags" / "waits.py").write_text(WAITS.format(file=tmp_path / "resumed"))
    with postgresql(programs) as database:
        server = AirflowServer(tmp_path, database, {"AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags")})
        with server.running():
            for program in ("scheduler", "triggerer"):
                server.start(program, "--skip-serve-logs", name=f"{program}-2")
            yield server


def test_every_delivery_and_every_wait_is_handled_once_though_one_of_each_two_is_killed(airflow: AirflowServer) -> None:
    landing, expected = airflow.home / "perennial" / "landing" / "card_payments", list[str]()

    def land(*names: str) -> None:
        for name in names:
            path = landing / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            hidden = path.with_name(f".{path.name}")
            hidden.write_text("not parquet: the run fails, and that is its own affair")
            hidden.rename(path)
            expected.append(f"{name.replace('/', '_')}_1")

    def all_done() -> bool:
        runs = airflow.runs("card_payments_data")
        return len(runs) >= len(expected) and all(run["state"] == "failed" for run in runs)

    def waits() -> list[dict[str, Any]]:
        found = airflow.api.get("/dags/waits/dagRuns/~/taskInstances", params={"limit": 100})
        return found.raise_for_status().json()["task_instances"]

    land("events/2026-01-05", "labels/2026-01-05", "events/2026-01-06")
    airflow.until(all_done)

    asked = {"logical_date": None}
    airflow.until(lambda: airflow.api.post("/dags/waits/dagRuns", json=asked).is_success)
    airflow.until(lambda: [task["state"] for task in waits()] == ["deferred"] * 6, 120)
    airflow.kill("triggerer")
    land("events/2026-01-07", "events/2026-01-08")
    airflow.until(lambda: all(task["state"] == "success" for task in waits()))
    assert sorted((airflow.home / "resumed").read_text().split()) == [str(number) for number in range(6)]
    airflow.until(all_done)

    land("labels/2026-01-07", "events/2026-01-09")
    airflow.kill("scheduler")
    land("labels/2026-01-08")
    airflow.until(all_done)
    airflow.start("triggerer", "--skip-serve-logs")
    airflow.start("scheduler", "--skip-serve-logs")
    land("labels/2026-01-09")
    airflow.until(all_done)
    found = sorted(run["dag_run_id"].rpartition("_")[0] for run in airflow.runs("card_payments_data"))
    assert found == sorted(expected)
