"""The metrics that alerts on drift, performance and open approvals are made of."""

from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk.observability.stats import Stats
from perennial_airflow.step_task import StepTask

from training.contract.base import Frozen
from training.contract.messages import (
    AuditResult,
    DriftResult,
    OpenRequests,
    PerformanceResult,
    RecordApprovalResult,
    RequestApprovalResult,
)

Sent = list[tuple[str, float, dict[str, str]]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, step_settings: object) -> Sent:
    found: Sent = []

    def gauge(name: str, value: float, **kwargs: Any) -> None:
        if name.startswith(("perennial.monitor.", "perennial.approval.")):
            found.append((name, value, kwargs["tags"]))

    monkeypatch.setattr(Stats, "gauge", gauge)
    return found


def look(step: str, result: Frozen) -> None:
    class Task(StepTask):
        def run_step(self, context: Any) -> dict[str, Any]:
            return result.model_dump(mode="json")

    Task(step=step, inputs={"model": "flight_delay"}).execute({})


def test_what_a_look_measured_is_sent_with_the_model(sent: Sent) -> None:
    look("drift", DriftResult(outcome="measured", drifted=True, drifted_share=0.25))
    look("performance", PerformanceResult(outcome="measured", degraded=False))
    assert sent == [
        ("perennial.monitor.drifted", 1.0, {"model": "flight_delay"}),
        ("perennial.monitor.drifted_share", 0.25, {"model": "flight_delay"}),
        ("perennial.monitor.degraded", 0.0, {"model": "flight_delay"}),
    ]


@pytest.mark.parametrize(
    ("step", "result"),
    [
        ("drift", DriftResult(outcome="no data")),
        ("performance", PerformanceResult(outcome="too few labels")),
        ("audit", AuditResult(outcome="no predictions")),
    ],
)
def test_what_could_not_measure_sends_nothing(sent: Sent, step: str, result: Frozen) -> None:
    look(step, result)
    assert sent == []


def test_open_requests_for_approval_are_sent_and_that_there_is_none(sent: Sent) -> None:
    since = datetime(2026, 3, 2, 9, tzinfo=UTC)
    look("request_approval", RequestApprovalResult(open=True, waiting=OpenRequests(count=2, since=since)))
    look("record_approval", RecordApprovalResult(version=1, digest="d", approved=True, outcome="approved"))
    assert sent == [
        ("perennial.approval.open", 2, {"model": "flight_delay"}),
        ("perennial.approval.open_since", since.timestamp(), {"model": "flight_delay"}),
        ("perennial.approval.open", 0, {"model": "flight_delay"}),
    ]
