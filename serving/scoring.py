"""Runs a model where it costs least: a fast one on the event loop, a slow one and large batches in threads.

ONNX Runtime scores a row in about ten microseconds; passing it to a thread costs a hundred. But a slow model must not
delay the answers of others.
"""

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from serving.loaded_model import FEW_ROWS, LoadedModel

THREADS = 2

T = TypeVar("T")


def finite_rows(scores: np.ndarray) -> list[bool]:
    """For each row of `scores` [n] or [n, k] whether they are numbers."""
    if scores.ndim == 1:
        return [math.isfinite(score) for score in scores.tolist()]
    found: list[bool] = np.isfinite(scores).all(axis=1).tolist()
    return found


class Scorer:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="scorer")

    def close(self) -> None:
        self._threads.shutdown(wait=True)

    async def score(self, loaded: LoadedModel, values: np.ndarray, seconds: float) -> np.ndarray:
        """As `loaded.score(values)`. Raises TimeoutError when a thread takes longer than `seconds`."""
        if len(values) <= FEW_ROWS and not loaded.model.speed.slow:
            return loaded.model.score(values)
        return await asyncio.wait_for(self.run(loaded.score, values), seconds)

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Run `work(*args)` in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
