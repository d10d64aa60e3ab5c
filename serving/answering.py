"""Scores a batch of rows and makes of it answers, rows of the prediction log, signals and metrics."""

import asyncio
import json
import logging
import math
import random
import time
from datetime import UTC, datetime
from typing import Any

from serving.batch import Batch
from serving.explain import explain as explained
from serving.loaded_model import LoadedModel
from serving.metrics import Metrics
from serving.prediction_log import PredictionLog
from serving.schema import BadRequest, Problem
from serving.scoring import Scorer
from serving.shadows import Shadowed, Shadows
from serving.signals import RolloutSignals
from serving.traffic import Route
from training.contract.errors import DataContractError
from training.contract.predictions import SCORE, SHADOW, LoggedRow

#: Of a row: its prediction, with the fields of schema.Prediction, or why there is none.
RowOutcome = dict[str, Any] | BadRequest

#: Those of a binary model.
OUTPUT_NAMES = json.dumps([SCORE])

log = logging.getLogger("perennial")


class Answering:
    def __init__(
        self, model: str, replica: str, deadline: float, log: PredictionLog, signals: RolloutSignals, metrics: Metrics
    ) -> None:
        self._model, self._replica, self._deadline = model, replica, deadline
        self._log, self._signals, self._metrics = log, signals, metrics
        self._scorer = Scorer()
        self._shadows = Shadows(signals, self._log_shadow, metrics.shadow_dropped.inc)
        self._said_lacking = set[tuple[int, str]]()
        self._ids = random.Random()  # seeded by the system; an id has to be new, not secret

    def start(self) -> None:
        self._shadows.start()

    def close(self) -> None:
        self._scorer.close()
        self._shadows.close()

    async def answer(self, route: Route, batch: Batch) -> list[RowOutcome]:
        """What is found for each row."""
        try:
            now = time.perf_counter()
            if now - min(batch.received) >= self._deadline:
                raise BadRequest(503, Problem(error="The request could not be answered in time"), retry_after=1)
            # The youngest decides how long the model may take: the others' callers sent theirs slowly.
            left = self._deadline - (now - max(batch.received))
            values = batch.features(route.loaded.plan).values
            scores = (await self._scorer.score(route.loaded, values, left)).tolist()
        except Exception as error:
            if len(batch.received) > 1 and not isinstance(error, TimeoutError):  # one's trouble is not the others'
                alone = [self.answer(route, batch.of([i])) for i in range(len(batch.rows))]
                return [found for [found] in await asyncio.gather(*alone)]
            return await self._failed(route, batch, error)
        numbers = [math.isfinite(score) for score in scores]
        if all(numbers):
            return await self._answered(route, batch, scores)
        no_number = DataContractError("its score is not a number", hint="Roll back.")
        if len(batch.received) == 1:
            return await self._failed(route, batch, no_number)
        good, bad = ([i for i, number in enumerate(numbers) if number is wanted] for wanted in (True, False))
        found = dict(zip(bad, await self._failed(route, batch.of(bad), no_number), strict=True))
        if good:
            answered = await self._answered(route, batch.of(good), [scores[i] for i in good])
            found.update(zip(good, answered, strict=True))
        return [found[i] for i in range(len(numbers))]

    async def _failed(self, route: Route, batch: Batch, error: Exception) -> list[RowOutcome]:
        """Where a challenger fails, the champion answers."""
        if isinstance(error, BadRequest):
            return [error] * len(batch.rows)
        now, version = time.perf_counter(), route.loaded.version
        rows = len(batch.rows) // len(batch.received)
        for received in batch.received:
            self._signals.failed(version, route.role, now - received, rows)
        why = f"Version {version} could not score: {type(error).__name__}: {error}"
        log.error("%s", why)
        if route.role != "challenger" or route.shadow is None:
            return [BadRequest(503, Problem(error=why), retry_after=1)] * len(batch.rows)
        self._metrics.fallbacks.inc(len(batch.received))
        return await self.answer(Route(route.shadow, "champion"), batch)

    async def _answered(self, route: Route, batch: Batch, scores: list[float]) -> list[RowOutcome]:
        predictions = self._predictions(route, batch, scores)
        if batch.explain:
            for prediction, row in zip(predictions, batch.features(route.loaded.plan).values, strict=True):
                prediction["explanation"] = await self._scorer.run(explained, route.loaded.model, row)
        self._note(route, batch, predictions, scores)
        return list[RowOutcome](predictions)

    def _predictions(self, route: Route, batch: Batch, scores: list[float]) -> list[dict[str, Any]]:
        loaded, role = route.loaded, route.role
        decided, threshold = loaded.model.threshold, loaded.model.metadata.threshold
        return [
            {
                "prediction_id": f"{self._ids.getrandbits(128):032x}",
                "score": score,
                "decision": "flag" if score >= decided else "pass",
                "threshold": threshold,
                "model": self._model,
                "model_version": loaded.version,
                "role": role,
                "feature_timestamp": stamp,
                "features_defaulted": stamp is None,
            }
            for score, stamp in zip(scores, batch.features(loaded.plan).timestamps, strict=True)
        ]

    def _note(self, route: Route, batch: Batch, predictions: list[dict[str, Any]], scores: list[float]) -> None:
        """Log, count, and hand on to who scores along."""
        loaded, role, features = route.loaded, route.role, batch.features(route.loaded.plan)
        now = time.perf_counter()
        seconds = [now - received for received in batch.received]
        flagged = [prediction["decision"] == "flag" for prediction in predictions]
        self._signals.answered(loaded.version, role, seconds, flagged)
        self._metrics.predicted(self._model, loaded.version, role, flagged, features.timestamps.count(None))
        if features.lacking:
            self._note_lacking(loaded, features.lacking)
        rows = self._logged(loaded, batch, predictions, seconds)
        self._log.append(rows)
        if route.shadow is not None:
            self._shadows.put(Shadowed(route.shadow, loaded, batch, scores, rows, len(seconds)))

    def _note_lacking(self, loaded: LoadedModel, lacking: frozenset[str]) -> None:
        """Log each column once, count every time."""
        for name in sorted(lacking):
            self._metrics.lacking.labels(self._model, loaded.version, name).inc()
            if (loaded.version, name) not in self._said_lacking:
                self._said_lacking.add((loaded.version, name))
                text = (
                    "The online store has rows without %s, which version %d takes: answered with its default, flagged"
                )
                log.warning(text, name, loaded.version)

    def _logged(
        self, loaded: LoadedModel, batch: Batch, predictions: list[dict[str, Any]], seconds: list[float]
    ) -> list[LoggedRow]:
        now = datetime.now(UTC)
        each = seconds if len(seconds) == len(predictions) else seconds * len(predictions)
        return [
            {
                "prediction_id": prediction["prediction_id"],
                "predicted_at": now,
                "model_version": loaded.version,
                "role": prediction["role"],
                "decision": prediction["decision"],
                "features_defaulted": prediction["features_defaulted"],
                "feature_timestamp": prediction["feature_timestamp"],
                "latency_seconds": took,
                "replica": self._replica,
                "output_names": OUTPUT_NAMES,
                "output_values": [prediction["score"]],
                "event": row,
                "feature_names": loaded.names_as_json,
                "feature_values": features,
            }
            for row, prediction, features, took in zip(
                batch.rows, predictions, batch.features(loaded.plan).values, each, strict=True
            )
        ]

    def _log_shadow(self, shadowed: Shadowed, scores: list[float], seconds: float) -> None:
        """A row of its own beside the answered one, under the same prediction_id."""
        loaded, features = shadowed.loaded, shadowed.batch.features(shadowed.loaded.plan)
        rows: list[LoggedRow] = [
            {
                **row,
                "model_version": loaded.version,
                "role": SHADOW,
                "decision": "flag" if score >= loaded.model.threshold else "pass",
                "features_defaulted": stamp is None,
                "feature_timestamp": stamp,
                "latency_seconds": seconds,
                "output_values": [score],
                "feature_names": loaded.names_as_json,
                "feature_values": values,
            }
            for row, score, values, stamp in zip(
                shadowed.rows, scores, features.values, features.timestamps, strict=True
            )
        ]
        self._log.append(rows)
