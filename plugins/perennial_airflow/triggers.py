"""The landing watcher: runs in the triggerer, takes no worker slot, rings when files have landed."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from perennial_airflow.deliveries import SETTLE_SECONDS, Announced, Delivery, landing_folder, scan

#: The landing DAG has this long to take up what was announced before it is announced again; then twice as long.
REPEAT_SECONDS, LONGEST_REPEAT_SECONDS = 30.0, 600.0


class LandingTrigger(BaseEventTrigger):
    """Rings while there are deliveries without a data run.

    It keeps no account of its own. The landing DAG writes down what it has started a run for, and only that silences
    the bell: an event that Airflow loses, a triggerer killed at any point, a paused or failed landing DAG cost a
    delay, never a delivery.
    """

    def __init__(self, model: str, poll_seconds: float = 1.0, settle_seconds: float = SETTLE_SECONDS) -> None:
        super().__init__()
        self.model = model
        self.poll_seconds = poll_seconds
        self.settle_seconds = settle_seconds
        self._announced = Announced()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        kwargs = {"model": self.model, "poll_seconds": self.poll_seconds, "settle_seconds": self.settle_seconds}
        return "perennial_airflow.triggers.LandingTrigger", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        folder = landing_folder(self.model)
        self.log.info("Watching %s", folder)
        rung: list[Delivery] = []
        wait, again_at = REPEAT_SECONDS, 0.0
        while True:
            new = await self._new(folder)
            if new and (new != rung or time.monotonic() >= again_at):
                wait = min(2 * wait, LONGEST_REPEAT_SECONDS) if new == rung else REPEAT_SECONDS
                rung, again_at = new, time.monotonic() + wait
                keys = ", ".join(delivery.key for delivery in new[:3]) + (", …" if len(new) > 3 else "")
                yield TriggerEvent({"files": len(new), "reason": f"Landed: {keys}"})
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
