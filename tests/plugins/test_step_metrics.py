"""What tasks send about the outcome of their steps, of which alerts are made."""

import time
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException
from airflow.sdk.observability.stats import Stats
from perennial_airflow.reports import UNKNOWN_ATTEMPTS, StepFailedError
from perennial_airflow.step_task import StepTask

Sent = dict[tuple[str, ...], float]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, step_settings: Path) -> Sent:
    """Name and tags → value, of the gauges that were sent."""
    found: Sent = {}
    monkeypatch.setattr(
        Stats, "gauge", lambda name, value, tags: found.update({(name, *map("=".join, tags.items())): value})
    )
    return found


class TaskInstance:
    def __init__(self, try_number: int) -> None:
        self.try_number, self.max_tries = try_number, 5

    def xcom_push(self, **kwargs: Any) -> None:
        pass


def run(inputs: dict[str, str], try_number: int = 1, error: StepFailedError | None = None) -> None:
    class Task(StepTask):
        def run_step(self, context: Any) -> dict[str, Any]:
            if error is not None:
                raise error
            return {}

    Task(step="ingest", inputs=inputs).execute({"ti": TaskInstance(try_number)})


def test_a_success_is_sent_with_its_time_and_the_share_of_the_disk_that_is_free(
    sent: Sent, step_settings: Path
) -> None:
    began = time.time()
    run({"source": "flights", "feed": "events"})
    assert set(sent) == {("perennial.step.succeeded", "step=ingest", "source=flights")}
    assert began <= min(sent.values()) <= time.time()
    (step_settings / "lake").mkdir(parents=True)
    run({"model": "flight_delay"})
    assert ("perennial.step.succeeded", "step=ingest", "model=flight_delay") in sent
    assert 0 <= sent["perennial.disk.free_share", "of=lake"] <= 1


@pytest.mark.parametrize(
    ("try_number", "attempts", "told"),
    [(1, None, False), (5, None, False), (6, None, True), (1, 1, True), (1, UNKNOWN_ATTEMPTS, False), (2, 2, True)],
)
def test_a_failure_is_sent_when_it_is_not_tried_again(
    sent: Sent, try_number: int, attempts: int | None, told: bool
) -> None:
    with pytest.raises(AirflowException):
        run({"source": "flights"}, try_number, StepFailedError("it failed", attempts))
    assert bool(sent) is told
    assert set(sent) <= {("perennial.step.failed", "step=ingest", "source=flights")}
