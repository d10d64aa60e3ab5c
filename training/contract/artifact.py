"""The served artifact: a folder with `model.onnx` and `metadata.json`. Serving needs nothing else of a model.

`model.onnx` takes `features` (float32, [rows, len(feature_names)]) and returns `scores` (float32, [rows]), the
probabilities of the positive class. The folder holds no pickle, and serving never loads one.
"""

from datetime import date
from typing import Any, Literal

from pydantic import model_validator

from training.contract.base import Days, Frozen, TableVersions
from training.contract.feature_definitions import FeatureColumn, FeatureDefinitions
from training.contract.messages import Metrics
from training.contract.names import EstimatorName, Name

ONNX_FILE = "model.onnx"
METADATA_FILE = "metadata.json"
ONNX_INPUT = "features"
ONNX_OUTPUT = "scores"

#: The version that training writes. Version 1 had no feature definitions and no golden events. Serving still reads it.
SCHEMA_VERSION: Literal[2] = 2


class Golden(Frozen):
    """Rows with known features and scores. A version that does not reproduce them is not served."""

    features: list[list[float | None]]
    """Rows of the matrix that the model gets. None: NaN."""
    scores: list[float]
    tolerance: float = 1e-4
    events: list[dict[str, Any]] = []
    """For each row the event as in a request. Times are ISO 8601 in UTC."""
    batch: list[dict[str, float | str | None]] = []
    """For each row the values of the views' columns. Null when there was no feature row."""


class ArtifactMetadata(Frozen):
    schema_version: Literal[1, 2] = 1
    features: FeatureDefinitions | None = None
    """The definitions of `feature_names`. None in schema version 1; then those of the code image apply."""
    model: Name
    estimator: EstimatorName
    digest: str
    """SHA-256 of model.onnx."""
    feature_service: str
    feature_names: list[str]
    threshold: float
    """From this score on, the decision is an alert."""
    golden: Golden
    dataset_id: str
    as_of: date
    train_days: Days
    holdout_days: Days
    table_versions: TableVersions
    holdout_metrics: Metrics
    parameters: dict[str, Any]
    config_hash: str

    @property
    def columns(self) -> tuple[FeatureColumn, ...]:
        """The columns of the matrix that the model gets."""
        if self.features is None:
            return tuple(FeatureColumn(name=name) for name in self.feature_names)
        return self.features.columns(self.feature_names)

    @model_validator(mode="after")
    def _complete(self) -> "ArtifactMetadata":
        if self.schema_version == 1:
            return self
        if self.features is None:
            raise ValueError("schema version 2 needs features")
        if lacking := sorted(set(self.feature_names) - self.features.made()):
            raise ValueError(f"features do not define {', '.join(lacking)}")
        golden = self.golden
        if not len(golden.scores) == len(golden.features) == len(golden.events) == len(golden.batch):
            raise ValueError("golden needs as many events and batch rows as features and scores")
        return self
