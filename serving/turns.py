"""Requests that are there in the same turn of the event loop, and go the same way, are answered together.

None waits for another to come: alone, a request is a batch of one. Together they share what a batch costs once: the
arrays of their features, the call of the model, the round trip to the online store; and their answers are written one
after another, so that the caller's machine is woken once.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import Protocol

from serving.loaded_model import FEW_ROWS
from serving.schema import BROKEN, Asked, BadRequest
from training.contract.predictions import Prediction

#: What became of a request: a prediction per row, or why there is none.
Outcome = list[Prediction] | BadRequest
Tell = Callable[[Outcome], None]

log = logging.getLogger("perennial")


class Predict(Protocol):
    async def __call__(self, group: list[Asked]) -> list[Outcome]:
        """One outcome per request of `group`."""


class Turns:
    """Belongs to the event loop that calls it."""

    def __init__(self, predict: Predict) -> None:
        self._predict = predict
        self._waiting: dict[Hashable, list[tuple[Asked, Tell]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, way: Hashable, asked: Asked, tell: Tell) -> None:
        """Have `asked` answered with the others of this turn that go the same `way`; `tell` is called later."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._take_turn)
        self._waiting.setdefault(way, []).append((asked, tell))

    def _take_turn(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for together in waiting.values():
            for i in range(0, len(together), FEW_ROWS):
                task = asyncio.get_running_loop().create_task(self._answer(together[i : i + FEW_ROWS]))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _answer(self, group: list[tuple[Asked, Tell]]) -> None:
        try:
            outcomes = await self._predict([asked for asked, _ in group])
        except Exception:
            if len(group) > 1:  # one's trouble is not the others'
                await asyncio.gather(*(self._answer([each]) for each in group))
                return
            log.exception("A prediction failed")
            outcomes = [BROKEN]
        for (_, tell), outcome in zip(group, outcomes, strict=True):
            try:
                tell(outcome)
            except Exception:
                log.exception("An answer could not be given")
