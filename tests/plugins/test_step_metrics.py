"""What tasks send about the outcome of their steps, of which alerts are made."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.listeners.listener import get_listener_manager as server_listeners
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.listener import get_listener_manager as task_listeners
from airflow.sdk.observability.stats import Stats
from airflow.serialization.serialized_objects import DagSerialization
from airflow.utils.session import create_session
from perennial_airflow.compat.airflow_stats import server_stats
from perennial_airflow.refs import FromRun
from perennial_airflow.reports import UNKNOWN_ATTEMPTS, StepFailedError
from perennial_airflow.step_task import StepTask
from perennial_outcomes import Outcomes

from tests.cases import others_in_ci, others_long

Sent = dict[tuple[str, ...], float]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, step_settings: Path) -> Sent:
    """Name and tags → value, of the gauges that were sent."""
    found: Sent = {}

    def gauge(name: str, value: float, *args: Any, tags: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        if name.startswith("perennial."):
            found[name, *map("=".join, (tags or {}).items())] = value

    for stats in (Stats, server_stats):
        monkeypatch.setattr(stats, "gauge", gauge)
    return found


@pytest.fixture(autouse=True)
def listener() -> Iterator[None]:
    """As the plugin perennial_outcomes has it, in the process of a task and in the scheduler."""
    outcomes, managers = Outcomes(), [task_listeners(), server_listeners()]
    for manager in managers:
        manager.add_listener(outcomes)
    yield
    for manager in managers:
        manager.pm.unregister(outcomes)


def run(dag: DAG) -> list[TaskInstance]:
    """The instances of its tasks, after one run."""
    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(None)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    return list(dag.test().get_task_instances())


class Task(StepTask):
    """Each try ends as `ends` says: with an exception, or with a result (None). The last one without it."""

    def __init__(self, *, ends: Sequence[BaseException | None] = (), **kwargs: Any) -> None:
        super().__init__(**{"retries": len(ends), "retry_delay": timedelta(0), **kwargs})
        self.ends = ends

    def run_step(self, context: Any) -> dict[str, Any]:
        number = context["ti"].try_number - 1 if self.ends else 0
        if number < len(self.ends) and (error := self.ends[number]) is not None:
            raise error
        return {}


def test_a_success_is_sent_with_its_time_and_the_share_of_the_disk_that_is_free(
    sent: Sent, step_settings: Path
) -> None:
    began = time.time()
    Task(step="ingest", inputs={"source": "flights", "feed": "events"}).execute({})
    assert set(sent) == {("perennial.step.succeeded", "step=ingest", "source=flights")}
    assert began <= min(sent.values()) <= time.time()
    (step_settings / "lake").mkdir(parents=True)
    Task(step="ingest", inputs={"model": "flight_delay"}).execute({})
    assert ("perennial.step.succeeded", "step=ingest", "model=flight_delay") in sent
    assert 0 <= sent["perennial.disk.free_share", "of=lake"] <= 1


FAILED = {("perennial.step.failed", "step=ingest", "source=flights")}


@pytest.mark.ci
@pytest.mark.parametrize(
    ("ends", "retries", "told"),
    others_long(
        [
            ([StepFailedError("away", None)], 0, True),
            ([StepFailedError("away", None)], 1, False),
            ([StepFailedError("away", None)] * 2, 1, True),
            ([StepFailedError("bad inputs", 1)], 1, True),
            ([StepFailedError("unknown", UNKNOWN_ATTEMPTS)], 5, False),
            ([StepFailedError("unknown", UNKNOWN_ATTEMPTS)] * 2, 5, True),
            ([AirflowTaskTimeout("it hangs")], 0, True),
            ([ZeroDivisionError("a bug of the launcher")], 0, True),
            ([ZeroDivisionError("a bug of the launcher")], 1, False),
        ],
        first=2,
    ),
)
def test_a_failure_is_sent_by_the_process_of_the_task_when_it_is_not_tried_again(
    airflow_database: None, sent: Sent, ends: list[BaseException], retries: int, told: bool
) -> None:
    with DAG(f"ends_{uuid4().hex}", schedule=None) as dag:
        Task(step="ingest", inputs={"source": "flights"}, ends=ends, retries=retries)
    run(dag)
    succeeded = {("perennial.step.succeeded", "step=ingest", "source=flights")}
    assert set(sent) == (FAILED if told else succeeded)


def test_a_step_that_succeeds_in_a_run_that_fails_has_not_failed(airflow_database: None, sent: Sent) -> None:
    with DAG(f"ends_{uuid4().hex}", schedule=None) as dag:
        Task(step="ingest", inputs={"source": "flights"}, then_fail="The run failed.")
    assert [instance.state for instance in run(dag)] == ["failed"]
    assert set(sent) == {("perennial.step.succeeded", "step=ingest", "source=flights")}


def asked(run: Any) -> dict[str, Any]:
    """Inputs that the scheduler does not know."""
    return {"feed": "events"}


@pytest.mark.parametrize(
    ("state", "mapped"),
    others_in_ci([("failed", True), ("up_for_retry", False), ("failed", False), ("up_for_retry", True)], first=2),
)
def test_the_scheduler_sends_the_failure_of_a_task_whose_process_was_killed(
    airflow_database: None, sent: Sent, state: str, mapped: bool
) -> None:
    with DAG(f"killed_{uuid4().hex}", schedule=None) as dag:
        named = {"step": "ingest", "inputs": FromRun(asked), "retries": int(state != "failed")}
        if mapped:
            Task.partial(task_id="t", **named | {"inputs": {"source": "flights"}}).expand(more_inputs=[{}, {}])
        else:
            Task(task_id="t", more_inputs={"source": "flights"}, **named)
    instances = killed_last(dag)
    sent.clear()
    with create_session() as session:
        for instance in instances:
            # What the scheduler does when an executor reports a task that Airflow takes for running.
            instance.handle_failure("the executor says that it failed", session=session)
    assert {instance.state for instance in instances} == {state}
    assert set(sent) == (FAILED if state == "failed" else set())


def killed_last(dag: DAG) -> list[TaskInstance]:
    """The tasks of `dag` after a run that only succeeded; the scheduler then takes them for running."""
    instances = run(dag)
    tasks = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    for instance in instances:
        instance.state, instance.task = "running", tasks.get_task(instance.task_id)
    return instances
