"""Looks up the online features of requests: shared round trips, a deadline, and a circuit breaker.

Redis is read on the event loop. An SQLite file, for one machine, is read by Feast in a single thread, because its
connection belongs to a thread. When the store is slow or away, CT_SERVING_STORE_DOWN decides: 503 at once, or an answer
with the defaults of the features, which says so (`features_defaulted`).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from serving.breaker import Breaker
from serving.metrics import Metrics
from serving.schema import BadRequest, Problem, Row
from training.adapters.features import Found, OnlineReader, Reads, View
from training.adapters.features.redis_rows import Read, RedisLayout, RedisReader
from training.contract.errors import StepError, TransientError
from training.settings import ServingSettings

#: A lookup of more rows than this may take proportionally longer.
ROWS_PER_DEADLINE = 100
#: At most this many round trips at a time. Two keep the connection busy; more would only make each smaller.
ROUND_TRIPS = 2

log = logging.getLogger("perennial")


class Lookup:
    """Belongs to the event loop in which `open` is called."""

    def __init__(self, settings: ServingSettings, metrics: Metrics) -> None:
        self.breaker = Breaker()
        self._settings, self._metrics = settings, metrics
        self._seconds = settings.serving_lookup_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lookup")
        self._redis: _SharedReads | None = None
        self._reader: OnlineReader | None = None
        self._prepared: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._prepared = asyncio.get_running_loop().create_task(self._prepare())

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def find(self, rows: list[Row], reads: Reads, shared: bool = False) -> list[Found]:
        """The store's values for `rows`, one Found per view of `reads.views`.

        When the store cannot be used, CT_SERVING_STORE_DOWN decides: no values, or BadRequest (503). Errors that the
        store did not cause, such as a row that cannot be read, do not count for the circuit breaker. `shared`: the rows
        belong to several requests. Then such an error is raised as it is, because one request alone may have caused it.
        """
        if not reads.views:
            return []
        if not self.breaker.allows():
            return self._without(rows, reads, "the online store is not called for a moment, after failures")
        began = time.perf_counter()
        try:
            found = await self.look_up(rows, reads.views)
        except (TransientError, TimeoutError) as error:
            self.breaker.failed()
            return self._failed(rows, reads, error)
        except Exception as error:
            self.breaker.undecided()
            if shared:
                raise
            return self._failed(rows, reads, error)
        except BaseException:
            self.breaker.undecided()  # The request was cancelled.
            raise
        self.breaker.succeeded()
        self._metrics.looked_up(time.perf_counter() - began)
        return found

    async def look_up(self, rows: list[Row], views: Sequence[View]) -> list[Found]:
        """As `find`, without the circuit breaker. Raises TransientError when the store does not answer."""
        if self._redis is None and self._reader is None:
            await self._opened()
        if self._redis is not None:
            return await self._redis.find(rows, views)
        assert self._reader is not None
        seconds = self._seconds * max(1.0, len(rows) / ROWS_PER_DEADLINE)
        lookup = asyncio.get_running_loop().run_in_executor(self._thread, self._reader.look_up, rows, views)
        try:
            return await asyncio.wait_for(lookup, seconds)
        except TimeoutError:
            raise TransientError(f"The online store did not answer in {seconds:g} s") from None

    def _failed(self, rows: list[Row], reads: Reads, error: Exception) -> list[Found]:
        self._metrics.lookup_failed()
        reason = error.message if isinstance(error, StepError) else f"{type(error).__name__}: {error}"
        log.warning("Lookup failed: %s", reason)
        return self._without(rows, reads, reason)

    def _without(self, rows: list[Row], reads: Reads, reason: str) -> list[Found]:
        if self._settings.serving_store_down == "defaults":
            return reads.nothing(len(rows))
        raise BadRequest(503, Problem(error=f"Features cannot be looked up: {reason}"), retry_after=1)

    async def _opened(self) -> None:
        if self._prepared is None or (self._prepared.done() and self._prepared.exception()):
            self.open()
        assert self._prepared is not None
        try:
            await asyncio.wait_for(asyncio.shield(self._prepared), self._seconds)
        except TimeoutError:
            raise TransientError(f"The online store could not be opened in {self._seconds:g} s yet") from None
        except Exception as error:
            raise TransientError(f"The online store cannot be opened: {type(error).__name__}: {error}") from error

    async def _prepare(self) -> None:
        """Open the store. In the thread, because importing Feast takes seconds."""
        loop = asyncio.get_running_loop()
        if "://" in self._settings.online:
            layout = await loop.run_in_executor(self._thread, RedisLayout, self._settings)
            self._redis = _SharedReads(layout, RedisReader(self._settings.online, self._seconds), self._seconds)
        else:
            self._reader = await loop.run_in_executor(self._thread, OnlineReader, self._settings)


class _SharedReads:
    """Requests that arrive during a round trip to Redis share the next one."""

    def __init__(self, layout: RedisLayout, reader: RedisReader, seconds: float) -> None:
        self.reader = reader
        self._layout, self._seconds = layout, seconds
        self._waiting: list[tuple[list[Read], asyncio.Future[list[Any]]]] = []
        self._trips: set[asyncio.Task[None]] = set()

    async def find(self, rows: list[Row], views: Sequence[View]) -> list[Found]:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[list[Any]] = loop.create_future()
        self._waiting.append((self._layout.reads(views, rows), answered))
        if len(self._trips) < ROUND_TRIPS:
            trip = loop.create_task(self._read_waiting())
            self._trips.add(trip)
            trip.add_done_callback(self._trips.discard)
        return self._layout.found(views, len(rows), await answered)

    async def _read_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            reads = [read for each, _ in batch for read in each]
            try:
                async with asyncio.timeout(self._seconds):
                    answers = await self.reader.read(reads)
            except TimeoutError:
                self._fail(batch, TransientError(f"The online store did not answer in {self._seconds:g} s"))
            except Exception as error:
                self._fail(batch, error)
            else:
                at = 0
                for each, answered in batch:
                    if not answered.done():
                        answered.set_result(answers[at : at + len(each)])
                    at += len(each)

    def _fail(self, batch: list[tuple[list[Read], asyncio.Future[list[Any]]]], error: Exception) -> None:
        for _, answered in batch:
            with contextlib.suppress(asyncio.InvalidStateError):
                answered.set_exception(error)
