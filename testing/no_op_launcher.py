"""A launcher that runs no step: every step of a monitoring, data or backfill run ends at once.

A monitor finds nothing. Ingest takes in its partition, whose days are computed again.
"""

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import Any

from perennial_airflow.step_task import StepTask

from training.contract.base import Days, Frozen
from training.contract.messages import (
    AuditResult,
    CheckResult,
    DecideRetrainingResult,
    DriftResult,
    FeaturesResult,
    IngestResult,
    MaterializeResult,
    PerformanceResult,
)

Inputs = Mapping[str, Any]


def ingested(inputs: Inputs) -> IngestResult:
    first, _, last = inputs["partition"].partition("_")
    days = Days(start=date.fromisoformat(first), end=date.fromisoformat(last or first) + timedelta(days=1))
    return IngestResult(
        outcome="appended",
        content_sha256="",
        rows_read=0,
        rows_kept=0,
        rows_quarantined=0,
        quarantine_reasons={},
        affected=days,
        table_versions={inputs["feed"]: 0},
        data_docs=None,
    )


RESULTS: dict[str, Callable[[Inputs], Frozen]] = {
    "drift": lambda inputs: DriftResult(outcome="no data"),
    "performance": lambda inputs: PerformanceResult(outcome="no predictions"),
    "audit": lambda inputs: AuditResult(outcome="no predictions"),
    "decide_retraining": lambda inputs: DecideRetrainingResult(
        request_id=None, granted=False, why="No step ran.", as_of=None, trigger=None, reason="", waiting=[]
    ),
    "check": lambda inputs: CheckResult(outcome="passed", digest=""),
    "ingest": ingested,
    "features": lambda inputs: FeaturesResult(rows={}, table_versions=inputs["table_versions"]),
    "materialize": lambda inputs: MaterializeResult(as_of=None, rows={}, table_versions=inputs["table_versions"]),
}


class NoOpOperator(StepTask):
    def run_step(self, context: Any) -> dict[str, Any]:
        return RESULTS[self.step](self.all_inputs).model_dump(mode="json")
