"""Scores a batch of rows and turns the scores into predictions. The recorder logs and counts them."""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from serving.batch import Batch
from serving.loaded_model import FEW_ROWS, LoadedModel
from serving.metrics import ModelMetrics
from serving.prediction_log import PredictionLog
from serving.recorder import Answered, Recorder, RecordTimer
from serving.schema import BadRequest, Problem
from serving.scoring import Scorer, finite_rows
from serving.signals import RolloutSignals
from serving.traffic import Route
from training.adapters.features import OnlineFeatures
from training.contract.errors import DataContractError, InputError
from training.contract.predictions import Explanation, Prediction
from training.domain.explanation import explain

#: The result for one row: its prediction, or why there is none.
RowOutcome = Prediction | BadRequest

log = logging.getLogger("perennial")


class Answering:
    """`deadline`: seconds from the receipt of a request within which it must be scored."""

    def __init__(
        self,
        model: str,
        replica: str,
        deadline: float,
        log: PredictionLog,
        signals: RolloutSignals,
        metrics: ModelMetrics,
        timer: RecordTimer,
    ) -> None:
        self._model, self._deadline = model, deadline
        self._signals, self._metrics = signals, metrics
        self._scorer = Scorer()
        self._recorder = Recorder(replica, log, signals, metrics, timer)
        self._ids = random.Random()  # An id must be unique, not secret.
        #: The version of the last answer with features from the online store, and its time (time.monotonic).
        self._last_answer = (0, float("-inf"))

    def answered_lately(self, version: int, seconds: float) -> bool:
        """Whether `version` was the last to answer, no more than `seconds` ago, with features from the online store."""
        last, at = self._last_answer
        return last == version and time.monotonic() - at <= seconds

    def close(self) -> None:
        self._scorer.close()
        self._recorder.close()

    @property
    def busy(self) -> bool:
        """Whether answers wait to be recorded, or rows for the shadow."""
        return self._recorder.busy

    async def answer(self, route: Route, batch: Batch) -> list[RowOutcome]:
        """One outcome per row of `batch`. Its predictions are recorded."""
        answered: list[Answered] = []
        outcomes = await self._answer(route, batch, answered)
        for each in answered:
            self._recorder.put(each)
        return outcomes

    async def answer_together(self, parts: Sequence[tuple[Route, Batch]]) -> list[list[RowOutcome]]:
        """One outcome per row of each part of one request, whose rows several routes answer.

        Its caller gets all predictions or none. So they are recorded only when no row is refused: the caller will ask
        again, and the log would have rows twice.
        """
        answered: list[Answered] = []
        outcomes = [await self._answer(route, batch, answered) for route, batch in parts]
        if not any(isinstance(outcome, BadRequest) for part in outcomes for outcome in part):
            for each in answered:
                self._recorder.put(each)
        return outcomes

    async def _answer(self, route: Route, batch: Batch, answered: list[Answered]) -> list[RowOutcome]:
        """As `answer`, but adds to `answered` what is to be recorded."""
        try:
            scores = await self._scores(route, batch)
        except Exception as error:
            if len(batch.received) > 1 and not isinstance(error, TimeoutError):
                # Isolate failures: retry each request alone.
                alone = [self._answer(route, batch.of([i]), answered) for i in range(len(batch.rows))]
                return [outcome for [outcome] in await asyncio.gather(*alone)]
            return await self._failed(route, batch, error, answered)
        finite = finite_rows(scores)
        if all(finite):
            return await self._answered(route, batch, scores, answered)
        not_a_number = DataContractError("its score is not a number", hint="Roll back.")
        if len(batch.received) == 1:
            return await self._failed(route, batch, not_a_number, answered)
        good, bad = ([i for i, is_finite in enumerate(finite) if is_finite is wanted] for wanted in (True, False))
        outcomes = dict(zip(bad, await self._failed(route, batch.of(bad), not_a_number, answered), strict=True))
        if good:
            predicted = await self._answered(route, batch.of(good), scores[good], answered)
            outcomes.update(zip(good, predicted, strict=True))
        return [outcomes[i] for i in range(len(finite))]

    async def _scores(self, route: Route, batch: Batch) -> np.ndarray:
        """Raises BadRequest (503) when the deadline has passed, and whatever the features and the model raise."""
        now = time.perf_counter()
        if now - min(batch.received) >= self._deadline:
            raise BadRequest(503, Problem(error="The request could not be answered in time"), retry_after=1)
        # The newest request sets the time limit of the model: older requests may have been sent slowly.
        seconds_left = self._deadline - (now - max(batch.received))
        loaded = route.loaded
        if loaded.model.feature_speed.slow:
            features = await asyncio.wait_for(self._scorer.run(_features, loaded, batch), seconds_left)
        else:
            features = _features(loaded, batch)
        return await self._scorer.score(loaded, features.values, seconds_left)

    async def _failed(self, route: Route, batch: Batch, error: Exception, answered: list[Answered]) -> list[RowOutcome]:
        """Count the failure. The champion answers in place of a challenger."""
        if isinstance(error, BadRequest):
            return [error] * len(batch.rows)
        if isinstance(error, InputError) and (fields := _beyond_float32(batch, route.loaded)):
            # The caller's mistake: it must not count against a version, nor end a rollout.
            text = "; ".join(f"{name}: {message}" for name, message in fields.items())
            return [BadRequest(422, Problem(error=text, fields=fields))] * len(batch.rows)
        now, version = time.perf_counter(), route.loaded.version
        rows = len(batch.rows) // len(batch.received)
        for received in batch.received:
            self._signals.failed(version, route.role, now - received, rows)
        message = f"Version {version} could not score: {type(error).__name__}: {error}"
        log.error("%s", message)
        if route.role != "challenger" or route.shadow is None:
            return [BadRequest(503, Problem(error=message), retry_after=1)] * len(batch.rows)
        self._metrics.fallbacks.inc(len(batch.received))
        return await self._answer(Route(route.shadow, "champion"), batch, answered)

    async def _answered(
        self, route: Route, batch: Batch, scores: np.ndarray, answered: list[Answered]
    ) -> list[RowOutcome]:
        features = batch.features(route.loaded.plan)
        predictions = self._predictions(route, features.timestamps, scores)
        if batch.explain:
            try:
                for prediction, row in zip(predictions, features.values, strict=True):
                    prediction["explanation"] = await self._explanation(route, batch, row)
            except TimeoutError:
                problem = Problem(error="The explanation could not be made in time")
                return [BadRequest(503, problem, retry_after=1)] * len(batch.rows)
        now = time.perf_counter()
        if None not in features.timestamps:
            self._last_answer = (route.loaded.version, time.monotonic())
        seconds = [now - received for received in batch.received]
        answered.append(Answered(route, batch, predictions, scores, seconds))
        return list[RowOutcome](predictions)

    async def _explanation(self, route: Route, batch: Batch, features: np.ndarray) -> Explanation:
        """Raises TimeoutError when the deadline passes. Its scores are not counted: they are not predictions."""
        model = route.loaded.model
        seconds_left = self._deadline - (time.perf_counter() - max(batch.received))
        return await asyncio.wait_for(
            self._scorer.run(explain, model.try_out, model.task, model.metadata, features), seconds_left
        )

    def _predictions(self, route: Route, timestamps: list[datetime | None], scores: np.ndarray) -> list[Prediction]:
        loaded, role = route.loaded, route.role
        return [
            {
                "prediction_id": f"{self._ids.getrandbits(128):032x}",
                **fields,  # type: ignore[typeddict-item]
                "model": self._model,
                "model_version": loaded.version,
                "role": role,
                "feature_timestamp": timestamp,
                "features_defaulted": timestamp is None,
            }
            for fields, timestamp in zip(loaded.task.answers(scores), timestamps, strict=True)
        ]


def _beyond_float32(batch: Batch, loaded: LoadedModel) -> dict[str, str]:
    """Event columns whose number is too large for a feature, a float32: column → what is wrong."""
    largest, found = float(np.finfo(np.float32).max), dict[str, str]()
    for row in batch.rows:
        for name in loaded.plan.event_columns:
            values = row[name] if isinstance(row[name], list) else [row[name]]
            if any(isinstance(value, float) and abs(value) > largest for value in values):
                found[name] = f"must lie between {-largest:.8g} and {largest:.8g}, the range of a feature"
    return found


def _features(loaded: LoadedModel, batch: Batch) -> OnlineFeatures:
    """The features of `loaded` for `batch`. The time that they take decides whether the next are made in a thread."""
    if batch.has_features(loaded.plan):
        return batch.features(loaded.plan)
    began = time.perf_counter()
    features = batch.features(loaded.plan)
    if len(batch.rows) <= FEW_ROWS:
        loaded.model.feature_speed.judge(time.perf_counter() - began)
    return features
