"""What a worker is made of, and the way of its requests: route, look up features, have them answered."""

from pathlib import Path
from typing import Any

from serving.answering import Answering, RowOutcome
from serving.batch import Batch, LookedUp
from serving.limits import Limits
from serving.lookup import Lookup
from serving.metrics import Metrics
from serving.prediction_log import PredictionLog
from serving.readiness import Probe
from serving.replica import hold, replica_name
from serving.schema import Asked, BadRequest, Problem
from serving.signals import RolloutSignals
from serving.traffic import Route, Traffic
from serving.turns import Outcome, Tell, Turns
from serving.watcher import Watcher
from training.adapters.features import Reads
from training.adapters.lake import Lake
from training.contract.model_spec import ModelSpec
from training.settings import ServingSettings


class Predictor:
    """Holds the replica's folder from construction to `stop`; belongs to the event loop in which it is started."""

    def __init__(self, settings: ServingSettings, spec: ModelSpec, metrics: Metrics | None = None) -> None:
        state = Path(settings.serving)
        self._lock = hold(state)
        self._spec = spec
        self.metrics = metrics or Metrics()
        self.replica = replica_name(state)
        self.signals = RolloutSignals(spec, self.replica)
        self.watcher = Watcher(settings, spec, self.metrics, self.signals)
        self.limits = Limits(settings.serving_maximum_in_flight, settings.serving_maximum_lag_seconds)
        self._lookup = Lookup(settings, self.metrics)
        self._probe = Probe(self._lookup, lambda: self.watcher.traffic.champion, self.metrics)
        lake = Lake(settings.lake, spec.name)
        self._log = PredictionLog(state / "predictions" / spec.name, lake, spec, self.replica, self.metrics)
        self._turns = Turns(self._predict)
        deadline = settings.serving_deadline_seconds
        self._answering = Answering(spec.name, self.replica, deadline, self._log, self.signals, self.metrics)

    def start(self) -> None:
        self._log.start()
        self.watcher.start()
        self._answering.start()
        self.limits.open()
        self._lookup.open()
        self._probe.start()

    def stop(self) -> None:
        """Finish what was taken, write the log down, ship what can be shipped."""
        self.limits.close()
        self._probe.close()
        self._lookup.close()
        self.watcher.stop()
        self._answering.close()
        self._log.close()

    def why_not_ready(self) -> str | None:
        """None when a champion can answer, with features from the online store, and what is answered is logged."""
        draining = "The service is being taken out of the rotation" if self.limits.draining else None
        return draining or self._no_champion() or self._probe.problem or self._log.problem()

    def _no_champion(self) -> str | None:
        return None if self.watcher.traffic.champion else self.watcher.problem or "No champion is loaded"

    def ask(self, asked: Asked, tell: Tell) -> None:
        """Have `asked` answered: `tell` is called with its outcome, later or, where it is refused, now."""
        try:
            asked.routes = self._routes(self.watcher.traffic, asked)
        except BadRequest as refused:
            tell(refused)
        else:
            # What is not plain goes a way of its own.
            self._turns.ask(next(iter(asked.routes)) if asked.plain else object(), asked, tell)

    def _routes(self, traffic: Traffic, asked: Asked) -> dict[Route, list[int]]:
        """The places of the rows by who answers them. One moment's traffic serves all of it."""
        if asked.pinned is not None:
            loaded = traffic.pinned(asked.pinned)
            if loaded is None:
                raise BadRequest(404, Problem(error=f"{asked.pinned!r} is no alias or version that is loaded here"))
            return {Route(loaded, "pinned"): list(range(len(asked.rows)))}
        routes: dict[Route, list[int]] = {}
        for place, row in enumerate(asked.rows):
            route = traffic.route(row[self._spec.rollout.sticky_by])
            if route is None:
                why = f"No champion serves yet: {self._no_champion()}"
                raise BadRequest(503, Problem(error=why), retry_after=1)
            routes.setdefault(route, []).append(place)
        return routes

    async def _predict(self, group: list[Asked]) -> list[Outcome]:
        """One outcome per request of `group`: several of one row each, all of one route, or one request."""
        shared = len(group) > 1
        rows = [row for asked in group for row in asked.rows]
        routes = group[0].routes
        if shared:
            [route] = routes
            routes = {route: list(range(len(rows)))}
        if len(routes) == 1:
            reads = next(iter(routes)).reads
        else:
            reads = Reads({plan for route in routes for plan in route.plans})
        try:
            looked_up = LookedUp(reads, await self._lookup.find(rows, reads, shared))
        except BadRequest as refused:
            return [refused] * len(group)
        whole = Batch(rows, looked_up, [asked.received for asked in group], group[0].explain)
        found = dict[int, RowOutcome]()
        for route, places in routes.items():
            batch = whole if len(routes) == 1 else whole.of(places)
            found.update(zip(places, await self._answering.answer(route, batch), strict=True))
        answers = [found[place] for place in range(len(rows))]
        return [_outcome([answer]) for answer in answers] if shared else [_outcome(answers)]

    def models(self) -> dict[str, Any]:
        """What each alias serves and since when, what was refused and why, what stands in the way: `GET /models`."""
        watcher = self.watcher
        loaded = {
            alias: {"version": loaded.version, "digest": loaded.digest, "since": loaded.since.isoformat()}
            for alias, loaded in watcher.loaded.items()
        }
        traffic = watcher.traffic.state.model_dump()
        refused = {
            str(version): {"reason": refusal.reason, "at": refusal.at.isoformat()}
            for version, refusal in watcher.refused.items()
        }
        head = {"model": self._spec.name, "replica": self.replica}
        return {**head, "slots": loaded, "traffic": traffic, "refused": refused, "problem": watcher.problem}

    def state(self) -> dict[str, Any]:
        """How the replica is doing: `GET /admin/state`."""
        return {
            "replica": self.replica,
            "ready": self.why_not_ready() or "yes",
            "draining": self.limits.draining,
            "in_flight": self.limits.in_flight,
            "lag_seconds": self.limits.lag,
            "online_store": {"breaker": self._lookup.breaker.state, "problem": self._probe.problem},
            "prediction_log": {"waiting": self._log.waiting, "problem": self._log.problem()},
        }


def _outcome(found: list[RowOutcome]) -> Outcome:
    """Of a request's rows: all are answered, or none is."""
    refused = [each for each in found if isinstance(each, BadRequest)]
    return refused[0] if refused else [each for each in found if isinstance(each, dict)]
