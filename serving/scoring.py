"""Scores where they cost least: a quick model's on the event loop, a slow one's and large batches in threads.

ONNX Runtime takes some ten microseconds for a row, a thread's hand-over a hundred. But a model that turns out slow must
not hold up the answers of the others.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from serving.slots import Slot
from training.contract.errors import DataContractError

#: More rows than this are scored in a thread.
LOOP_ROWS = 16
#: A version goes to the threads when even the quickest of so many calls took longer than this; back below a fourth. The
#: quickest, because on a busy machine any call may have been made to wait.
CALLS, SLOW_SECONDS = 8, 0.002
THREADS = 2

T = TypeVar("T")


class Scorer:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="scorer")
        #: Calls since the last judgement, and the seconds of the quickest.
        self._quickest: dict[tuple[int, str], tuple[int, float]] = {}
        self._slow: set[tuple[int, str]] = set()

    def close(self) -> None:
        self._threads.shutdown(wait=True)

    async def score(self, slot: Slot, values: np.ndarray, seconds: float) -> np.ndarray:
        """Scores of `values`, all features of the service, within `seconds`.

        Raises DataContractError for scores that are not numbers, TimeoutError, and what the model raises.
        """
        key = (slot.version, slot.digest)
        if len(values) <= LOOP_ROWS and key not in self._slow:
            return self._timed(key, slot, values)
        return await asyncio.wait_for(self.run(self._timed, key, slot, values), seconds)

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """`work(*args)` in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    def _timed(self, key: tuple[int, str], slot: Slot, values: np.ndarray) -> np.ndarray:
        began = time.perf_counter()
        scores = score(slot, values)
        if len(values) <= LOOP_ROWS:
            self._note(key, time.perf_counter() - began)
        return scores

    def _note(self, key: tuple[int, str], seconds: float) -> None:
        calls, quickest = self._quickest.get(key, (0, seconds))
        calls, quickest = calls + 1, min(quickest, seconds)
        if calls < CALLS:
            self._quickest[key] = (calls, quickest)
            return
        self._quickest.pop(key, None)
        if quickest > SLOW_SECONDS:
            self._slow.add(key)
        elif quickest < SLOW_SECONDS / 4:
            self._slow.discard(key)


def score(slot: Slot, values: np.ndarray) -> np.ndarray:
    """Scores of `values` [n, all features of the service]. Raises DataContractError when one is not a number."""
    scores = slot.model.score(values[:, slot.columns])
    if np.count_nonzero(np.isfinite(scores)) != len(scores):
        raise DataContractError(f"Version {slot.version} gave scores that are not numbers", hint="Roll back.")
    return scores
