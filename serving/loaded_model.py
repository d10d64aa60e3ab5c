"""A model version made ready to answer: verified, warm, measured, and tied to the features that it was trained with."""

import json
import threading
import time
from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from serving.schema import Row, made_up_row
from training.adapters.features import (
    Features,
    Found,
    OnlineReader,
    Plan,
    check_golden_features,
    golden_events,
    request_code,
)
from training.adapters.onnx_model import OnnxModel
from training.contract.artifact import ArtifactMetadata
from training.contract.errors import DataContractError
from training.contract.model_spec import ModelSpec
from training.contract.signals import NO_TIMES, TIME_BUCKETS
from training.settings import ServingSettings

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

    def try_out(self, features: np.ndarray) -> np.ndarray:
        """As `score`, without counting it."""
        return super().score(features)

    def _note(self, seconds: float) -> None:
        self._calls += 1
        self._quickest = min(self._quickest, seconds)
        if self._calls == CALLS:
            self.slow = self._quickest > (SLOW_SECONDS / 4 if self.slow else SLOW_SECONDS)
            self._calls, self._quickest = 0, float("inf")


@dataclass(frozen=True)
class LoadedModel:
    version: int
    digest: str
    model: MeasuredModel
    #: How its features are made, in the order in which the model takes them.
    plan: Plan
    #: An event that it must be able to answer at any time.
    probe: Row
    #: When it took its present place.
    since: datetime

    @cached_property
    def names_as_json(self) -> str:
        """Its features in its order, as the prediction log wants them."""
        return json.dumps(self.model.metadata.feature_names)

    def score(self, values: np.ndarray) -> np.ndarray:
        """Scores [n] of its features `values` [n, d]; some may be no numbers."""
        return self.model.score(values)

    def check(self, found: Sequence[Found]) -> None:
        """Score the probe, with what was `found` of it in `plan.views`, without counting it.

        Raises DataContractError when the score is not a number, and whatever the features or the model raise.
        """
        if not np.isfinite(self.model.try_out(self.plan.assemble([self.probe], found).values)).all():
            raise DataContractError(f"Version {self.version}'s score of a probe is not a number", hint="Train again.")

    def taking_place_now(self) -> "LoadedModel":
        return replace(self, since=datetime.now(UTC))


class LoadedModelFactory:
    """Makes loaded models of one model's artifacts. Versions with the same features share a plan and its lookups.

    What a version reads is said by its artifact, how request features are made by the code on disk when it is loaded.
    Later changes on disk do not touch it.
    """

    def __init__(self, settings: ServingSettings, spec: ModelSpec) -> None:
        self._settings, self._spec = settings, spec
        self._plans: WeakValueDictionary[Hashable, Plan] = WeakValueDictionary()

    def open(self, version: int, model: MeasuredModel) -> LoadedModel:
        """Tie `model`, verified, to its features, and score one event to warm the way.

        Raises DataContractError when its features cannot be made here, or the golden events have others than they had
        in training; and whatever the online store does.
        """
        metadata = model.metadata
        plan = self._plan(metadata)
        check_golden_features(plan, metadata.golden, self._spec)
        events = golden_events(metadata.golden, self._spec)
        probe = events[0] if events else made_up_row(self._spec)
        loaded = LoadedModel(version, metadata.digest, model, plan, probe, datetime.now(UTC))
        loaded.check(OnlineReader(self._settings).look_up([probe], plan.views))
        return loaded

    def _plan(self, metadata: ArtifactMetadata) -> Plan:
        """Of an artifact from before they held definitions: as the feature code here defines its features now."""
        folder, spec = self._settings.feature_repo, self._spec
        definitions = metadata.features or Features(self._settings, spec).definitions
        code = request_code(folder, spec)
        plan = Plan(definitions, code.functions, spec, metadata.feature_names)
        return self._plans.setdefault((code.digest, plan.definitions, plan.names), plan)


def load_model(folder: Path, spec: ModelSpec) -> MeasuredModel:
    """The artifact in `folder`, verified against its digest and its golden predictions.

    Raises InputError or DataContractError: it must not serve.
    """
    model = MeasuredModel.load(folder)
    if model.metadata.model != spec.name:
        raise DataContractError(f"The artifact is of model {model.metadata.model!r}, not {spec.name!r}")
    model.check_golden()
    return model
