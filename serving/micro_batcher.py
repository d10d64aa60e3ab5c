"""Requests that arrive in the same turn of the event loop, with the same batch key, are answered as one batch.

Those that arrive before it begins, a turn later, join. No request waits for another to arrive. A batch shares what it
costs once: the arrays of features and the call of the model. Requests come here with what the online store has for
them, so those of one round trip arrive together.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any

from serving.loaded_model import FEW_ROWS
from serving.request import PredictionRequest
from serving.schema import BadRequest, Problem
from training.contract.predictions import Prediction

#: What became of a request: a prediction per row, or why there is none.
Outcome = list[Prediction] | BadRequest
#: Returns one outcome per request of a batch.
Predict = Callable[[list[PredictionRequest]], Awaitable[list[Outcome]]]

log = logging.getLogger("perennial")


class MicroBatcher:
    """Belongs to the event loop that calls it."""

    def __init__(self, predict: Predict) -> None:
        self._predict = predict
        self._waiting: dict[Hashable, list[tuple[PredictionRequest, asyncio.Future[Outcome]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: Requests of this turn and of the last turn that had any.
        self._arrived, self._arrived_before = 0, 0

    async def outcome(self, request: PredictionRequest, batch_key: Hashable) -> Outcome:
        """What became of `request`; it shares a batch with others that wait and have the same `batch_key`.

        While one request arrives per turn, it is answered at once, in the task of its caller.
        """
        loop = asyncio.get_running_loop()
        self._arrived += 1
        if self._arrived == 1:
            loop.call_soon(self._end_turn)
            if self._arrived_before <= 1:
                return await self.alone(request)
        future: asyncio.Future[Outcome] = loop.create_future()
        self._waiting.setdefault(batch_key, []).append((request, future))
        return await future

    async def alone(self, request: PredictionRequest) -> Outcome:
        """What became of `request`, answered at once and without others."""
        try:
            [outcome] = await self._predict([request])
        except Exception:
            log.exception("A prediction failed")
            return prediction_failed()
        return outcome

    def _end_turn(self) -> None:
        """Answer what waits. Callbacks run in the order they were added, so every request of the turn is there."""
        self._arrived_before, self._arrived = self._arrived, 0
        if self._waiting:
            self._start(self._answer_waiting())

    async def _answer_waiting(self) -> None:
        """Requests that have arrived since the end of the turn join."""
        waiting, self._waiting = self._waiting, {}
        batches = [batch[i : i + FEW_ROWS] for batch in waiting.values() for i in range(0, len(batch), FEW_ROWS)]
        for batch in batches[1:]:
            self._start(self._answer(batch))
        await self._answer(batches[0])

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, batch: list[tuple[PredictionRequest, asyncio.Future[Outcome]]]) -> None:
        requests = [request for request, _ in batch]
        if len(batch) == 1:
            outcomes = [await self.alone(requests[0])]
        else:
            try:
                outcomes = await self._predict(requests)
                if len(outcomes) != len(requests):  # One would get the answer of another, or wait without end.
                    raise ValueError(f"{len(requests)} requests have {len(outcomes)} outcomes")
            except Exception:  # isolate failures: retry each request alone
                outcomes = list(await asyncio.gather(*map(self.alone, requests)))
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if not future.done():  # its caller was cancelled
                future.set_result(outcome)


def prediction_failed() -> BadRequest:
    """For an error that nobody expected. The log has its traceback."""
    return BadRequest(500, Problem(error="The prediction failed; the service's log says why"))
