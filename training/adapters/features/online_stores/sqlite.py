"""An SQLite file, for one machine. It is read through Feast."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.adapters.features.online_stores import (
    ONLINE_STORES,
    ROWS_PER_DEADLINE,
    contract_errors,
    store_address,
    unavailable,
)
from training.adapters.features.online_stores._feast_reader import OnlineReader
from training.adapters.features.views import View, ViewRows
from training.compat.feast import sqlite_table
from training.contract.errors import ConfigError, StepError, TransientError
from training.settings import StateSettings

if TYPE_CHECKING:
    from feast.repo_config import RepoConfig

#: Seconds to wait for another process's lock on the file.
_LOCK_TIMEOUT = 30


@ONLINE_STORES.register("sqlite")
class SqliteStore:
    """See OnlineStore. The SQLite file has one table per view, with one row per entity and feature."""

    def __init__(self, settings: StateSettings) -> None:
        self._settings = settings

    def feast_settings(self) -> dict[str, Any]:
        path = self._settings.online
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # In WAL mode readers do not wait for a writer. The file keeps the mode.
        with (
            contract_errors(self._settings),
            contextlib.closing(sqlite3.connect(path, timeout=_LOCK_TIMEOUT)) as connection,
        ):
            connection.execute("PRAGMA journal_mode = WAL")
        return {"type": "sqlite", "path": path}

    def contract_error(self, error: Exception) -> StepError | None:
        if isinstance(error, sqlite3.OperationalError):
            return unavailable(self._settings, error)
        if isinstance(error, sqlite3.DatabaseError):
            problem = f"The online store at {store_address(self._settings)} is not an SQLite database: {error}"
            return ConfigError(problem, hint="Correct CT_ONLINE_STORE.")
        return None

    def keep_only(
        self, config: "RepoConfig", view: Any, keys: set[bytes], features: Iterable[str], columns: Iterable[str]
    ) -> int:
        table, path = sqlite_table(config.project, view), config.online_store.path
        with contextlib.closing(sqlite3.connect(path, timeout=_LOCK_TIMEOUT)) as connection, connection:
            stored = {key for (key,) in connection.execute(f'SELECT DISTINCT entity_key FROM "{table}"')}
            removed = [(key,) for key in stored - keys]
            connection.executemany(f'DELETE FROM "{table}" WHERE entity_key = ?', removed)
            names = [feature.name for feature in view.features]
            marks = ", ".join("?" * len(names))
            connection.execute(f'DELETE FROM "{table}" WHERE feature_name NOT IN ({marks})', names)
        return len(removed)

    def mark_complete(self, config: "RepoConfig", view: str, complete: bool = True) -> None:
        """Does nothing: a file does not come back empty when a server restarts."""

    def reader(self, seconds: float, seen: Path | None = None) -> "SqliteReader":
        return SqliteReader(self._settings, seconds)


class SqliteReader:
    """All lookups run in a single thread, because the connection belongs to a thread."""

    def __init__(self, settings: StateSettings, seconds: float) -> None:
        self._seconds, self.trips = seconds, 0
        self._reader = OnlineReader(settings)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lookup")

    async def find(self, rows: Sequence[Mapping[str, Any]], views: Sequence[View]) -> list[ViewRows]:
        seconds = self._seconds * max(1.0, len(rows) / ROWS_PER_DEADLINE)
        lookup = asyncio.get_running_loop().run_in_executor(self._thread, self._reader.look_up, rows, views)
        try:
            return await asyncio.wait_for(lookup, seconds)
        except TimeoutError:
            raise TransientError(f"The online store did not answer in {seconds:g} s") from None
        finally:
            self.trips += 1

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
