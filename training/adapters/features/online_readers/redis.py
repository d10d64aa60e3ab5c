"""Reads Redis on the event loop: requests that arrive at the same time share a round trip."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from training.adapters.features.online import Found, View
from training.adapters.features.online_readers import ONLINE_READERS
from training.adapters.features.redis_rows import Read, RedisLayout, RedisReader
from training.contract.errors import TransientError
from training.settings import StateSettings

#: At most this many round trips at a time. Two keep the connection busy; more would only make each smaller.
ROUND_TRIPS = 2


@ONLINE_READERS.register("redis")
class SharedReads:
    """Requests that arrive during a round trip to Redis share the next one."""

    def __init__(self, settings: StateSettings, seconds: float) -> None:
        self._layout, self._reader = RedisLayout(settings), RedisReader(settings.online, seconds)
        self._seconds = seconds
        self._waiting: list[tuple[list[Read], asyncio.Future[list[Any]]]] = []
        self._trips: set[asyncio.Task[None]] = set()

    async def find(self, rows: Sequence[Mapping[str, Any]], views: Sequence[View]) -> list[Found]:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[list[Any]] = loop.create_future()
        self._waiting.append((self._layout.reads(views, rows), answered))
        if len(self._trips) < ROUND_TRIPS:
            trip = loop.create_task(self._read_waiting())
            self._trips.add(trip)
            trip.add_done_callback(self._trips.discard)
        return self._layout.found(views, len(rows), await answered)

    def close(self) -> None:
        for trip in self._trips:
            trip.cancel()

    async def _read_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            reads = [read for each, _ in batch for read in each]
            try:
                async with asyncio.timeout(self._seconds):
                    answers = await self._reader.read(reads)
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
