"""The landing watcher: runs in the triggerer, takes no worker slot, rings when files have landed."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from perennial_airflow.deliveries import (
    SETTLE_SECONDS,
    Announced,
    Delivery,
    Reported,
    Stray,
    landing_folder,
    scan,
    strays,
)

#: The landing DAG has this long to take up what was announced before it is announced again; then twice as long.
REPEAT_SECONDS, LONGEST_REPEAT_SECONDS = 30.0, 600.0
#: Between two looks for what is not understood. A stray must be there at both: it may be on its way to somewhere.
STRAY_SECONDS = 60.0


class LandingTrigger(BaseEventTrigger):
    """Fires while there are deliveries without a data run, or files that are not understood and not yet reported.

    It keeps no account of its own. The landing DAG writes down what it has started a run for and what it has told, and
    only that silences the bell: an event that Airflow loses, a triggerer killed at any point, a paused or failed
    landing DAG cost a delay, never a delivery.
    """

    def __init__(
        self,
        model: str,
        poll_seconds: float = 1.0,
        settle_seconds: float = SETTLE_SECONDS,
        stray_seconds: float = STRAY_SECONDS,
    ) -> None:
        super().__init__()
        self.model = model
        self.poll_seconds = poll_seconds
        self.settle_seconds = settle_seconds
        self.stray_seconds = stray_seconds
        self._announced = Announced()
        self._strays: list[Stray] = []
        self._lasting: list[Stray] = []
        self._told = Reported()
        self._look_at = 0.0

    def serialize(self) -> tuple[str, dict[str, Any]]:
        fields = ("model", "poll_seconds", "settle_seconds", "stray_seconds")
        return "perennial_airflow.triggers.LandingTrigger", {field: getattr(self, field) for field in fields}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        folder = landing_folder(self.model)
        self.log.info("Watching %s", folder)
        rung: tuple[list[Delivery], list[Stray]] = [], []
        wait, again_at = REPEAT_SECONDS, 0.0
        while True:
            new = await self._new(folder), await self._untold(folder)
            if any(new) and (new != rung or time.monotonic() >= again_at):
                wait = min(2 * wait, LONGEST_REPEAT_SECONDS) if new == rung else REPEAT_SECONDS
                rung, again_at = new, time.monotonic() + wait
                yield TriggerEvent({"files": len(new[0]), "reason": _reason(*new)})
            await asyncio.sleep(self.poll_seconds)

    async def _new(self, folder: str) -> list[Delivery]:
        """Deliveries without a data run. None when that cannot be told now: a watcher that raises is not restarted."""
        try:
            found = await asyncio.to_thread(scan, folder, time.time(), self.settle_seconds)
            if self._announced.new(found):
                assert self.asset_state_store is not None
                self._announced = Announced(await self.asset_state_store.aget(Announced.KEY, {}))
            return self._announced.new(found)
        except Exception:
            self.log.exception("Cannot look for deliveries in %s; trying again", folder)
            return []

    async def _untold(self, folder: str) -> list[Stray]:
        """What is not understood and not yet reported. As `_new`, but the folders are not read at each call."""
        try:
            if time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + self.stray_seconds
                before, self._strays = self._strays, await asyncio.to_thread(strays, self.model)
                self._lasting = [stray for stray in self._strays if stray in before]
            if self._told.new(self._lasting):
                assert self.asset_state_store is not None
                self._told = Reported(await self.asset_state_store.aget(Reported.KEY, {}))
            return self._told.new(self._lasting)
        except Exception:
            self.log.exception("Cannot look for what is not understood in %s; trying again", folder)
            return []


def _reason(new: list[Delivery], untold: list[Stray]) -> str:
    """What the landing run's note says."""
    landed = f"Landed: {_some([delivery.key for delivery in new])}" if new else ""
    odd = f"Not understood: {_some([stray.path for stray in untold])}" if untold else ""
    return "; ".join(filter(None, (landed, odd)))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
