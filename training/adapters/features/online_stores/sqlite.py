"""An SQLite file, for one machine. It is read through Feast."""

import asyncio
import contextlib
import math
import sqlite3
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from training.adapters.features.online_stores import (
    ONLINE_STORES,
    ROWS_PER_DEADLINE,
    contract_errors,
    online_config,
    store_address,
    unavailable,
)
from training.adapters.features.online_stores._feast_reader import OnlineReader
from training.adapters.features.online_stores._marks import CompleteViews
from training.adapters.features.views import View, ViewRows
from training.compat.feast import StoredRows, sqlite_table, sqlite_time
from training.contract.errors import ConfigError, StepError, TransientError
from training.settings import StateSettings

if TYPE_CHECKING:
    from feast.repo_config import RepoConfig

#: Seconds to wait for another process's lock on the file.
_LOCK_TIMEOUT = 30
#: The table of the marks of `mark_complete`.
_MARKS = "perennial_complete"


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

    def write(self, config: "RepoConfig", view: Any, rows: StoredRows) -> None:
        # One statement writes all features of an entity. In the order of the keys, neighbours share pages of the file.
        values = ", ".join(
            f"(?1, {_text(name)}, ?{2 * i + 3}, ?{2 * i + 4}, ?2, NULL)" for i, name in enumerate(rows.values)
        )
        columns = ("value", "value_text", "event_ts", "created_ts")
        sql = (
            f'INSERT INTO "{sqlite_table(config.project, view)}" (entity_key, feature_name, {", ".join(columns)}) '
            f"VALUES {values} ON CONFLICT (entity_key, feature_name) DO UPDATE SET "
            + ", ".join(f"{column} = excluded.{column}" for column in columns)
        )
        times, texts = {time: sqlite_time(time) for time in set(rows.times)}, rows.texts()
        parts = [part for name in rows.values for part in (rows.values[name], texts[name])]
        arguments = zip(rows.keys, map(times.__getitem__, rows.times), *parts, strict=True)
        with self._transaction(config) as connection:
            connection.executemany(sql, sorted(arguments, key=itemgetter(0)))

    def delete(self, config: "RepoConfig", view: Any, keys: Collection[bytes]) -> None:
        with self._transaction(config) as connection:
            sql = f'DELETE FROM "{sqlite_table(config.project, view)}" WHERE entity_key = ?'
            connection.executemany(sql, [(key,) for key in keys])

    def keep_only(
        self, config: "RepoConfig", view: Any, keys: set[bytes], features: Iterable[str], columns: Iterable[str]
    ) -> int:
        table = sqlite_table(config.project, view)
        names = [feature.name for feature in view.features]
        with self._transaction(config) as connection:
            # The rows of `keys` are there. So if there are as many as those have, there are no others.
            if connection.execute(f'SELECT count(*) FROM "{table}"').fetchone() == (len(keys) * len(names),):
                return 0
            stored = {key for (key,) in connection.execute(f'SELECT DISTINCT entity_key FROM "{table}"')}
            removed = [(key,) for key in stored - keys]
            connection.executemany(f'DELETE FROM "{table}" WHERE entity_key = ?', removed)
            marks = ", ".join("?" * len(names))
            connection.execute(f'DELETE FROM "{table}" WHERE feature_name NOT IN ({marks})', names)
        return len(removed)

    def mark_complete(self, config: "RepoConfig", view: str, complete: bool = True) -> str:
        now = datetime.now(UTC).isoformat()
        with self._transaction(config) as connection:
            connection.execute(f"CREATE TABLE IF NOT EXISTS {_MARKS} (view TEXT PRIMARY KEY, mark TEXT)")
            connection.execute(f"DELETE FROM {_MARKS} WHERE view = ?", [view])
            if complete:
                connection.execute(f"INSERT INTO {_MARKS} VALUES (?, ?)", [view, now])
        return now

    def mark(self, config: "RepoConfig", view: str) -> str | None:
        return _marks(config.online_store.path).get(view)

    def purge(self, config: "RepoConfig") -> None:
        with contextlib.closing(sqlite3.connect(config.online_store.path, timeout=_LOCK_TIMEOUT)) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextlib.contextmanager
    def _transaction(self, config: "RepoConfig") -> Iterator[sqlite3.Connection]:
        path = config.online_store.path
        with contextlib.closing(sqlite3.connect(path, timeout=_LOCK_TIMEOUT)) as connection, connection:
            yield connection

    def reader(self, seconds: float, seen: Path | None = None) -> "SqliteReader":
        return SqliteReader(self._settings, seconds, seen)


