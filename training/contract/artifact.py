"""The served artifact: a folder with `model.onnx` and `metadata.json`. Serving needs nothing else of a model.

`model.onnx` takes `features` (float32, [rows, len(feature_names)]) and returns `scores` (float32): the probability of
the positive class [rows], the probabilities of all classes [rows, classes], or a number [rows]. `task` says which, and
what they mean. The folder holds no pickle, and serving never loads one.
"""

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from training.contract.base import Days, Frozen, TableVersions
from training.contract.errors import DataContractError
from training.contract.feature_definitions import FeatureColumn, FeatureDefinitions
from training.contract.messages import DailyLoss, Metrics
from training.contract.names import EstimatorName, Name
from training.contract.predictions import SCORE

ONNX_FILE = "model.onnx"
METADATA_FILE = "metadata.json"
#: What an artifact may take unless CT_ARTIFACT_MAXIMUM_MIB says otherwise.
MAXIMUM_MIB = 1024
#: The signature's file, beside the two when they were downloaded. In the run it lies apart, see `signature_of`.
SIGNATURE_FILE = "model.sig"
#: The folder of a run's artifacts with the signatures of its other folders.
SIGNATURES = "signature"
#: Verifies the files of a folder. Returns the SHA-256 of each, hexadecimal; raises DataContractError.
ArtifactCheck = Callable[[Path], Mapping[str, str]]
ONNX_INPUT = "features"
ONNX_OUTPUT = "scores"

#: The version that training writes. Serving still reads version 1, which had no feature definitions and no golden
#: events, and version 2, which had the threshold of a binary task instead of `task` and `outputs`.
SCHEMA_VERSION: Literal[3] = 3


def signature_of(folder: str) -> str:
    """The artifact of a run with the signature of the files in its artifact folder `folder`."""
    return f"{SIGNATURES}/{folder}.sig"


def too_large(name: str, size: int, maximum_mib: int) -> DataContractError:
    """The error about a part of an artifact, called `name`, that takes `size` bytes."""
    problem = f"{name} takes {size / 2**20:,.1f} MiB, and an artifact may take {maximum_mib} MiB"
    return DataContractError(problem, hint="Train a smaller model, or set CT_ARTIFACT_MAXIMUM_MIB higher.")


class Golden(Frozen):
    """Rows with known features and scores. A version that does not reproduce them is not served."""

    features: list[list[float | None]]
    """Rows of the matrix that the model gets. None: NaN."""
    scores: list[float] | list[list[float]]
    tolerance: float = 1e-4
    events: list[dict[str, Any]] = []
    """For each row the event as in a request. Times are ISO 8601 in UTC."""
    batch: list[dict[str, float | str | None]] = []
    """For each row the values of the views' columns. Null when there was no feature row."""


class ArtifactMetadata(Frozen):
    schema_version: Literal[1, 2, 3] = 1
    features: FeatureDefinitions | None = None
    """The definitions of `feature_names`. None in schema version 1; then those of the code image apply."""
    model: Name
    estimator: EstimatorName
    digest: str
    """SHA-256 of model.onnx."""
    feature_service: str
    feature_names: list[str]
    task: dict[str, Any]
    """The kind of the task and what was fitted of it (training/domain/task_kind.py, ServedTask.stored)."""
    outputs: list[str]
    """The names of the outputs in the prediction log."""
    holdout_outputs: dict[str, list[float] | list[str]] = {}
    """What monitoring compares: name → as many values as represent those of the holdout, in ascending order."""
    golden: Golden
    dataset_id: str
    as_of: date
    train_days: Days
    holdout_days: Days
    window: str = ""
    """The name of its window among those of the dataset. Empty: the usual one."""
    change: date | None = None
    """The change for which gap and holdout are shorter."""
    known_since: date | None = None
    """Positive labels of events since then made an entity known in the holdout. None: since the training days began."""
    table_versions: TableVersions
    holdout_metrics: Metrics
    holdout_standard_errors: Metrics = {}
    """That of the primary metric, where it can be estimated."""
    holdout_losses: dict[date, DailyLoss] = {}
    """Day of the holdout → what the model lost on it. Empty for a model of an earlier version."""
    holdout_counts: dict[str, int] = {}
    """Class → its rows, where labels are classes."""
    parameters: dict[str, Any]
    config_hash: str

    @property
    def columns(self) -> tuple[FeatureColumn, ...]:
        """The columns of the matrix that the model gets."""
        if self.features is None:
            return tuple(FeatureColumn(name=name) for name in self.feature_names)
        return self.features.columns(self.feature_names)

    def check_kind(self, kind: str) -> None:
        """Raises DataContractError when the model is not of this kind of task."""
        if self.task["kind"] != kind:
            problem = f"The model predicts for a task of kind {self.task['kind']}, and the spec names {kind}"
            raise DataContractError(problem, hint="Train a model of that kind.")

    @property
    def threshold(self) -> float:
        """Of a binary task."""
        return float(self.task["threshold"])

    @model_validator(mode="before")
    @classmethod
    def _binary_in_earlier_versions(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or "threshold" not in fields:
            return fields
        kept = {name: value for name, value in fields.items() if name != "threshold"}
        return {"task": {"kind": "binary", "threshold": fields["threshold"]}, "outputs": [SCORE], **kept}

    @model_validator(mode="after")
    def _complete(self) -> "ArtifactMetadata":
        if self.schema_version == 1:
            return self
        if self.features is None:
            raise ValueError(f"schema version {self.schema_version} needs features")
        if lacking := sorted(set(self.feature_names) - self.features.made()):
            raise ValueError(f"features do not define {', '.join(lacking)}")
        golden = self.golden
        if not len(golden.scores) == len(golden.features) == len(golden.events) == len(golden.batch):
            raise ValueError("golden needs as many events and batch rows as features and scores")
        return self
