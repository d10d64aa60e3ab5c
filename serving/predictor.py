"""The parts of a worker, and how it answers a request: choose the version, look up features, score."""

from pathlib import Path

from serving.answering import Answering, RowOutcome
from serving.batch import Batch, LookedUp
from serving.limits import Limits
from serving.lookup import Lookup
from serving.metrics import Metrics
from serving.micro_batcher import MicroBatcher, Outcome
from serving.prediction_log import PredictionLog
from serving.readiness import Probe
from serving.replica import hold, replica_name
from serving.request import PredictionRequest
from serving.schema import BadRequest, Problem
from serving.signals import RolloutSignals
from serving.traffic import Route, Traffic
from serving.watcher import Watcher
from training.adapters.features import MergedViews
from training.adapters.lake import Lake
from training.contract.model_spec import ModelSpec
from training.contract.replicas import (
    LoadedVersion,
    OnlineStoreState,
    PredictionLogState,
    ReplicaModels,
    ReplicaState,
)
from training.settings import ServingSettings


class Predictor:
    """Locks the replica's folder until the process ends. Belongs to the event loop in which it is started."""

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
        lake = Lake(settings.lake, spec.source.name, spec.name)
        self._log = PredictionLog(state / "predictions" / spec.name, lake, spec, self.replica, self.metrics)
        self._batcher = MicroBatcher(self._predict)
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
        """Finish the requests under way, write the prediction log to disk, and ship what can be shipped."""
        self.limits.close()
        self._probe.close()
        self._lookup.close()
        self.watcher.stop()
        self._answering.close()
        self._log.close()

    def why_not_ready(self) -> str | None:
        """None when a champion can answer, with features from the online store, and predictions can be logged."""
        draining = "The service is being taken out of the rotation" if self.limits.draining else None
        return draining or self._no_champion() or self._probe.problem or self._log.problem()

    def _no_champion(self) -> str | None:
        return None if self.watcher.traffic.champion else self.watcher.problem or "No champion is loaded"

    async def predict(self, request: PredictionRequest) -> Outcome:
        """A prediction per row of `request`, or why there is none."""
        try:
            request.routes = self._routes(self.watcher.traffic, request)
        except BadRequest as refused:
            return refused
        if not request.may_share_a_batch:
            return await self._batcher.alone(request)
        return await self._batcher.outcome(request, batch_key=next(iter(request.routes)))

    def _routes(self, traffic: Traffic, request: PredictionRequest) -> dict[Route, list[int]]:
        """Who answers which rows, by their places. All rows of a request see the same state of traffic."""
        if request.pinned is not None:
            loaded = traffic.pinned(request.pinned)
            if loaded is None:
                raise BadRequest(404, Problem(error=f"{request.pinned!r} is no alias or version that is loaded here"))
            return {Route(loaded, "pinned"): list(range(len(request.rows)))}
        routes: dict[Route, list[int]] = {}
        for place, row in enumerate(request.rows):
            route = traffic.route(row[self._spec.rollout.sticky_by])
            if route is None:
                why = f"No champion serves yet: {self._no_champion()}"
                raise BadRequest(503, Problem(error=why), retry_after=1)
            routes.setdefault(route, []).append(place)
        return routes

    async def _predict(self, group: list[PredictionRequest]) -> list[Outcome]:
        """One outcome per request of `group`: several requests of one row and the same route, or one request."""
        shared = len(group) > 1
        rows = [row for request in group for row in request.rows]
        routes = group[0].routes  # A shared batch has a single one: it answers all rows.
        if len(routes) == 1:
            merged = next(iter(routes)).merged_views
        else:
            merged = MergedViews({plan for route in routes for plan in route.plans})
        try:
            looked_up = LookedUp(merged, await self._lookup.find(rows, merged, shared))
        except BadRequest as refused:
            return [refused] * len(group)
        whole = Batch(rows, looked_up, [request.received for request in group], group[0].explain)
        if len(routes) == 1:
            answers = await self._answering.answer(next(iter(routes)), whole)
            return [_outcome([answer]) for answer in answers] if shared else [_outcome(answers)]
        found = dict[int, RowOutcome]()
        parts = [(route, whole.of(places)) for route, places in routes.items()]
        for places, outcomes in zip(routes.values(), await self._answering.answer_together(parts), strict=True):
            found.update(zip(places, outcomes, strict=True))
        return [_outcome([found[place] for place in range(len(rows))])]

    def models(self) -> ReplicaModels:
        """`GET /models`."""
        watcher = self.watcher
        models = {
            alias: LoadedVersion(version=loaded.version, digest=loaded.digest, since=loaded.since)
            for alias, loaded in watcher.traffic.by_alias.items()
        }
        return ReplicaModels(
            model=self._spec.name,
            replica=self.replica,
            models=models,
            traffic=watcher.traffic.state,
            refused=dict(watcher.refused),
            problem=watcher.problem,
        )

    def state(self) -> ReplicaState:
        """`GET /admin/state`."""
        return ReplicaState(
            replica=self.replica,
            ready=self.why_not_ready() or "yes",
            draining=self.limits.draining,
            in_flight=self.limits.in_flight,
            lag_seconds=self.limits.lag,
            online_store=OnlineStoreState(breaker=self._lookup.breaker.state, problem=self._probe.problem),
            prediction_log=PredictionLogState(waiting=self._log.waiting, problem=self._log.problem()),
        )


def _outcome(found: list[RowOutcome]) -> Outcome:
    """The outcome of a request from those of its rows: if one row is refused, the request is."""
    refused = [each for each in found if isinstance(each, BadRequest)]
    return refused[0] if refused else [each for each in found if not isinstance(each, BadRequest)]
