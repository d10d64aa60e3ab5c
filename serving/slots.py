"""A model version made ready to answer: verified, warm, measured, and tied to the features that it was trained on."""

import threading
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from training.adapters.features import Features
from training.adapters.onnx_model import OnnxModel
from training.contract.errors import DataContractError
from training.contract.model_spec import Column, ModelSpec
from training.contract.signals import NO_TIMES, TIME_BUCKETS
from training.settings import Settings


class MeasuredModel(OnnxModel):
    """Counts what the model itself does, whoever calls it: rows, scores that are not numbers, seconds of each call."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._lock = threading.Lock()
        self.scored = self.nans = 0
        self.times = list(NO_TIMES)

    def score(self, features: np.ndarray) -> np.ndarray:
        begun = time.perf_counter()
        scores = super().score(features)
        bucket = bisect_left(TIME_BUCKETS, time.perf_counter() - begun)
        finite = np.count_nonzero(np.isfinite(scores))
        with self._lock:
            self.scored += len(scores)
            self.times[bucket] += 1
            self.nans += len(scores) - int(finite)
        return scores


@dataclass(frozen=True)
class Scored:
    """One entry per row. `features` has the model's features in its own order."""

    scores: np.ndarray
    features: np.ndarray
    timestamps: list[datetime | None]


@dataclass(frozen=True)
class Slot:
    version: int
    digest: str
    model: MeasuredModel
    features: Features
    #: Where the model's features are among those of the feature service; a slice where they are all of them in order.
    columns: slice | np.ndarray
    #: When it took its present place.
    since: datetime

    def score(self, rows: Sequence[Mapping[str, Any]]) -> Scored:
        """Look up the features of `rows` and score them. Raises DataContractError when a score is not a number."""
        online = self.features.online(rows)
        values = online.values[:, self.columns]
        scores = self.model.score(values)
        if not np.isfinite(scores).all():
            raise DataContractError(f"Version {self.version} gave scores that are not numbers", hint="Roll back.")
        return Scored(scores, values, online.timestamps)

    def taking_place_now(self) -> "Slot":
        return replace(self, since=datetime.now(UTC))


def load_model(folder: Path, spec: ModelSpec) -> MeasuredModel:
    """The artifact in `folder`, verified against its digest and its golden predictions.

    Raises InputError or DataContractError: it must not serve.
    """
    model = MeasuredModel.load(folder)
    if model.metadata.model != spec.name:
        raise DataContractError(f"The artifact is of model {model.metadata.model!r}, not {spec.name!r}")
    model.check_golden()
    return model


def open_slot(version: int, model: MeasuredModel, settings: Settings, spec: ModelSpec) -> Slot:
    """Tie `model` to the features as they are defined now, and score one made-up row to warm the way.

    Raises DataContractError when the feature service lacks a feature of the model, and whatever the online store does.
    """
    features = Features(settings, spec)
    names = features.names()
    missing = [name for name in model.metadata.feature_names if name not in names]
    if missing:
        problem = f"Feature service {spec.features.service!r} lacks {', '.join(missing)}"
        raise DataContractError(problem, hint="Apply the feature definitions that the model was trained on.")
    places = [names.index(name) for name in model.metadata.feature_names]
    columns = slice(None) if places == list(range(len(names))) else np.array(places)
    slot = Slot(version, model.metadata.digest, model, features, columns, datetime.now(UTC))
    slot.score([{name: _made_up(column) for name, column in spec.request_columns.items()}])
    return slot


def _made_up(column: Column) -> Any:
    if column.values is not None:
        return column.values[0]
    made_up = {"int64": 0, "float64": 0.0, "string": "", "bool": False, "timestamp": datetime(2020, 1, 1, tzinfo=UTC)}
    return made_up[column.type]
