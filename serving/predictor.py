"""What a worker does for its requests: route, look up features, score, answer, log; and score along for rollouts."""

import logging
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from serving.explain import explain as explained
from serving.limits import Limits
from serving.lookup import Lookup
from serving.metrics import Metrics
from serving.prediction_log import LoggedFeatures, PredictionLog
from serving.replica import hold, replica_name
from serving.schema import BadRequest, Problem, Row
from serving.scoring import Scorer
from serving.shadows import Shadowed, Shadows
from serving.signals import RolloutSignals
from serving.slots import Slot
from serving.traffic import Route, Traffic
from serving.watcher import Watcher
from training.adapters.features import OnlineFeatures
from training.adapters.lake import Lake
from training.contract.model_spec import ModelSpec
from training.settings import Settings

#: The slot of a row that was scored along, in the prediction log.
SHADOW = "shadow"

log = logging.getLogger("perennial")


@dataclass(frozen=True)
class Asked:
    """A request: its rows, when it came (time.perf_counter), and what it wishes for."""

    rows: list[Row]
    received: float
    pinned: str | None = None
    explain: bool = False


class Predictor:
    """Holds the replica's folder from construction to `stop`; belongs to the event loop in which it is started."""

    def __init__(self, settings: Settings, spec: ModelSpec, metrics: Metrics | None = None) -> None:
        state = Path(settings.serving)
        self._lock = hold(state)
        self._settings, self._spec = settings, spec
        self.metrics = metrics or Metrics()
        self.replica = replica_name(state)
        self.signals = RolloutSignals(spec, self.replica)
        self.watcher = Watcher(settings, spec, self.metrics, self.signals)
        self.limits = Limits(settings.serving_maximum_in_flight, settings.serving_maximum_lag_seconds)
        self._lookup = Lookup(settings, spec, self.metrics)
        lake = Lake(settings.lake, spec.name)
        self._log = PredictionLog(state / "predictions" / spec.name, lake, spec, self.replica, self.metrics)
        self._scorer = Scorer()
        self._ids = random.Random()  # seeded by the system; an id has to be new, not secret
        self._shadows = Shadows(self.signals, self._log_shadow, self.metrics.shadow_dropped.inc)
        self._day_of = spec.feeds["events"].time_column

    def start(self) -> None:
        self._log.start()
        self.watcher.start()
        self._shadows.start()
        self.limits.open()
        self._lookup.open()

    def stop(self) -> None:
        """Finish what was taken, write the log down, ship what can be shipped."""
        self.limits.close()
        self._lookup.close()
        self.watcher.stop()
        self._scorer.close()
        self._shadows.close()
        self._log.close()

    def why_not_ready(self) -> str | None:
        """None when a champion answers, the online store too, and what is answered is logged."""
        draining = "The service is being taken out of the rotation" if self.limits.draining else None
        return draining or self._no_champion() or self._lookup.problem or self._log.problem()

    def _no_champion(self) -> str | None:
        return None if self.watcher.traffic.champion else self.watcher.problem or "No champion is loaded"

    async def predict(self, asked: Asked) -> list[dict[str, Any]]:
        """One answer per row, with the fields of schema.Prediction. Raises BadRequest when that is not possible now."""
        parts = self._parts(self.watcher.traffic, asked)
        names = {name for route, _ in parts for name in _names(route)}
        online = await self._lookup.find(asked.rows, self._lookup.plan(names))
        if len(parts) == 1:
            return await self._answer(parts[0][0], asked, asked.rows, online)
        answers: list[dict[str, Any]] = [{}] * len(asked.rows)
        for route, places in parts:
            some = OnlineFeatures(online.values[places], [online.timestamps[i] for i in places])
            found = await self._answer(route, asked, [asked.rows[i] for i in places], some)
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
        return answers

    def _parts(self, traffic: Traffic, asked: Asked) -> list[tuple[Route, list[int]]]:
        """The request's rows by who answers them. One moment's traffic serves all of it."""
        if asked.pinned is not None:
            slot = traffic.pinned(asked.pinned)
            if slot is None:
                raise BadRequest(404, Problem(error=f"{asked.pinned!r} is no alias or version that is loaded here"))
            return [(Route(slot, "pinned"), list(range(len(asked.rows))))]
        parts: dict[tuple[int, str], tuple[Route, list[int]]] = {}
        for place, row in enumerate(asked.rows):
            route = traffic.route(str(row[self._spec.rollout.sticky_by]))
            if route is None:
                raise _unavailable(f"No champion serves yet: {self._no_champion()}")
            parts.setdefault((route.slot.version, route.role), (route, []))[1].append(place)
        return list(parts.values())

    async def _answer(
        self, route: Route, asked: Asked, rows: list[Row], online: OnlineFeatures
    ) -> list[dict[str, Any]]:
        route, scores = await self._score(route, asked, online.values)
        slot, role = route.slot, route.role
        threshold = slot.model.metadata.threshold
        flagged = scores >= threshold
        predictions = [
            {
                "prediction_id": f"{self._ids.getrandbits(128):032x}",
                "score": score,
                "decision": "flag" if flag else "pass",
                "threshold": threshold,
                "model": self._spec.name,
                "model_version": slot.version,
                "slot": role,
                "feature_timestamp": stamp,
                "features_defaulted": stamp is None,
            }
            for score, flag, stamp in zip(scores.tolist(), flagged.tolist(), online.timestamps, strict=True)
        ]
        if asked.explain:
            values = online.values[:, slot.columns]
            for prediction, row in zip(predictions, values, strict=True):
                prediction["explanation"] = await self._scorer.run(explained, slot.model, row)
        seconds = time.perf_counter() - asked.received
        self.signals.answered(slot.version, role, seconds, scores, flagged)
        logged = self._log_rows(rows, predictions, slot, online.values, seconds)
        self._log.append(logged)
        self._count(slot.version, role, predictions)
        if route.shadow is not None:
            self._shadows.put(Shadowed(route.shadow, slot, online.values, scores, logged))
        return predictions

    async def _score(self, route: Route, asked: Asked, values: np.ndarray) -> tuple[Route, np.ndarray]:
        """The scores, and who gave them: where a challenger fails, the champion answers."""
        left = self._settings.serving_deadline_seconds - (time.perf_counter() - asked.received)
        if left <= 0:
            raise _unavailable("The request could not be answered in time")
        slot = route.slot
        try:
            return route, await self._scorer.score(slot, values, left)
        except Exception as error:
            self.signals.failed(slot.version, route.role, time.perf_counter() - asked.received)
            why = f"Version {slot.version} could not score: {type(error).__name__}: {error}"
            log.error("%s", why)
            if route.role != "challenger" or route.shadow is None:
                raise _unavailable(why) from error
        self.metrics.fallbacks.inc()
        return await self._score(Route(route.shadow, "champion"), asked, values)

    def _count(self, version: int, role: str, predictions: list[dict[str, Any]]) -> None:
        if len(predictions) == 1:
            self.metrics.predicted(self._spec.name, version, role, predictions[0]["decision"])
        else:
            for decision in ("flag", "pass"):
                number = sum(prediction["decision"] == decision for prediction in predictions)
                self.metrics.predicted(self._spec.name, version, role, decision, number)
        if defaulted := sum(prediction["features_defaulted"] for prediction in predictions):
            self.metrics.defaulted.labels(self._spec.name).inc(defaulted)

    def _log_rows(
        self, rows: list[Row], predictions: list[dict[str, Any]], slot: Slot, values: np.ndarray, seconds: float
    ) -> list[dict[str, Any]]:
        names, now = slot.model.metadata.feature_names, datetime.now(UTC)
        return [
            {
                **row,
                "prediction_id": prediction["prediction_id"],
                "predicted_at": now,
                "score": prediction["score"],
                "flagged": prediction["decision"] == "flag",
                "model_version": slot.version,
                "slot": prediction["slot"],
                "features": LoggedFeatures(names, features),
                "features_defaulted": prediction["features_defaulted"],
                "feature_timestamp": prediction["feature_timestamp"],
                "latency_seconds": seconds,
                "replica": self.replica,
                "day": row[self._day_of].date(),
            }
            for row, prediction, features in zip(rows, predictions, values[:, slot.columns], strict=True)
        ]

    def _log_shadow(self, shadowed: Shadowed, scores: np.ndarray, seconds: float) -> None:
        """A row of its own beside the answered one, under the same prediction_id."""
        slot = shadowed.slot
        names, threshold = slot.model.metadata.feature_names, slot.model.metadata.threshold
        self._log.append(
            [
                row
                | {
                    "score": score,
                    "flagged": score >= threshold,
                    "model_version": slot.version,
                    "slot": SHADOW,
                    "features": LoggedFeatures(names, features),
                    "latency_seconds": seconds,
                }
                for row, score, features in zip(
                    shadowed.rows, scores.tolist(), shadowed.values[:, slot.columns], strict=True
                )
            ]
        )

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

    def state(self) -> dict[str, Any]:
        """How the replica is doing: `GET /admin/state`."""
        return {
            "replica": self.replica,
            "ready": self.why_not_ready() or "yes",
            "draining": self.limits.draining,
            "in_flight": self.limits.in_flight,
            "lag_seconds": self.limits.lag,
            "online_store": {"breaker": self._lookup.breaker.state, "problem": self._lookup.problem},
            "prediction_log": {"waiting": self._log.waiting, "problem": self._log.problem()},
        }


def _names(route: Route) -> list[str]:
    names = route.slot.model.metadata.feature_names
    return names if route.shadow is None else [*names, *route.shadow.model.metadata.feature_names]


def _unavailable(why: str) -> BadRequest:
    return BadRequest(503, Problem(error=why), retry_after=1)
