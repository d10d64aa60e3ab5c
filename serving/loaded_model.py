"""A model version that is ready to answer: verified, warmed up, measured, with the features that it was trained on."""

import json
import logging
import math
import threading
import time
from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from serving.schema import Row, made_up_row
from serving.speed import Speed
from training.adapters.features import (
    FeaturePlan,
    Features,
    OnlineReader,
    ViewRows,
    check_golden_features,
    golden_events,
    request_code,
)
from training.adapters.onnx_model import OnnxModel
from training.contract.artifact import ArtifactMetadata
from training.contract.errors import DataContractError, TransientError
from training.contract.model_spec import ModelSpec
from training.contract.signals import NO_TIMES, TIME_BUCKETS
from training.domain.task_kind import ServedTask
from training.settings import ServingSettings

#: A call of the model with at most this many rows is a small one.
FEW_ROWS = 16
#: Events that are scored when a version is loaded, to see how fast it is; one is enough if it takes TRY_SECONDS.
TRIES, TRY_SECONDS = 3, 0.1

log = logging.getLogger("perennial")


@dataclass
class Work:
    """What a model has done for all callers: rows, scores that are not numbers, seconds of each call."""

    scored: int = 0
    nans: int = 0
    #: Calls per range of TIME_BUCKETS.
    times: list[int] = field(default_factory=lambda: list(NO_TIMES))


