"""The task that repeats a failed data run: when it does, and when it gives up. Airflow runs real steps in here."""

import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.models.dagrun import DagRun
from airflow.sdk import DAG
from airflow.sdk.observability.stats import Stats
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState as State
from perennial_airflow import operators
from perennial_airflow.try_again import WAITS, TryAgainLaterOperator
from sqlalchemy import select

from tests.airflow_fixtures import StepServer

pytestmark = [pytest.mark.usefixtures("airflow_database", "step_settings")]

ASK = {"model": "card_fraud", "run": "a-run"}
SUCCEEDS = {"step": "decide_retraining", "inputs": {**ASK, "trigger": "new_data"}}
#: Exit code 75: no MLflow answers.
AWAY = {"step": "rollback", "inputs": {"model": "card_fraud", "version": 1}}
#: Exit code 64.
WRONG = {"step": "decide_retraining", "inputs": {**ASK, "request_id": "unknown"}}
CONF = {"feed": "events", "partition": "2026-01-05", "file": "2026-01-05.parquet"}
WAIT = timedelta(hours=2)


@pytest.fixture(autouse=True)
def launcher(request: pytest.FixtureRequest, step_settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are forked by the step server. `operators.StepOperator` is looked up in each test: imported with this file,
    it would be that of the default launcher."""
    if sys.platform == "linux":
        server: StepServer = request.getfixturevalue("step_server")
        monkeypatch.setenv("CT_LAUNCHER", "forkserver")
        monkeypatch.setenv("CT_FORKSERVER_SOCKET", str(server.socket))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The gauges of deliveries that were sent, with their tags."""
    found: list[Any] = []

    def gauge(name: str, *args: Any, **kwargs: Any) -> None:
        if name.startswith("perennial.data."):
            found.append((name, kwargs["tags"]))

    monkeypatch.setattr(Stats, "gauge", gauge)
    return found


def run(dag_id: str, *steps: dict[str, Any], waits: tuple[timedelta, ...] = (WAIT,)) -> dict[str, Any]:
    """Task → its instance, after one run of a DAG of these steps and the task that repeats it."""
    with DAG(dag_id, schedule=None, default_args={"retries": 0}) as dag:
        made = [operators.StepOperator(task_id=f"step_{number}", **step) for number, step in enumerate(steps)]
        for earlier, later in pairwise(made):
            earlier >> later
        made >> TryAgainLaterOperator(task_id="try_again_later", source="card_payments", waits=waits, retries=0)
    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(None)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    return {ti.task_id: ti for ti in dag.test(run_conf=CONF).get_task_instances()}


def repetitions(ti: Any) -> list[DagRun]:
    """The queued repetitions of the run of `ti`."""
    with create_session() as session:
        found = session.scalars(select(DagRun).where(DagRun.dag_id == ti.dag_id, DagRun.run_id != ti.run_id))
        return list(found)


@pytest.mark.ci
def test_a_run_that_failed_because_something_was_away_is_queued_again_for_later(told: list[Any]) -> None:
    began = datetime.now(UTC)
    tis = run("away", SUCCEEDS, AWAY, SUCCEEDS)
    assert (tis["step_1"].state, tis["step_2"].state) == (State.FAILED, State.UPSTREAM_FAILED)
    # The failed run stays a failed one.
    assert tis["try_again_later"].state == State.FAILED
    assert tis["try_again_later"].get_dagrun().state == "failed"
    (again,) = repetitions(tis["step_0"])
    assert (again.run_id, again.state) == (f"{tis['step_0'].run_id}-again-1", "queued")
    assert again.conf == CONF
    assert began + WAIT <= again.run_after <= datetime.now(UTC) + WAIT
    assert told == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("case", "step", "waits"), [("wrong", WRONG, (WAIT,)), ("too_often", AWAY, ())], ids=["wrong", "too often"]
)
def test_a_run_is_given_up_when_no_repetition_helps_and_that_is_told(
    case: str, step: dict[str, Any], waits: tuple[timedelta, ...], told: list[Any]
) -> None:
    tis = run(f"given_up_{case}", step, waits=waits)
    assert tis["try_again_later"].state == State.FAILED
    assert repetitions(tis["step_0"]) == []
    assert told == [("perennial.data.not_taken_in", {"source": "card_payments"})]


def test_a_run_that_succeeds_is_not_repeated(told: list[Any]) -> None:
    tis = run("succeeds", SUCCEEDS)
    assert tis["try_again_later"].state == State.SKIPPED
    assert tis["try_again_later"].get_dagrun().state == "success"
    assert (repetitions(tis["step_0"]), told) == ([], [])


def test_an_outage_of_two_days_is_survived() -> None:
    assert timedelta(days=2) <= sum(WAITS, timedelta()) < timedelta(days=3)
