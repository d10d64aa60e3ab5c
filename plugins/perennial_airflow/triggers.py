"""Watches landing folders in the triggerer, without a worker slot, and sends an event when files have landed."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Hashable
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from perennial_airflow.deliveries import (
    SETTLE_SECONDS,
    Announced,
    Delivery,
    Found,
    Reported,
    Stray,
    in_order,
    landing_folder,
    scan_all,
    strays,
)
from training import storage
from training.settings import load_settings

log = logging.getLogger(__name__)

#: Seconds until an event that the landing DAG has not handled is repeated. The wait doubles up to the longest.
REPEAT_SECONDS, LONGEST_REPEAT_SECONDS = 30.0, 600.0
#: Seconds between two searches for strays. Both must find a stray: somebody may be moving it.
STRAY_SECONDS = 60.0
#: After a scan of the landing folder, the pause is this many times the scan's time: a tenth of a core at most.
REST = 10


class LandingTrigger(BaseEventTrigger):
    """Sends events while there are deliveries without a data run, or strays that have not been reported.

    One scan of the whole landing folder serves the triggers of all sources: Airflow's shared stream.

    It stores no state. The landing DAG records the runs that it has started and the strays that it has reported, and
    only that stops the events. So no delivery is lost when Airflow loses an event, the triggerer is killed, or the
    landing DAG is paused or fails; it is only late.
    """

    def __init__(
        self,
        source: str,
        feeds: list[str],
        poll_seconds: float = 1.0,
        settle_seconds: float = SETTLE_SECONDS,
        stray_seconds: float = STRAY_SECONDS,
    ) -> None:
        super().__init__()
        self.source = source
        self.feeds = feeds
        self.poll_seconds = poll_seconds
        self.settle_seconds = settle_seconds
        self.stray_seconds = stray_seconds
        self._announced = Announced()
        self._strays: list[Stray] = []
        self._lasting: list[Stray] = []
        self._reported = Reported()
        self._next_search = 0.0

    def serialize(self) -> tuple[str, dict[str, Any]]:
        fields = ("source", "feeds", "poll_seconds", "settle_seconds", "stray_seconds")
        return "perennial_airflow.triggers.LandingTrigger", {field: getattr(self, field) for field in fields}

    def shared_stream_key(self) -> Hashable:
        return "perennial-landing", load_settings().landing, self.poll_seconds, self.settle_seconds

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[tuple[Found, storage.Tree]]:
        """The deliveries of all sources and the landing folder, scan by scan. After an error it tries again."""
        landing = load_settings().landing
        while True:
            began = time.monotonic()
            try:
                found = await asyncio.to_thread(scan_all, landing, kwargs["settle_seconds"])
            except Exception:
                log.exception("Cannot look for deliveries in %s; trying again", landing)
            else:
                yield found
            await asyncio.sleep(max(kwargs["poll_seconds"], REST * (time.monotonic() - began)))

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """As Airflow does with the shared stream, for this trigger alone."""
        async for event in self.filter_shared_stream(self.open_shared_stream(self.serialize()[1])):
            yield event

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        folder = landing_folder(self.source)
        self.log.info("Watching %s", folder)
        sent: tuple[list[Delivery], list[Stray]] = [], []
        wait, again_at = REPEAT_SECONDS, 0.0
        await self._read_announced(folder)
        async for found, tree in shared_stream:
            new = await self._new(folder, found.get(self.source, [])), await self._unreported(folder, tree)
            if any(new) and (new != sent or time.monotonic() >= again_at):
                wait = min(2 * wait, LONGEST_REPEAT_SECONDS) if new == sent else REPEAT_SECONDS
                sent, again_at = new, time.monotonic() + wait
                yield TriggerEvent({"files": len(new[0]), "reason": _reason(*new)})

    async def _read_announced(self, folder: str) -> None:
        """Read the store before anything lands. Airflow makes the store's API at its first use, which takes 3 s."""
        try:
            if self.asset_state_store is not None:
                self._announced = Announced(await self.asset_state_store.aget(Announced.KEY, {}))
        except Exception:
            self.log.exception("Cannot read which deliveries of %s have a run; trying again when some land", folder)

    async def _new(self, folder: str, found: list[Delivery] | Exception) -> list[Delivery]:
        """Deliveries without a data run. Empty after an error: Airflow does not restart a trigger that raises."""
        try:
            if isinstance(found, Exception):
                raise found
            ours = [delivery for delivery in found if delivery.feed in self.feeds]
            if self._announced.new(ours):
                assert self.asset_state_store is not None
                self._announced = Announced(await self.asset_state_store.aget(Announced.KEY, {}))
            return in_order(self._announced.new(ours), self.feeds)
        except Exception:
            self.log.exception("Cannot look for deliveries in %s; trying again", folder)
            return []

    async def _unreported(self, folder: str, tree: storage.Tree) -> list[Stray]:
        """Strays that have not been reported. Empty after an error. Looks for them every `stray_seconds` only."""
        try:
            if time.monotonic() >= self._next_search:
                self._next_search = time.monotonic() + self.stray_seconds
                before, self._strays = self._strays, await asyncio.to_thread(strays, self.source, self.feeds, tree)
                self._lasting = [stray for stray in self._strays if stray in before]
            if self._reported.new(self._lasting):
                assert self.asset_state_store is not None
                self._reported = Reported(await self.asset_state_store.aget(Reported.KEY, {}))
            return self._reported.new(self._lasting)
        except Exception:
            self.log.exception("Cannot look for strays in %s; trying again", folder)
            return []


def _reason(new: list[Delivery], unreported: list[Stray]) -> str:
    """The note of the landing run."""
    landed = f"Landed: {_some([delivery.key for delivery in new])}" if new else ""
    odd = f"Not understood: {_some([stray.path for stray in unreported])}" if unreported else ""
    return "; ".join(filter(None, (landed, odd)))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
