"""A model version made ready to answer: verified, warm, measured, and tied to the features that it was trained on."""

import json
import threading
import time
from bisect import bisect_left
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from serving.schema import made_up_row
from training.adapters.features import Features
from training.adapters.onnx_model import OnnxModel
from training.contract.errors import DataContractError
from training.contract.model_spec import ModelSpec
from training.contract.signals import NO_TIMES, TIME_BUCKETS
from training.settings import Settings

#: Up to so many rows are few.
FEW_ROWS = 16
#: A model is slow when even the quickest of so many calls with few rows took longer than this, and no more below a
#: fourth. The quickest, because on a busy machine any call may have been made to wait.
CALLS, SLOW_SECONDS = 8, 0.002


class MeasuredModel(OnnxModel):
    """Counts what the model itself does, whoever calls it: rows, scores that are not numbers, seconds of each call."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._lock = threading.Lock()
        self.scored = self.nans = 0
        self.times = list(NO_TIMES)
        self.slow = False
        self._calls, self._quickest = 0, float("inf")

    @cached_property
    def threshold(self) -> float:
        """Of the metadata, rounded to float32 as the scores are: every way of comparing them decides the same."""
        return float(np.float32(self.metadata.threshold))

    def score(self, features: np.ndarray) -> np.ndarray:
        """As OnnxModel.score; some may be no numbers."""
        began = time.perf_counter()
        scores = super().score(features)
        seconds = time.perf_counter() - began
        rows = len(scores)
        nans = rows - int(np.count_nonzero(np.isfinite(scores)))
        with self._lock:
            self.scored += rows
            self.times[bisect_left(TIME_BUCKETS, seconds)] += 1
            self.nans += nans
            if rows <= FEW_ROWS:
                self._note(seconds)
        return scores

    def _note(self, seconds: float) -> None:
        self._calls += 1
        self._quickest = min(self._quickest, seconds)
        if self._calls == CALLS:
            self.slow = self._quickest > (SLOW_SECONDS / 4 if self.slow else SLOW_SECONDS)
            self._calls, self._quickest = 0, float("inf")


@dataclass(frozen=True)
class Slot:
    version: int
    digest: str
    model: MeasuredModel
    features: Features
    #: Where the model's features are among those of the feature service; None where they are all of them in order.
    columns: np.ndarray | None
    #: When it took its present place.
    since: datetime

    @cached_property
    def names(self) -> frozenset[str]:
        """The features that it takes."""
        return frozenset(self.model.metadata.feature_names)

    @cached_property
    def names_as_json(self) -> str:
        """Its features in its order, as the prediction log wants them."""
        return json.dumps(self.model.metadata.feature_names)

    def take(self, values: np.ndarray) -> np.ndarray:
        """Of `values` [n, all features of the service] the model's own, in its order."""
        return values if self.columns is None else values.take(self.columns, axis=1)

    def score(self, values: np.ndarray) -> np.ndarray:
        """Scores [n] of `values` [n, all features of the service]; some may be no numbers."""
        return self.model.score(self.take(values))

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
    columns = None if places == list(range(len(names))) else np.array(places)
    slot = Slot(version, model.metadata.digest, model, features, columns, datetime.now(UTC))
    if not np.isfinite(slot.score(features.online([made_up_row(spec)]).values)).all():
        raise DataContractError("A made-up row's score is not a number", hint="Train again.")
    return slot
