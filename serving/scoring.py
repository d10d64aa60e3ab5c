"""Scores where they cost least: a quick model's on the event loop, a slow one's and large batches in threads.

ONNX Runtime takes some ten microseconds for a row, a thread's hand-over a hundred. But a model that turns out slow must
not hold up the answers of the others.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from serving.loaded_model import FEW_ROWS, LoadedModel

THREADS = 2

T = TypeVar("T")


class Scorer:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="scorer")

    def close(self) -> None:
        self._threads.shutdown(wait=True)

    async def score(self, loaded: LoadedModel, values: np.ndarray, seconds: float) -> np.ndarray:
        """As `loaded.score(values)`, within `seconds`. Raises TimeoutError, too."""
        if len(values) <= FEW_ROWS and not loaded.model.slow:
            return loaded.score(values)
        return await asyncio.wait_for(self.run(loaded.score, values), seconds)

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """`work(*args)` in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
