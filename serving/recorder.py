"""Logs and counts predictions, and passes their rows to the shadow, after their responses have been sent."""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from serving.batch import Batch
from serving.loaded_model import LoadedModel
from serving.metrics import ModelMetrics
from serving.prediction_log import PredictionLog
from serving.shadows import Shadowed, Shadows
from serving.signals import RolloutSignals
from serving.traffic import Route
from training.contract.predictions import SHADOW, LoggedRow, Prediction

#: Seconds between an answer and its record. Answers are recorded together: this takes less time for each of them, and
#: callers seldom wait for it.
RECORD_SECONDS = 0.01

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
        self._waiting = deque[Answered]()
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
        while self._waiting:
            answered = self._waiting.popleft()
            try:
                self._record(answered)
            except Exception:
                log.exception("%d predictions could not be recorded", len(answered.predictions))
                self._metrics.dropped.inc(len(answered.predictions))

    def _record(self, answered: Answered) -> None:
        route, batch, seconds = answered.route, answered.batch, answered.seconds
        loaded, features = route.loaded, batch.features(route.loaded.plan)
        decisions = _counted([prediction.get("decision", "") for prediction in answered.predictions])
        received, defaulted = time.perf_counter() - min(batch.received), features.timestamps.count(None)
        self._signals.answered(loaded.version, route.role, seconds, decisions, received)
        self._metrics.predicted(loaded.version, route.role, decisions, defaulted, loaded.task, answered.scores)
        if features.lacking:
            self._count_lacking(loaded, features.lacking)
        rows = self._log_rows(answered)
        self._log.append(rows)
        if route.shadow is not None:
            self._shadows.put(Shadowed(route.shadow, loaded, batch, answered.scores, rows, len(seconds)))

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

    def _log_rows(self, answered: Answered) -> list[LoggedRow]:
        loaded, batch, predictions = answered.route.loaded, answered.batch, answered.predictions
        seconds = answered.seconds
        latencies = seconds if len(seconds) == len(predictions) else seconds * len(predictions)
        return [
            {
                "prediction_id": prediction["prediction_id"],
                "predicted_at": answered.at,
                "model_version": loaded.version,
                "model_digest": loaded.digest,
                "role": prediction["role"],
                "decision": prediction.get("decision", ""),
                "features_defaulted": prediction["features_defaulted"],
                "feature_timestamp": prediction["feature_timestamp"],
                "latency_seconds": latency,
                "replica": self._replica,
                "output_names": loaded.output_names_json,
                "output_values": outputs,
                "event": row,
                "feature_names": loaded.feature_names_json,
                "feature_values": features,
            }
            for row, prediction, outputs, features, latency in zip(
                batch.rows,
                predictions,
                loaded.task.logged(answered.scores),
                batch.features(loaded.plan).values,
                latencies,
                strict=True,
            )
        ]

    def _log_shadow(self, shadowed: Shadowed, scores: np.ndarray, seconds: float) -> None:
        """Log the shadow's scores in rows of their own, with the prediction ids of the answers."""
        loaded, features = shadowed.loaded, shadowed.batch.features(shadowed.loaded.plan)
        rows: list[LoggedRow] = [
            {
                **row,
                "model_version": loaded.version,
                "model_digest": loaded.digest,
                "role": SHADOW,
                "decision": decision,
                "features_defaulted": timestamp is None,
                "feature_timestamp": timestamp,
                "latency_seconds": seconds,
                "output_names": loaded.output_names_json,
                "output_values": outputs,
                "feature_names": loaded.feature_names_json,
                "feature_values": values,
            }
            for row, decision, outputs, values, timestamp in zip(
                shadowed.rows,
                loaded.task.decided(scores),
                loaded.task.logged(scores),
                features.values,
                features.timestamps,
                strict=True,
            )
        ]
        self._log.append(rows)


def _counted(decisions: list[str]) -> Mapping[str, int]:
    """How often each decision was made."""
    return {decisions[0]: 1} if len(decisions) == 1 else Counter(decisions)
