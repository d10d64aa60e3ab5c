"""Redis, which many machines share. It is read on the event loop, without Feast."""

import asyncio
import contextlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError

from training.adapters.features.online_stores import (
    ONLINE_STORES,
    ROWS_PER_DEADLINE,
    online_config,
    store_address,
    unavailable,
)
from training.adapters.features.online_stores._marks import CompleteViews, marks_key
from training.adapters.features.online_stores._redis_rows import Read, RedisLayout, RedisReader
from training.adapters.features.views import View, ViewRows
from training.compat import feast as compat
from training.compat.feast import StoredRows
from training.contract.errors import ConfigError, StepError, TransientError
from training.settings import StateSettings

if TYPE_CHECKING:
    from feast.repo_config import RepoConfig

_Item = TypeVar("_Item")
#: Keys per page when all keys are scanned.
_PAGE = 1000
#: Rows per round trip when rows are written: about 2 MB.
_WRITTEN = 5000


@ONLINE_STORES.register("redis")
class RedisStore:
    """See OnlineStore. Redis has one hash per entity, which all views of that entity share."""

    def __init__(self, settings: StateSettings) -> None:
        self._settings = settings

    def feast_settings(self) -> dict[str, Any]:
        parts = urlsplit(self._settings.online)
        options = [f"{parts.hostname}:{parts.port or 6379}", f"db={parts.path.strip('/') or 0}"]
        options += [f"username={parts.username}"] if parts.username else []
        options += [f"password={parts.password}"] if parts.password else []
        options += ["ssl=true"] if parts.scheme == "rediss" else []
        # By default Feast skips a row whose timestamp is already online, even when a late partition has changed its
        # values. OnlineRecord prevents that older rows replace newer ones.
        return {"type": "redis", "connection_string": ",".join(options), "skip_dedup": True}

    def contract_error(self, error: Exception) -> StepError | None:
        if isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError)):
            problem = f"The online store at {store_address(self._settings)} refused access: {error}"
            return ConfigError(problem, hint="Correct CT_ONLINE_STORE.")
        return unavailable(self._settings, error) if isinstance(error, RedisError) else None

    def write(self, config: "RepoConfig", view: Any, rows: StoredRows) -> None:
        layout, project = compat.RedisRows(config), config.project.encode()
        # As Feast: one command for all features of an entity, and its time. The last field is that of the time.
        fields = layout.fields(view, rows.values)
        head = b"*%d\r\n$4\r\nHSET\r\n" % (2 + 2 * len(fields))
        names = _packed(field.encode() if isinstance(field, str) else field for field in fields)
        times = {time: compat.redis_time(time) for time in set(rows.times)}
        columns = [*rows.values.values(), map(times.__getitem__, rows.times)]
        parts: list[Iterable[bytes]] = [repeat(head), _packed(key + project for key in rows.keys)]
        for name, values in zip(names, columns, strict=True):
            parts += [repeat(name), _packed(values)]
        # The names repeat without an end.
        commands = map(b"".join, zip(*parts, strict=False))
        with contextlib.closing(layout.client()) as client:
            for page in _pages(commands, _WRITTEN):
                compat.send_packed(client, page)

    def delete(self, config: "RepoConfig", view: Any, keys: Collection[bytes]) -> None:
        layout, project = compat.RedisRows(config), config.project.encode()
        fields = layout.fields(view, [feature.name for feature in view.features])
        with contextlib.closing(layout.client()) as client:
            for page in _pages(iter(keys), _PAGE):
                with client.pipeline(transaction=False) as pipe:
                    for key in page:
                        pipe.hdel(key + project, *fields)
                    pipe.execute()

    def keep_only(
        self, config: "RepoConfig", view: Any, keys: set[bytes], features: Iterable[str], columns: Iterable[str]
    ) -> int:
        rows = compat.RedisRows(config)
        names = [feature.name for feature in view.features]
        dropped = sorted(set(features) - set(names))
        fields = rows.fields(view, [*names, *dropped])
        # The last field is the time of the row.
        dropped_fields = fields[len(names) : -1]
        project, time_field = config.project.encode(), compat.time_field(view.name)
        removed = 0
        with contextlib.closing(rows.client()) as client:
            for column in {*columns, *view.join_keys}:
                for page in _pages(_keys(client, column, project), _PAGE):
                    kept = [key for key in page if key.removesuffix(project) in keys]
                    # Other views have entities of their own.
                    gone = _with_field(
                        client, [key for key in page if key.removesuffix(project) not in keys], time_field
                    )
                    with client.pipeline(transaction=False) as pipe:
                        for key in gone:
                            pipe.hdel(key, *fields)
                        for key in kept if dropped_fields else ():
                            pipe.hdel(key, *dropped_fields)
                        pipe.execute()
                    removed += len(gone)
        return removed

    def mark_complete(self, config: "RepoConfig", view: str, complete: bool = True) -> str:
        key, now = marks_key(config.project), datetime.now(UTC).isoformat()
        with contextlib.closing(compat.RedisRows(config).client()) as client:
            if complete:
                client.hset(key, view, now)
            else:
                client.hdel(key, view)
        return now

    def mark(self, config: "RepoConfig", view: str) -> str | None:
        with contextlib.closing(compat.RedisRows(config).client()) as client:
            found = client.hget(marks_key(config.project), view)
        return None if found is None else found.decode()

    def purge(self, config: "RepoConfig") -> None:
        """Redis overwrites its files by itself."""

    def reader(self, seconds: float, seen: Path | None = None) -> "SharedRoundTrips":
        return SharedRoundTrips(self._settings, seconds, seen)


