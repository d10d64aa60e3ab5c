"""What every step's inputs have in common."""

from typing import Any

from training.contract.base import Frozen
from training.contract.names import Name, StoredMetric

Metrics = dict[StoredMetric, float]


def counted(fields: Any) -> Any:
    """Raw fields in which earlier versions wrote the number of `positives` beside `rows`, with `counts` instead."""
    if not isinstance(fields, dict) or "positives" not in fields:
        return fields
    positives, rows = fields["positives"], fields.get("rows", 0)
    kept = {name: value for name, value in fields.items() if name != "positives"}
    return {"counts": {"negative": rows - positives, "positive": positives}, **kept}


class StepInputs(Frozen):
    """The inputs of any step: those of a source, or those of a model."""


class SourceInputs(StepInputs):
    source: Name


class ModelInputs(StepInputs):
    model: Name
