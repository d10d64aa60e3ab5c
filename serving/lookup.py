"""The online features of requests: concurrent ones in one round trip, within a deadline, behind a circuit breaker.

Redis is read from the event loop. An SQLite file, for one machine, is read by Feast in a thread of its own, which is
also where its one connection lives. When the store is slow or away, CT_SERVING_STORE_DOWN decides: 503 at once, or an
answer from the features' defaults, flagged.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from serving.breaker import Breaker
from serving.metrics import Metrics
from serving.schema import BadRequest, Problem, Row, made_up_row
from training.adapters.features import Features, Found, OnlineFeatures, Plan
from training.adapters.features.redis_rows import Read, RedisLayout, RedisReader
from training.contract.errors import StepError, TransientError
from training.contract.model_spec import ModelSpec
from training.settings import Settings

#: A lookup of more rows than this may take longer, in proportion.
ROWS_PER_DEADLINE = 100
PROBE_SECONDS = 1.0
#: Two round trips at a time keep the connection busy while answers are read; more would only be smaller.
ROUND_TRIPS = 2

log = logging.getLogger("perennial")


class Lookup:
    """Belongs to the event loop in which `open` is called."""

    def __init__(self, settings: Settings, spec: ModelSpec, metrics: Metrics) -> None:
        self.breaker = Breaker()
        #: Why the store cannot be used; None when it can.
        self.problem: str | None = "The online store has not been looked at yet"
        self._settings, self._spec, self._metrics = settings, spec, metrics
        self._features = Features(settings, spec)
        self._seconds = settings.serving_lookup_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lookup")
        self._redis: _Together | None = None
        self._plans: dict[frozenset[str], Plan] = {}
        self._prepared: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._prepared = asyncio.get_running_loop().create_task(self._prepare())
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    def close(self) -> None:
        self._watching.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def plan(self, names: Iterable[str]) -> Plan:
        """How the features `names` are made; worked out once."""
        wanted = frozenset(names)
        if wanted not in self._plans:
            self._plans[wanted] = self._features.plan(wanted)
        return self._plans[wanted]

    async def find(self, rows: list[Row], plan: Plan, shared: bool = False) -> OnlineFeatures:
        """The features of `rows`. Raises BadRequest (503) when the store is away and the policy is to refuse.

        `shared`: they are of several requests. What may be the trouble of one is raised then as it is.
        """
        if not plan.views:
            return plan.assemble(rows, [])
        if not self.breaker.allows():
            return self._without(rows, plan, self.problem or "the online store is given a rest after failures")
        began = time.perf_counter()
        try:
            found = await self._look(rows, plan)
        except Exception as error:
            self.breaker.failed()
            if shared and not isinstance(error, TransientError | TimeoutError):
                raise
            self._metrics.lookup_failed()
            reason = error.message if isinstance(error, StepError) else f"{type(error).__name__}: {error}"
            log.warning("Lookup failed: %s", reason)
            return self._without(rows, plan, reason)
        except BaseException:
            self.breaker.failed()  # cancelled: whether the store is well is not known
            raise
        self.breaker.succeeded()
        self._metrics.looked_up(time.perf_counter() - began)
        return plan.assemble(rows, found)

    async def _look(self, rows: list[Row], plan: Plan) -> list[Found]:
        if self._prepared is not None and not self._prepared.done():
            await asyncio.wait_for(asyncio.shield(self._prepared), self._seconds)
        if self._redis is not None:
            return await self._redis.find(rows, plan)
        if self._is_redis:
            raise TransientError("The online store has not been reached since the service began")
        patience = self._seconds * max(1.0, len(rows) / ROWS_PER_DEADLINE)
        looking = asyncio.get_running_loop().run_in_executor(self._thread, self._features.look_up, rows, plan)
        try:
            return await asyncio.wait_for(looking, patience)
        except TimeoutError:
            raise TransientError(f"The online store did not answer in {patience:g} s") from None

    def _without(self, rows: list[Row], plan: Plan, reason: str) -> OnlineFeatures:
        if self._settings.serving_store_down == "defaults":
            return plan.defaults(rows)
        raise BadRequest(503, Problem(error=f"Features cannot be looked up: {reason}"), retry_after=1)

    @property
    def _is_redis(self) -> bool:
        return "://" in self._settings.online

    async def _prepare(self) -> None:
        """Import Feast and lay out the reads: seconds, in the thread."""
        loop = asyncio.get_running_loop()
        if self._is_redis and self._redis is None:
            layout = await loop.run_in_executor(self._thread, self._features.redis_layout)
            reader = RedisReader(self._settings.online, self._seconds)
            self._redis = _Together(layout, reader, self._seconds)
        await loop.run_in_executor(self._thread, self._features.names)

    async def _watch(self) -> None:
        """Look every second whether the store answers, for the readiness of a replica without traffic."""
        row = made_up_row(self._spec)
        while True:
            try:
                if self._prepared is not None:
                    await asyncio.shield(self._prepared)
                if self._redis is not None:
                    await self._redis.reader.ping()
                else:
                    loop = asyncio.get_running_loop()
                    await loop.run_in_executor(self._thread, self._features.online, [row])
                self.problem = None
            except Exception as error:
                reason = error.message if isinstance(error, StepError) else f"{type(error).__name__}: {error}"
                if self.problem != reason:
                    log.warning("The online store cannot be used: %s", reason)
                self.problem = reason
                if self._prepared is not None and self._prepared.done() and self._prepared.exception():
                    self._prepared = asyncio.get_running_loop().create_task(self._prepare())
            self._metrics.breaker(self.breaker.state)
            await asyncio.sleep(PROBE_SECONDS)


class _Together:
    """Requests that come while a round trip is under way share the next one."""

    def __init__(self, layout: RedisLayout, reader: RedisReader, seconds: float) -> None:
        self.reader = reader
        self._layout, self._seconds = layout, seconds
        self._waiting: list[tuple[list[Read], asyncio.Future[list[Any]]]] = []
        self._trips: set[asyncio.Task[None]] = set()

    async def find(self, rows: list[Row], plan: Plan) -> list[Found]:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[list[Any]] = loop.create_future()
        self._waiting.append((self._layout.reads(plan, rows), answered))
        if len(self._trips) < ROUND_TRIPS:
            trip = loop.create_task(self._travel())
            self._trips.add(trip)
            trip.add_done_callback(self._trips.discard)
        return self._layout.found(plan, len(rows), await answered)

    async def _travel(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            reads = [read for each, _ in batch for read in each]
            try:
                async with asyncio.timeout(self._seconds):
                    answers = await self.reader.read(reads)
            except TimeoutError:
                self._tell(batch, TransientError(f"The online store did not answer in {self._seconds:g} s"))
            except Exception as error:
                self._tell(batch, error)
            else:
                at = 0
                for each, answered in batch:
                    if not answered.done():
                        answered.set_result(answers[at : at + len(each)])
                    at += len(each)

    def _tell(self, batch: list[tuple[list[Read], asyncio.Future[list[Any]]]], error: Exception) -> None:
        for _, answered in batch:
            with contextlib.suppress(asyncio.InvalidStateError):
                answered.set_exception(error)