def _packed(texts: Iterable[bytes]) -> list[bytes]:
    """Each text as an argument in Redis's protocol."""
    return [b"$%d\r\n%b\r\n" % (len(text), text) for text in texts]


def _keys(client: Any, column: str, project: bytes) -> Iterator[bytes]:
    """The keys of all entities in `column`. The name of the project is the end of a key."""
    prefix = compat.stored_key_prefix(column)
    pattern = re.sub(rb"([*?\[\]\\])", rb"\\\1", prefix) + b"*"
    for key in client.scan_iter(match=pattern, count=_PAGE):
        if key.startswith(prefix) and key.endswith(project):
            yield key


def _with_field(client: Any, keys: list[bytes], field: str) -> list[bytes]:
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hexists(key, field)
        return [key for key, exists in zip(keys, pipe.execute(), strict=True) if exists]


def _pages(items: Iterator[_Item], size: int) -> Iterator[list[_Item]]:
    while page := list(islice(items, size)):
        yield page


def _lacks_rows(answers: Sequence[Sequence[bytes | None]]) -> bool:
    """Whether an entity has no row. The last field of an answer is the time of the row."""
    return any(answer[-1] is None for answer in answers)


class _Waiting(NamedTuple):
    """A lookup of `rows` events that waits for its `reads`."""

    rows: int
    views: Sequence[View]
    reads: list[Read]
    answered: asyncio.Future[list[Any]]


class SharedRoundTrips:
    """A reader with one round trip to Redis at a time. Requests that arrive during it share the next one.

    Requests whose lookups end together are scored together. With two round trips at a time, each has fewer requests,
    and the service answers fewer per second.
    """

    def __init__(self, settings: StateSettings, seconds: float, seen: Path | None) -> None:
        self._layout, self._reader = RedisLayout(settings), RedisReader(settings.online, seconds)
        self._marks = CompleteViews(online_config(settings).project, store_address(settings), seen)
        self._seconds, self.trips = seconds, 0
        self._waiting: list[_Waiting] = []
        #: Reads while any lookup waits.
        self._trip: asyncio.Task[None] | None = None

    async def find(self, rows: Sequence[Mapping[str, Any]], views: Sequence[View]) -> list[ViewRows]:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[list[Any]] = loop.create_future()
        self._waiting.append(_Waiting(len(rows), views, self._layout.reads(views, rows), answered))
        if self._trip is None:
            self._trip = loop.create_task(self._read_waiting())
        return self._layout.decoded(views, len(rows), await answered)

    def close(self) -> None:
        if self._trip is not None:
            self._trip.cancel()

    async def _read_waiting(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._read(batch)
        finally:
            # Now, not in a callback of the next turn: a request of this turn would wait for a task that has ended.
            self._trip = None

    async def _read(self, batch: list[_Waiting]) -> None:
        seconds = self._seconds * max(1.0, sum(each.rows for each in batch) / ROWS_PER_DEADLINE)
        try:
            async with asyncio.timeout(seconds):
                answers = await self._reader.read([read for each in batch for read in each.reads])
                lost = await self._lost(batch, answers)
        except TimeoutError:
            self.trips += 1
            self._fail(batch, TransientError(f"The online store did not answer in {seconds:g} s"))
        except Exception as error:
            self.trips += 1
            self._fail(batch, error)
        else:
            self.trips += 1
            start = 0
            for each in batch:
                found = answers[start : start + len(each.reads)]
                if lost is not None and _lacks_rows(found):
                    self._fail([each], lost)
                elif not each.answered.done():
                    each.answered.set_result(found)
                start += len(each.reads)

    async def _lost(self, batch: list[_Waiting], answers: Sequence[Sequence[bytes | None]]) -> TransientError | None:
        """The error for lookups that lack rows because Redis has lost those of a view; None when it has lost none.

        Costs a round trip only when a row is missing, while a view has not been seen complete, and at times (`known`).
        """
        views = {view.name for each in batch for view in each.views}
        if self._marks.known(views) and not _lacks_rows(answers):
            return None
        names = sorted(views)
        [marks] = await self._reader.read([(self._marks.key, names)])
        return self._marks.lost(names, marks)

    def _fail(self, batch: list[_Waiting], error: Exception) -> None:
        for each in batch:
            with contextlib.suppress(asyncio.InvalidStateError):
                each.answered.set_exception(error)