class MeasuredModel(OnnxModel):
    """Counts its work, and measures its speed."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._lock = threading.Lock()
        self.work = Work()
        #: Of small calls, and of making the features of few rows.
        self.speed, self.feature_speed = Speed(), Speed()

    def score(self, features: np.ndarray) -> np.ndarray:
        """Scores [n], or [n, k] of classes, of `features` [n, d]. Some may not be numbers."""
        began, worked = time.perf_counter(), time.thread_time()
        scores = super().score(features)
        seconds, worked = time.perf_counter() - began, time.thread_time() - worked
        rows = len(scores)
        nans = 0
        if not math.isfinite(np.add.reduce(scores, None)):  # The sum is finite only if all scores are.
            finite = np.isfinite(scores)
            nans = rows - int(np.count_nonzero(finite if finite.ndim == 1 else finite.all(axis=1)))
        with self._lock:
            self.work.scored += rows
            self.work.times[bisect_left(TIME_BUCKETS, seconds)] += 1
            self.work.nans += nans
        if rows <= FEW_ROWS:
            # Not `seconds`: on a busy machine the thread waits for its turn, and would wait in another thread too.
            self.speed.judge(worked)
        return scores

    def try_out(self, features: np.ndarray) -> np.ndarray:
        """As `score`, without counting the call."""
        return super().score(features)


@dataclass(frozen=True)
class LoadedModel:
    """One version. `since` is when it took over its alias."""

    version: int
    digest: str
    model: MeasuredModel
    #: How to make its features, in the order in which the model takes them.
    plan: FeaturePlan
    #: An event that it must be able to score at any time.
    probe: Row
    since: datetime

    @property
    def task(self) -> ServedTask:
        """What its scores mean."""
        return self.model.task

    @cached_property
    def output_names_json(self) -> str:
        """The names of its outputs, a JSON list, as the prediction log wants them."""
        return json.dumps(self.task.output_names)

    @cached_property
    def feature_names_json(self) -> str:
        """The names of its features in their order, a JSON list, as the prediction log wants them."""
        return json.dumps(self.model.metadata.feature_names)

    def score(self, values: np.ndarray) -> np.ndarray:
        """Scores [n], or [n, k] of classes, of its features `values` [n, d]. Some may not be numbers."""
        return self.model.score(values)

    def check(self, found: Sequence[ViewRows]) -> None:
        """Score the probe without counting it. `found`: its rows in the online store, one per view of `plan.views`.

        Raises DataContractError when the score is not a number, and whatever the features or the model raise.
        """
        if not np.isfinite(self.model.try_out(self.plan.assemble([self.probe], found).values)).all():
            raise DataContractError(f"Version {self.version}'s score of a probe is not a number", hint="Train again.")

    @property
    def slow(self) -> bool:
        """Whether an answer takes so long that it must not be made on the event loop."""
        return self.model.speed.slow or self.model.feature_speed.slow

    def measure(self, found: Sequence[ViewRows]) -> None:
        """Find out how fast it is, before the first request. `found`: as for `check`."""
        features, scores = list[float](), list[float]()
        while len(scores) < TRIES and sum(features) + sum(scores) < TRY_SECONDS:
            began = time.perf_counter()
            values = self.plan.assemble([self.probe], found).values
            made = time.perf_counter()
            self.model.try_out(values)
            features.append(made - began)
            scores.append(time.perf_counter() - made)
        self.model.feature_speed.measured(min(features))
        self.model.speed.measured(min(scores))

    def since_now(self) -> "LoadedModel":
        return replace(self, since=datetime.now(UTC))


class LoadedModelFactory:
    """Loads versions of one model. Versions with the same features share a plan and its lookups.

    The artifact of a version says what it reads from the online store. The code on disk at the moment of loading makes
    its request features; later changes on disk do not affect it.
    """

    def __init__(self, settings: ServingSettings, spec: ModelSpec) -> None:
        self._settings, self._spec = settings, spec
        self._plans: WeakValueDictionary[Hashable, FeaturePlan] = WeakValueDictionary()

    def open(self, version: int, model: MeasuredModel) -> LoadedModel:
        """The verified `model` with its features. Scores a few events, to warm up and to measure its speed.

        Raises DataContractError when the features cannot be made here, or when those of the golden events differ from
        training, and what the online store raises when it has an answer that cannot be read.
        """
        metadata = model.metadata
        plan = self._plan(metadata)
        check_golden_features(plan, metadata.golden, self._spec)
        events = golden_events(metadata.golden, self._spec)
        probe = events[0] if events else made_up_row(self._spec)
        loaded = LoadedModel(version, metadata.digest, model, plan, probe, datetime.now(UTC))
        found = self._rows_of(probe, plan)
        loaded.check(found)
        loaded.measure(found)
        return loaded

    def _rows_of(self, probe: Row, plan: FeaturePlan) -> list[ViewRows]:
        """The rows of `probe` in the online store; missing ones while it is away.

        Readiness says that it is away. A version that is loaded can answer as soon as the store is back.
        """
        try:
            return OnlineReader(self._settings).look_up([probe], plan.views)
        except TransientError as error:
            log.warning("A version is loaded without the online store: %s", error.message)
            return [ViewRows.missing(view, 1) for view in plan.views]

    def _plan(self, metadata: ArtifactMetadata) -> FeaturePlan:
        """Older artifacts hold no feature definitions: for them, those of the feature repository on disk apply."""
        folder, spec = self._settings.feature_repo, self._spec
        definitions = metadata.features or Features(self._settings, spec).definitions
        code = request_code(folder, spec.source)
        plan = FeaturePlan(definitions, code.functions, spec, metadata.feature_names)
        return self._plans.setdefault((code.digest, plan.definitions.model_dump_json(), plan.names), plan)


def load_model(
    folder: Path, spec: ModelSpec, maximum_mib: int, signed: Mapping[str, str] | None = None
) -> MeasuredModel:
    """The artifact in `folder`, of at most `maximum_mib`, verified against its digest and its golden predictions.

    `signed`: see OnnxModel.load.

    Raises InputError or DataContractError: it must not serve.
    """
    model = MeasuredModel.load(folder, maximum_mib=maximum_mib, signed=signed)
    if model.metadata.model != spec.name:
        raise DataContractError(f"The artifact is of model {model.metadata.model!r}, not {spec.name!r}")
    model.metadata.check_kind(spec.task.kind)
    if (expected := list(model.task.output_names)) != model.metadata.outputs:
        problem = f"The artifact's outputs are {model.metadata.outputs}, and its task makes {expected}"
        raise DataContractError(problem, hint="Another version of this code wrote it. Train again.")
    model.check_golden()
    return model
