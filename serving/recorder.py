"""Logs and counts predictions, and passes their rows to the shadow, after their responses have been sent."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from serving.batch import Batch
from serving.loaded_model import LoadedModel
from serving.metrics import ModelMetrics
from serving.prediction_log import PredictionLog
from serving.schema import Row
from serving.shadows import Shadowed, Shadows
from serving.signals import RolloutSignals
from serving.traffic import Route
from training.contract.predictions import SHADOW, LoggedRows, Prediction

#: Seconds between an answer and its record. Answers are recorded together: this takes less time for each of them, and
#: callers seldom wait for it.
RECORD_SECONDS = 0.01
#: A line of the log has no more rows than this, unless one request has.
LINE_ROWS = 256

log = logging.getLogger("perennial")


@dataclass(slots=True)
class Answered:
    """The predictions for the rows of a batch, with their scores."""

    route: Route
    batch: Batch
    predictions: list[Prediction]
    scores: np.ndarray
    #: From the receipt of each request to its answer: one per row of `batch`, or one for all of them.
    seconds: list[float]
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def latencies(self) -> list[float]:
        """For each row the seconds of its request."""
        one_each = len(self.seconds) == len(self.predictions)
        return self.seconds if one_each else self.seconds * len(self.predictions)


class RecordTimer:
    """Calls the recorders of all models together: a timer for each would wake the event loop far more often."""

    def __init__(self) -> None:
        self._due: list[Callable[[], None]] = []

    def call_soon(self, record: Callable[[], None]) -> None:
        """Call `record`, which raises nothing, in the event loop in RECORD_SECONDS at the latest."""
        if not self._due:
            asyncio.get_running_loop().call_later(RECORD_SECONDS, self._call)
        self._due.append(record)

    def _call(self) -> None:
        due, self._due = self._due, []
        for record in due:
            record()


class Recorder:
    """Records what is put in, in the event loop, RECORD_SECONDS later: then the responses have been sent.

    Callers do not wait for it. Every prediction that is put in is recorded, also when its caller has gone away.
    """

    def __init__(
        self, replica: str, log: PredictionLog, signals: RolloutSignals, metrics: ModelMetrics, timer: RecordTimer
    ) -> None:
        self._replica, self._timer = replica, timer
        self._log, self._signals, self._metrics = log, signals, metrics
        self._shadows = Shadows(signals, self._log_shadow, metrics.shadow_dropped.inc)
        self._waiting = list[Answered]()
        #: (version, feature) pairs whose missing column has been logged.
        self._logged_as_lacking = set[tuple[int, str]]()

    def close(self) -> None:
        """Record what waits, and score what waits for the shadow."""
        self._record_all()
        self._shadows.close()

    @property
    def busy(self) -> bool:
        """Whether answers wait to be recorded, or rows for the shadow."""
        return bool(self._waiting) or self._shadows.busy

    def put(self, answered: Answered) -> None:
        if not self._waiting:
            self._timer.call_soon(self._record_all)
        self._waiting.append(answered)

    def _record_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for answered in waiting:
            try:
                self._count(answered)
            except Exception:
                log.exception("%d predictions could not be counted", len(answered.predictions))
        for together in _by_route(waiting):
            self._log_together(together)

    def _count(self, answered: Answered) -> None:
        route, batch, seconds = answered.route, answered.batch, answered.seconds
        loaded, features = route.loaded, batch.features(route.loaded.plan)
        decisions = _counted([prediction.get("decision", "") for prediction in answered.predictions])
        received, defaulted = time.perf_counter() - min(batch.received), features.timestamps.count(None)
        self._signals.answered(loaded.version, route.role, seconds, decisions, received)
        self._metrics.predicted(loaded.version, route.role, decisions, defaulted, loaded.task, answered.scores)
        if features.lacking:
            self._count_lacking(loaded, features.lacking)

    def _log_together(self, together: list[Answered]) -> None:
        """Log answers of one route, and pass them to the shadow. If that fails, do so with each alone."""
        try:
            self._log.append(self._log_rows(together))
        except Exception:
            if len(together) > 1:
                for answered in together:
                    self._log_together([answered])
                return
            rows = len(together[0].predictions)
            log.exception("%d predictions could not be recorded", rows)
            self._metrics.dropped.inc(rows)
            return
        for answered in together:
            if (shadow := answered.route.shadow) is not None:
                batch, ids = answered.batch, [prediction["prediction_id"] for prediction in answered.predictions]
                requests, answering = len(answered.seconds), answered.route.loaded
                self._shadows.put(Shadowed(shadow, answering, batch, answered.scores, ids, answered.at, requests))

    def _count_lacking(self, loaded: LoadedModel, lacking: frozenset[str]) -> None:
        """Count each column that the online store lacks every time, and log it once per version."""
        for name in sorted(lacking):
            self._metrics.lacks(loaded.version, name)
            if (loaded.version, name) not in self._logged_as_lacking:
                self._logged_as_lacking.add((loaded.version, name))
                message = (
                    "The online store has rows without %s, which version %d uses: it gets the default, and the answers "
                    "say features_defaulted"
                )
                log.warning(message, name, loaded.version)

    def _log_rows(self, together: list[Answered]) -> LoggedRows:
        """The log's rows of answers of one route."""
        loaded = together[0].route.loaded
        predictions = [prediction for answered in together for prediction in answered.predictions]
        return {
            "model_version": loaded.version,
            "model_digest": loaded.digest,
            "role": together[0].route.role,
            "replica": self._replica,
            "output_names": loaded.output_names_json,
            "feature_names": loaded.feature_names_json,
            "prediction_id": [prediction["prediction_id"] for prediction in predictions],
            "predicted_at": [answered.at for answered in together for _ in answered.predictions],
            "decision": [prediction.get("decision", "") for prediction in predictions],
            "features_defaulted": [prediction["features_defaulted"] for prediction in predictions],
            "feature_timestamp": [prediction["feature_timestamp"] for prediction in predictions],
            "latency_seconds": [seconds for answered in together for seconds in answered.latencies],
            "event": _columns([row for answered in together for row in answered.batch.rows]),
            "output_values": loaded.task.outputs(np.concatenate([each.scores for each in together])).ravel(),
            "feature_values": np.concatenate([each.batch.features(loaded.plan).values for each in together]).ravel(),
        }

    def _log_shadow(self, shadowed: Shadowed, scores: np.ndarray, seconds: float) -> None:
        """Log the shadow's scores in rows of their own, with the prediction ids of the answers."""
        loaded, features = shadowed.loaded, shadowed.batch.features(shadowed.loaded.plan)
        rows: LoggedRows = {
            "model_version": loaded.version,
            "model_digest": loaded.digest,
            "role": SHADOW,
            "replica": self._replica,
            "output_names": loaded.output_names_json,
            "feature_names": loaded.feature_names_json,
            "prediction_id": shadowed.prediction_ids,
            "predicted_at": [shadowed.at] * len(scores),
            "decision": loaded.task.decided(scores),
            "features_defaulted": [timestamp is None for timestamp in features.timestamps],
            "feature_timestamp": features.timestamps,
            "latency_seconds": [seconds] * len(scores),
            "event": _columns(shadowed.batch.rows),
            "output_values": loaded.task.outputs(scores).ravel(),
            "feature_values": features.values.ravel(),
        }
        self._log.append(rows)


def _columns(rows: list[Row]) -> dict[str, Sequence[Any]]:
    """Events as columns. Raises ValueError when they do not all have the same: the spec has changed between them."""
    names = [*rows[0]]
    if any([*row] != names for row in rows):
        raise ValueError("the events have different columns")
    return dict(zip(names, zip(*(row.values() for row in rows), strict=True), strict=True))


def _by_route(waiting: list[Answered]) -> list[list[Answered]]:
    """Answers of one route together, in their order, for lines of at most LINE_ROWS rows."""
    found: list[list[Answered]] = []
    newest: dict[Route, tuple[list[Answered], int]] = {}
    for answered in waiting:
        together, rows = newest.get(answered.route, ([], 0))
        if not together or rows + len(answered.predictions) > LINE_ROWS:
            together, rows = [], 0
            found.append(together)
        together.append(answered)
        newest[answered.route] = together, rows + len(answered.predictions)
    return found


def _counted(decisions: list[str]) -> Mapping[str, int]:
    """How often each decision was made."""
    return {decisions[0]: 1} if len(decisions) == 1 else Counter(decisions)
