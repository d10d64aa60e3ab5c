"""The metrics that alerts on drift and performance are made of."""

from typing import Any

import pytest
from airflow.sdk.observability.stats import Stats
from perennial_airflow.step_task import StepTask

from training.contract.base import Frozen
from training.contract.messages import AuditResult, DriftResult, PerformanceResult

Sent = list[tuple[str, float, dict[str, str]]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, step_settings: object) -> Sent:
    found: Sent = []

    def gauge(name: str, value: float, **kwargs: Any) -> None:
        if name.startswith("perennial.monitor."):
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
