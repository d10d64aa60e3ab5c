"""One model of the service, and how it answers a request: choose the version, look up features, score."""

import asyncio
import time

from serving.answering import Answering, RowOutcome
from serving.batch import Batch, LookedUp
from serving.limits import ModelLimits
from serving.lookup import Lookup
from serving.micro_batcher import MicroBatcher, Outcome
from serving.readiness import Probe
from serving.recorder import RECORD_SECONDS
from serving.replica import Replica
from serving.request import PredictionRequest
from serving.schema import BadRequest, Problem, RequestSchema
from serving.signals import RolloutSignals
from serving.traffic import Route, Traffic
from serving.watcher import Watcher
from training.adapters.features import MergedViews
from training.contract.model_spec import ModelSpec
from training.contract.predictions import Prediction
from training.contract.replicas import OnlineStoreState, PredictionLogState, ReplicaModels, ServedModelState


class ModelHost:
    """A model of `replica` with its own watcher, versions, traffic, signals, limits and prediction log.

    Its troubles are not those of other models. Belongs to the event loop in which the replica is opened.
    """

    def __init__(self, replica: Replica, spec: ModelSpec, before: "ModelHost | None" = None) -> None:
        """`before`: the host of an earlier spec, which answers until this one can."""
        settings = replica.settings
        self.spec = spec
        self.schema = RequestSchema(spec)
        self.metrics = replica.metrics.of(spec.name)
        self.signals = RolloutSignals(spec, replica.name)
        wake, on_load = replica.registry.wake, replica.models_loaded.set
        self.watcher = Watcher(settings, spec, self.metrics, self.signals, replica.guard, wake, on_load)
        self.limits = ModelLimits(replica.limits)
        #: Why the spec file is not used as it is now; None when it is.
        self.spec_problem: str | None = None
        #: When the last request came (time.time); 0 when it is not known.
        self.last_request: float = before.last_request if before else 0.0
        self._replica = replica
        self._lookup = Lookup(replica.store, settings, self.metrics)
        self._log = replica.spools.open(spec)
        if before is None:
            replica.spools.follow(spec)
        self._batcher = MicroBatcher(self._predict)
        self._deadline = settings.serving_deadline_seconds
        self._answering = Answering(
            spec.name, replica.name, self._deadline, self._log, self.signals, self.metrics, replica.record_timer
        )
        self._probe = Probe(self._lookup, lambda: self.watcher.traffic, self._answering.answered_lately, self.metrics)

    def start(self, unloaded: bool = False) -> None:
        """`unloaded`: the versions that served last are loaded by the first request, not now."""
        if unloaded:
            self.watcher.start_unloaded()
        self._replica.registry.add(self.watcher)

    def take_over(self) -> None:
        """The host of the earlier spec is closed next."""
        self._replica.spools.follow(self.spec)

    def retire(self) -> None:
        """Close the host while the service goes on: when no request is under way any more, and no later than after the
        deadline of requests. Its prediction log goes on. Call it in another thread than the event loop's.
        """
        self.limits.closed = True
        end = time.monotonic() + self._replica.settings.serving_deadline_seconds
        while self.limits.in_flight and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(2 * RECORD_SECONDS)
        self.stop()

    def stop(self) -> None:
        """Finish the requests under way."""
        self._replica.registry.remove(self.watcher)
        self._answering.close()

    @property
    def loaded(self) -> bool:
        """Whether versions are in memory."""
        return bool(self.watcher.traffic.by_alias)

    def unload(self) -> bool:
        """Free the memory of the versions. Returns False, and does nothing, while requests, shadows or a rollout are
        under way. A request that comes at this moment keeps the version that it has read.
        """
        unloaded = not self.limits.in_flight and not self._answering.busy and self.watcher.unload()
        if unloaded:
            self.metrics.unloads.inc()
        return unloaded

    async def check(self) -> None:
        """Check whether the champion can answer. `why_not_ready` says what was found."""
        await self._probe.look()

    async def look(self) -> None:
        """As `check`. The metrics say whether the model can answer, and whether it is loaded."""
        await self.check()
        self.metrics.ready.set(int(self.why_not_ready() is None))
        self.metrics.loaded.set(int(self.loaded))

    def why_not_ready(self) -> str | None:
        """None when a champion can answer, with features from the online store, and predictions can be logged."""
        return self._no_champion() or self._probe.problem or self._log.problem()

    def _no_champion(self) -> str | None:
        return None if self.watcher.traffic.can_answer else self.watcher.problem or "No champion is loaded"

    async def predict(self, request: PredictionRequest) -> Outcome:
        """A prediction per row of `request`, or why there is none. Loads the model if it is unloaded."""
        self.last_request = time.time()
        try:
            if self.watcher.traffic.unloaded is not None:
                await self._load(request.received)
            request.routes = self._routes(self.watcher.traffic, request)
            request.looked_up = await self._look_up(request)
        except BadRequest as refused:
            return refused
        if not request.may_share_a_batch:
            return await self._batcher.alone(request)
        return await self._batcher.outcome(request, batch_key=next(iter(request.routes)))

    async def _load(self, received: float) -> None:
        """Wait until the unloaded champion can answer; all requests wait for one load.

        Raises BadRequest (503) when it cannot be loaded, or not before the deadline of the request. The load goes on.
        """
        seconds_left = self._deadline - (time.perf_counter() - received)
        loading = asyncio.wrap_future(self.watcher.load())
        try:
            await asyncio.wait_for(asyncio.shield(loading), seconds_left)
        except TimeoutError:
            why = f"{self.spec.name} was unloaded, and could not be loaded in time"
            raise BadRequest(503, Problem(error=why), retry_after=1) from None
        except Exception as error:
            why = f"{self.spec.name} was unloaded, and cannot be loaded now: {error}"
            raise BadRequest(503, Problem(error=why), retry_after=1) from None

    def _routes(self, traffic: Traffic, request: PredictionRequest) -> dict[Route, list[int]]:
        """Who answers which rows, by their places. All rows of a request see the same state of traffic."""
        if request.pinned is not None:
            loaded = traffic.pinned(request.pinned)
            if loaded is None and not self.watcher.settled:
                raise BadRequest(503, Problem(error="The versions of the model are being loaded"), retry_after=1)
            if loaded is None:
                raise BadRequest(404, Problem(error=f"{request.pinned!r} is no alias or version that is loaded here"))
            return {Route(loaded, "pinned"): list(range(len(request.rows)))}
        routes: dict[Route, list[int]] = {}
        for place, row in enumerate(request.rows):
            route = traffic.route(row[self.spec.rollout.sticky_by])
            if route is None:
                why = f"No champion serves yet: {self._no_champion()}"
                raise BadRequest(503, Problem(error=why), retry_after=1)
            routes.setdefault(route, []).append(place)
        return routes

    async def _look_up(self, request: PredictionRequest) -> LookedUp:
        """Raises BadRequest (503) when the online store cannot be used."""
        routes = request.routes
        if len(routes) == 1:
            merged = next(iter(routes)).merged_views
        else:
            merged = MergedViews({plan for route in routes for plan in route.plans})
        return LookedUp(merged, await self._lookup.find(request.rows, merged))

    async def _predict(self, group: list[PredictionRequest]) -> list[Outcome]:
        """One outcome per request of `group`: several requests of one row and the same route, or one request."""
        shared, routes = len(group) > 1, group[0].routes  # A shared batch has a single route: it answers all rows.
        rows = [row for request in group for row in request.rows]
        looked_up = LookedUp.joined([request.looked_up for request in group]) if shared else group[0].looked_up
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
        """`GET /models/<m>`."""
        watcher = self.watcher
        traffic = watcher.traffic
        return ReplicaModels(
            model=self.spec.name,
            replica=self._replica.name,
            ready=self.why_not_ready() or "yes",
            loaded=self.loaded,
            models=traffic.versions,
            traffic=traffic.state,
            loaded_versions=watcher.loaded_versions,
            held_back=watcher.held_back,
            refused=dict(watcher.refused),
            problem=watcher.problem,
            spec_problem=self.spec_problem,
            unshipped=self._log.unshipped,
        )

    def state(self) -> ServedModelState:
        """Its part of `GET /admin/state`."""
        return ServedModelState(
            ready=self.why_not_ready() or "yes",
            loaded=self.loaded,
            in_flight=self.limits.in_flight,
            online_store=OnlineStoreState(breaker=self._lookup.breaker.state, problem=self._lookup.problem),
            prediction_log=PredictionLogState(waiting=self._log.waiting, problem=self._log.problem()),
            spec_problem=self.spec_problem,
        )


def _outcome(found: list[RowOutcome]) -> Outcome:
    """The outcome of a request from those of its rows: if one row is refused, the request is."""
    predictions: list[Prediction] = []
    for each in found:
        if isinstance(each, BadRequest):
            return each
        predictions.append(each)
    return predictions
