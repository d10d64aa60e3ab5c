"""Scores a batch of rows and turns the scores into predictions, log rows, rollout signals and metrics."""

import asyncio
import json
import logging
import math
import random
import time
from datetime import UTC, datetime

from serving.batch import Batch
from serving.explain import explain
from serving.loaded_model import LoadedModel
from serving.metrics import Metrics
from serving.prediction_log import PredictionLog
from serving.schema import BadRequest, Problem
from serving.scoring import Scorer
from serving.shadows import Shadowed, Shadows
from serving.signals import RolloutSignals
from serving.traffic import Route
from training.contract.errors import DataContractError
from training.contract.predictions import SCORE, SHADOW, LoggedRow, Prediction

#: The result for one row: its prediction, or why there is none.
RowOutcome = Prediction | BadRequest

#: Names of a binary model's outputs, as the prediction log wants them.
OUTPUT_NAMES = json.dumps([SCORE])

log = logging.getLogger("perennial")


class Answering:
    """`deadline`: seconds from the receipt of a request within which it must be scored."""

    def __init__(
        self, model: str, replica: str, deadline: float, log: PredictionLog, signals: RolloutSignals, metrics: Metrics
    ) -> None:
        self._model, self._replica, self._deadline = model, replica, deadline
        self._log, self._signals, self._metrics = log, signals, metrics
        self._scorer = Scorer()
        self._shadows = Shadows(signals, self._log_shadow, metrics.shadow_dropped.inc)
        #: (version, feature) pairs whose missing column has been logged.
        self._logged_as_lacking = set[tuple[int, str]]()
        self._ids = random.Random()  # An id must be unique, not secret.

    def start(self) -> None:
        self._shadows.start()

    def close(self) -> None:
        self._scorer.close()
        self._shadows.close()

    async def answer(self, route: Route, batch: Batch) -> list[RowOutcome]:
        """One outcome per row of `batch`."""
        try:
            scores = await self._scores(route, batch)
        except Exception as error:
            if len(batch.received) > 1 and not isinstance(error, TimeoutError):
                # Isolate failures: retry each request alone.
                alone = [self.answer(route, batch.of([i])) for i in range(len(batch.rows))]
                return [outcome for [outcome] in await asyncio.gather(*alone)]
            return await self._failed(route, batch, error)
        finite = [math.isfinite(score) for score in scores]
        if all(finite):
            return await self._answered(route, batch, scores)
        not_a_number = DataContractError("its score is not a number", hint="Roll back.")
        if len(batch.received) == 1:
            return await self._failed(route, batch, not_a_number)
        good, bad = ([i for i, is_finite in enumerate(finite) if is_finite is wanted] for wanted in (True, False))
        outcomes = dict(zip(bad, await self._failed(route, batch.of(bad), not_a_number), strict=True))
        if good:
            answered = await self._answered(route, batch.of(good), [scores[i] for i in good])
            outcomes.update(zip(good, answered, strict=True))
        return [outcomes[i] for i in range(len(finite))]

    async def _scores(self, route: Route, batch: Batch) -> list[float]:
        """Raises BadRequest (503) when the deadline has passed, and whatever the features and the model raise."""
        now = time.perf_counter()
        if now - min(batch.received) >= self._deadline:
            raise BadRequest(503, Problem(error="The request could not be answered in time"), retry_after=1)
        # The newest request sets the time limit of the model: older requests may have been sent slowly.
        seconds_left = self._deadline - (now - max(batch.received))
        values = batch.features(route.loaded.plan).values
        scores: list[float] = (await self._scorer.score(route.loaded, values, seconds_left)).tolist()
        return scores

    async def _failed(self, route: Route, batch: Batch, error: Exception) -> list[RowOutcome]:
        """Count the failure. The champion answers in place of a challenger."""
        if isinstance(error, BadRequest):
            return [error] * len(batch.rows)
        now, version = time.perf_counter(), route.loaded.version
        rows = len(batch.rows) // len(batch.received)
        for received in batch.received:
            self._signals.failed(version, route.role, now - received, rows)
        message = f"Version {version} could not score: {type(error).__name__}: {error}"
        log.error("%s", message)
        if route.role != "challenger" or route.shadow is None:
            return [BadRequest(503, Problem(error=message), retry_after=1)] * len(batch.rows)
        self._metrics.fallbacks.inc(len(batch.received))
        return await self.answer(Route(route.shadow, "champion"), batch)

    async def _answered(self, route: Route, batch: Batch, scores: list[float]) -> list[RowOutcome]:
        predictions = self._predictions(route, batch, scores)
        if batch.explain:
            for prediction, row in zip(predictions, batch.features(route.loaded.plan).values, strict=True):
                prediction["explanation"] = await self._scorer.run(explain, route.loaded.model, row)
        self._record(route, batch, predictions, scores)
        return list[RowOutcome](predictions)

    def _predictions(self, route: Route, batch: Batch, scores: list[float]) -> list[Prediction]:
        loaded, role = route.loaded, route.role
        rounded_threshold, threshold = loaded.model.threshold, loaded.model.metadata.threshold
        return [
            {
                "prediction_id": f"{self._ids.getrandbits(128):032x}",
                "score": score,
                "decision": "flag" if score >= rounded_threshold else "pass",
                "threshold": threshold,
                "model": self._model,
                "model_version": loaded.version,
                "role": role,
                "feature_timestamp": timestamp,
                "features_defaulted": timestamp is None,
            }
            for score, timestamp in zip(scores, batch.features(loaded.plan).timestamps, strict=True)
        ]

    def _record(self, route: Route, batch: Batch, predictions: list[Prediction], scores: list[float]) -> None:
        """Log and count the predictions, and pass the rows to the version that shadows this one."""
        loaded, role, features = route.loaded, route.role, batch.features(route.loaded.plan)
        now = time.perf_counter()
        seconds = [now - received for received in batch.received]
        flagged = [prediction["decision"] == "flag" for prediction in predictions]
        self._signals.answered(loaded.version, role, seconds, flagged)
        self._metrics.predicted(self._model, loaded.version, role, flagged, features.timestamps.count(None))
        if features.lacking:
            self._count_lacking(loaded, features.lacking)
        rows = self._log_rows(loaded, batch, predictions, seconds)
        self._log.append(rows)
        if route.shadow is not None:
            self._shadows.put(Shadowed(route.shadow, loaded, batch, scores, rows, len(seconds)))

    def _count_lacking(self, loaded: LoadedModel, lacking: frozenset[str]) -> None:
        """Count each column that the online store lacks every time, and log it once per version."""
        for name in sorted(lacking):
            self._metrics.lacking.labels(self._model, loaded.version, name).inc()
            if (loaded.version, name) not in self._logged_as_lacking:
                self._logged_as_lacking.add((loaded.version, name))
                message = (
                    "The online store has rows without %s, which version %d uses: it gets the default, and the answers "
                    "say features_defaulted"
                )
                log.warning(message, name, loaded.version)

    def _log_rows(
        self, loaded: LoadedModel, batch: Batch, predictions: list[Prediction], seconds: list[float]
    ) -> list[LoggedRow]:
        """`seconds`: one per row, or one for all of them."""
        now = datetime.now(UTC)
        latencies = seconds if len(seconds) == len(predictions) else seconds * len(predictions)
        return [
            {
                "prediction_id": prediction["prediction_id"],
                "predicted_at": now,
                "model_version": loaded.version,
                "role": prediction["role"],
                "decision": prediction["decision"],
                "features_defaulted": prediction["features_defaulted"],
                "feature_timestamp": prediction["feature_timestamp"],
                "latency_seconds": latency,
                "replica": self._replica,
                "output_names": OUTPUT_NAMES,
                "output_values": [prediction["score"]],
                "event": row,
                "feature_names": loaded.feature_names_json,
                "feature_values": features,
            }
            for row, prediction, features, latency in zip(
                batch.rows, predictions, batch.features(loaded.plan).values, latencies, strict=True
            )
        ]

    def _log_shadow(self, shadowed: Shadowed, scores: list[float], seconds: float) -> None:
        """Log the shadow's scores in rows of their own, with the prediction ids of the answers."""
        loaded, features = shadowed.loaded, shadowed.batch.features(shadowed.loaded.plan)
        rows: list[LoggedRow] = [
            {
                **row,
                "model_version": loaded.version,
                "role": SHADOW,
                "decision": "flag" if score >= loaded.model.threshold else "pass",
                "features_defaulted": timestamp is None,
                "feature_timestamp": timestamp,
                "latency_seconds": seconds,
                "output_values": [score],
                "feature_names": loaded.feature_names_json,
                "feature_values": values,
            }
            for row, score, values, timestamp in zip(
                shadowed.rows, scores, features.values, features.timestamps, strict=True
            )
        ]
        self._log.append(rows)
