"""Requests that are there in the same turn of the event loop are answered together, in one batch.

None waits for another: alone, a request is a batch of one. Together they share what a batch costs once, the arrays of
their features, the call of the model, the round trip to the online store, and the caller's machine is woken once.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from serving.schema import BROKEN, Asked, BadRequest
from serving.slots import FEW_ROWS

#: What became of a request: a prediction per row, with the fields of schema.Prediction, or why there is none.
Outcome = list[dict[str, Any]] | BadRequest

log = logging.getLogger("perennial")


class Predict(Protocol):
    async def __call__(self, group: list[Asked]) -> list[Outcome]:
        """One outcome per request of `group`: any number of one row each, or one request."""


class Turns:
    """Belongs to the event loop that calls it."""

    def __init__(self, predict: Predict) -> None:
        self._predict = predict
        self._waiting: list[tuple[Asked, Callable[[Outcome], None]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, asked: Asked, tell: Callable[[Outcome], None]) -> None:
        """Have `asked` answered; `tell` is called with its outcome, later."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._take_turn)
        self._waiting.append((asked, tell))

    def _take_turn(self) -> None:
        waiting, self._waiting = self._waiting, []
        together = [each for each in waiting if each[0].plain]
        groups = [together[i : i + FEW_ROWS] for i in range(0, len(together), FEW_ROWS)]
        for group in [*groups, *([each] for each in waiting if not each[0].plain)]:
            task = asyncio.get_running_loop().create_task(self._answer(group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, group: list[tuple[Asked, Callable[[Outcome], None]]]) -> None:
        try:
            outcomes = await self._predict([asked for asked, _ in group])
        except Exception:
            if len(group) > 1:  # one's trouble is not the others'
                for each in group:
                    await self._answer([each])
                return
            log.exception("A prediction failed")
            outcomes = [BROKEN]
        for (_, tell), outcome in zip(group, outcomes, strict=True):
            tell(outcome)
