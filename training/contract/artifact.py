"""The served artifact: a folder with `model.onnx` and `metadata.json`. Serving knows a model by nothing else.

`model.onnx` takes `features` (float32, [rows, len(feature_names)]) and gives `scores` (float32, [rows]), the
probability of the positive class. No pickle is in it, none is ever loaded by serving.
"""

from datetime import date
from typing import Any, Literal

from training.contract.base import Days, Frozen, TableVersions
from training.contract.messages import Metrics
from training.contract.model_spec import EstimatorName, Name

ONNX_FILE = "model.onnx"
METADATA_FILE = "metadata.json"
ONNX_INPUT = "features"
ONNX_OUTPUT = "scores"


class Golden(Frozen):
    """Rows with known scores: a version that does not reproduce them is not served."""

    features: list[list[float]]
    scores: list[float]
    tolerance: float = 1e-4


class ArtifactMetadata(Frozen):
    schema_version: Literal[1] = 1
    model: Name
    estimator: EstimatorName
    digest: str
    """SHA-256 of model.onnx."""
    feature_service: str
    feature_names: list[str]
    threshold: float
    """Scores at or above it are flagged."""
    golden: Golden
    dataset_id: str
    as_of: date
    train_days: Days
    holdout_days: Days
    table_versions: TableVersions
    holdout_metrics: Metrics
    parameters: dict[str, Any]
    config_hash: str