def _marks(path: str) -> dict[str, str]:
    """View → what `mark_complete` has noted."""
    with contextlib.closing(sqlite3.connect(path, timeout=_LOCK_TIMEOUT)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [_MARKS]).fetchone():
            return {}
        return dict(connection.execute(f"SELECT view, mark FROM {_MARKS}").fetchall())


def _text(name: str) -> str:
    """`name` as a text in SQL."""
    return "'" + name.replace("'", "''") + "'"


class _Waiting(NamedTuple):
    """A lookup of `rows` events that waits for the thread."""

    rows: Sequence[Mapping[str, Any]]
    views: Sequence[View]
    found: "Future[list[ViewRows]]"


class SqliteReader:
    """All lookups run in a single thread, because the connection belongs to a thread.

    Those that arrive during a lookup, of the same views, share the next one.
    """

    def __init__(self, settings: StateSettings, seconds: float, seen: Path | None) -> None:
        self._seconds, self.trips = seconds, 0
        self._settings, self._reader = settings, OnlineReader(settings)
        self._marks = CompleteViews(online_config(settings).project, store_address(settings), seen)
        self._waiting: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lookup")

    async def find(self, rows: Sequence[Mapping[str, Any]], views: Sequence[View]) -> list[ViewRows]:
        seconds = self._seconds * max(1.0, len(rows) / ROWS_PER_DEADLINE)
        found: Future[list[ViewRows]] = Future()
        self._waiting.append(_Waiting(rows, views, found))
        self._thread.submit(self._look_up_waiting)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(found), seconds)
        except TimeoutError:
            self.trips += 1
            raise TransientError(f"The online store did not answer in {seconds:g} s") from None

    def _look_up_waiting(self) -> None:
        """Answer all lookups that wait. Those of other calls of this method then find none."""
        groups: dict[tuple[View, ...], list[_Waiting]] = {}
        while self._waiting:
            each = self._waiting.popleft()
            if each.found.set_running_or_notify_cancel():
                groups.setdefault(tuple(each.views), []).append(each)
        for group in groups.values():
            self._answer(group)

    def _answer(self, group: list[_Waiting]) -> None:
        try:
            found = self._look_up([row for each in group for row in each.rows], group[0].views)
        except Exception as error:
            self.trips += 1
            if len(group) > 1 and not isinstance(error, TransientError):
                for each in group:  # isolate failures
                    self._answer([each])
                return
            for each in group:
                each.found.set_exception(error)
            return
        self.trips += 1
        start = 0
        for each in group:
            end = start + len(each.rows)
            each.found.set_result([ViewRows(part.values[start:end], part.stamps[start:end]) for part in found])
            start = end

    def _look_up(self, rows: Sequence[Mapping[str, Any]], views: Sequence[View]) -> list[ViewRows]:
        found = self._reader.look_up(rows, views)
        names = sorted({view.name for view in views})
        lacking = any(math.isnan(stamp) for each in found for stamp in each.stamps)
        if lacking or not self._marks.known(names):
            with contract_errors(self._settings):
                marks = _marks(self._settings.online)
            lost = self._marks.lost(names, [marks[name].encode() if name in marks else None for name in names])
            if lost is not None and lacking:
                raise lost
        return found

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
