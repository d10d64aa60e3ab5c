"""MLflow: the registry of model versions (versions.py) and the training runs that they come from (runs.py)."""

from training.adapters.registry.downloads import REFERENCE, SERVED
from training.adapters.registry.runs import Run, Runs
from training.adapters.registry.versions import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    TABLE,
    ModelState,
    ModelVersion,
    Registry,
    table_tags,
)

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "PREVIOUS",
    "REFERENCE",
    "SERVED",
    "TABLE",
    "ModelState",
    "ModelVersion",
    "Registry",
    "Run",
    "Runs",
    "table_tags",
]
