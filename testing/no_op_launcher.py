"""A launcher that runs no step: every monitoring step ends at once, with nothing found."""

from typing import Any

from perennial_airflow.step_task import StepTask

from training.contract.base import Frozen
from training.contract.messages import AuditResult, DecideRetrainingResult, DriftResult, PerformanceResult

RESULTS: dict[str, Frozen] = {
    "drift": DriftResult(outcome="no data"),
    "performance": PerformanceResult(outcome="no predictions"),
    "audit": AuditResult(outcome="no predictions"),
    "decide_retraining": DecideRetrainingResult(
        request_id=None, granted=False, why="No step ran.", as_of=None, trigger=None, reason="", waiting=[]
    ),
}


class NoOpOperator(StepTask):
    def run_step(self, context: Any) -> dict[str, Any]:
        return RESULTS[self.step].model_dump(mode="json")
