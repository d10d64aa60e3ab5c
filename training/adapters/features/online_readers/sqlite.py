"""Reads an SQLite file, for one machine, through Feast."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from training.adapters.features.online import Found, View
from training.adapters.features.online_readers import ONLINE_READERS
from training.adapters.features.reader import OnlineReader
from training.contract.errors import TransientError
from training.settings import StateSettings

#: A lookup of more rows than this may take proportionally longer.
ROWS_PER_DEADLINE = 100


@ONLINE_READERS.register("sqlite")
class SqliteReader:
    """All lookups run in a single thread, because the connection belongs to a thread."""

    def __init__(self, settings: StateSettings, seconds: float) -> None:
        self._seconds = seconds
        self._reader = OnlineReader(settings)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lookup")

    async def find(self, rows: Sequence[Mapping[str, Any]], views: Sequence[View]) -> list[Found]:
        seconds = self._seconds * max(1.0, len(rows) / ROWS_PER_DEADLINE)
        lookup = asyncio.get_running_loop().run_in_executor(self._thread, self._reader.look_up, rows, views)
        try:
            return await asyncio.wait_for(lookup, seconds)
        except TimeoutError:
            raise TransientError(f"The online store did not answer in {seconds:g} s") from None

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
