"""What a worker does for its requests: take the champion, look up features, score, answer, log."""

import json
import logging
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from serving.metrics import Metrics
from serving.prediction_log import PredictionLog
from serving.replica import hold, replica_name
from serving.schema import BadRequest, Prediction, Problem, Row
from serving.signals import RolloutSignals
from serving.slots import Scored, Slot
from serving.traffic import Route
from serving.watcher import Watcher
from training.adapters.lake import Lake
from training.adapters.registry import CHAMPION
from training.contract.model_spec import ModelSpec
from training.settings import Settings

log = logging.getLogger("perennial")


class Predictor:
    """Holds the replica's folder from construction to `stop`."""

    def __init__(self, settings: Settings, spec: ModelSpec, metrics: Metrics | None = None) -> None:
        state = Path(settings.serving)
        self._lock = hold(state)
        self._spec = spec
        self._metrics = metrics or Metrics()
        self.replica = replica_name(state)
        self.watcher = Watcher(settings, spec, self._metrics, RolloutSignals(spec, self.replica))
        lake = Lake(settings.lake, spec.name)
        self._log = PredictionLog(state / "predictions" / spec.name, lake, spec, self.replica, self._metrics)
        #: One thread: Feast's SQLite connection has one user, and the event loop stays free for probes.
        self.scorer = ThreadPoolExecutor(1, thread_name_prefix="scorer")

    def start(self) -> None:
        self._log.start()
        self.watcher.start()

    def stop(self) -> None:
        """Finish what was taken, write the log down, ship what can be shipped."""
        self.watcher.stop()
        self.scorer.shutdown(wait=True)
        self._log.close()

    def why_not_ready(self) -> str | None:
        """None when a champion answers and what it answers is logged."""
        return self._no_champion() or self._log.problem()

    def _no_champion(self) -> str | None:
        return None if CHAMPION in self.watcher.slots else self.watcher.problem or "No champion is loaded"

    def predict(self, rows: list[Row]) -> list[Prediction]:
        """Score `rows` as the traffic of this moment asks. Raises BadRequest (503) when that is not possible now."""
        traffic, sticky_by = self.watcher.traffic, self._spec.rollout.sticky_by
        parts: dict[tuple[int, int], tuple[Route, list[int]]] = {}
        for i, row in enumerate(rows):
            route = traffic.route(str(row[sticky_by]))
            if route is None:
                raise _unavailable(f"No champion serves yet: {self._no_champion()}")
            parts.setdefault((id(route.slot), id(route.shadow)), (route, []))[1].append(i)
        answers: dict[int, Prediction] = {}
        for route, places in parts.values():
            answers |= zip(places, self._answer(route, [rows[i] for i in places]), strict=True)
        predictions = [answers[i] for i in range(len(rows))]
        for prediction in predictions:
            labels = (self._spec.name, prediction.model_version, prediction.decision)
            self._metrics.predictions.labels(*labels).inc()
        if defaulted := sum(prediction.features_defaulted for prediction in predictions):
            self._metrics.defaulted.labels(self._spec.name).inc(defaulted)
        return predictions

    def _answer(self, route: Route, rows: list[Row]) -> list[Prediction]:
        """What the route's slot says; when a challenger cannot, the champion beside it answers."""
        slot, signals, begun = route.slot, self.watcher.signals, time.perf_counter()
        try:
            scored = slot.score(rows)
        except Exception as error:
            log.exception("Version %d could not score %d rows", slot.version, len(rows))
            signals.failed(slot.version, route.role, time.perf_counter() - begun)
            if route.role == "challenger" and route.shadow is not None:
                return self._answer(Route(route.shadow, "champion"), rows)
            raise _unavailable(f"Version {slot.version} could not score: {type(error).__name__}: {error}") from error
        predictions = [self._prediction(slot, scored, i) for i in range(len(rows))]
        self._log.append(self._log_rows(rows, predictions, slot, scored))
        flagged = scored.scores >= slot.model.metadata.threshold
        signals.answered(slot.version, route.role, time.perf_counter() - begun, scored.scores, flagged)
        if route.shadow is not None:
            self.scorer.submit(self._compare, slot.version, route.shadow, rows, scored.scores)
        return predictions

    def _compare(self, answering: int, shadow: Slot, rows: list[Row], scores: np.ndarray) -> None:
        try:
            beside = shadow.score(rows).scores
        except Exception:
            beside = None
        self.watcher.signals.compared(answering, shadow.version, scores, beside)

    def _prediction(self, slot: Slot, scored: Scored, i: int) -> Prediction:
        score, threshold = float(scored.scores[i]), slot.model.metadata.threshold
        return Prediction(
            prediction_id=uuid.uuid4().hex,
            score=score,
            decision="flag" if score >= threshold else "pass",
            threshold=threshold,
            model=self._spec.name,
            model_version=slot.version,
            feature_timestamp=scored.timestamps[i],
            features_defaulted=scored.timestamps[i] is None,
        )

    def _log_rows(
        self, rows: list[Row], predictions: list[Prediction], slot: Slot, scored: Scored
    ) -> list[dict[str, Any]]:
        names, now = slot.model.metadata.feature_names, datetime.now(UTC)
        day_of = self._spec.feeds["events"].time_column
        return [
            {
                **row,
                "prediction_id": prediction.prediction_id,
                "predicted_at": now,
                "score": prediction.score,
                "flagged": prediction.decision == "flag",
                "model_version": slot.version,
                "features": json.dumps(dict(zip(names, values.tolist(), strict=True))),
                "replica": self.replica,
                "day": row[day_of].date(),
            }
            for row, prediction, values in zip(rows, predictions, scored.features, strict=True)
        ]

    def models(self) -> dict[str, Any]:
        """What each slot serves and since when, what was refused and why, what stands in the way: `GET /models`."""
        watcher = self.watcher
        slots = {
            alias: {"version": slot.version, "digest": slot.digest, "since": slot.since.isoformat()}
            for alias, slot in watcher.slots.items()
        }
        traffic = watcher.traffic.state.model_dump()
        refused = {
            str(version): {"reason": refusal.reason, "at": refusal.at.isoformat()}
            for version, refusal in watcher.refused.items()
        }
        head = {"model": self._spec.name, "replica": self.replica}
        return {**head, "slots": slots, "traffic": traffic, "refused": refused, "problem": watcher.problem}


def _unavailable(why: str) -> BadRequest:
    return BadRequest(503, Problem(error=why))
