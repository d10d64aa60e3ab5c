"""Read Feast's rows in Redis directly: its keys, its fields, its protobuf values.

`store.get_online_features` returns the same values but takes ten times as long, because each request repeats work that
is the same for all requests. A test compares the two.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from training.adapters.features.online_stores import online_config
from training.adapters.features.online_stores._feast_reader import entity_keys, feast_view
from training.adapters.features.views import NAN, View, ViewRows, view_value
from training.compat.feast import RedisRows, quick_import
from training.contract.errors import TransientError
from training.settings import StateSettings

#: One HMGET: a key and its fields.
Read = tuple[bytes, Sequence[bytes | str]]
#: How many keys of entities are cached: about 20 MB.
_CACHED_KEYS = 100_000
#: The key for a null entity. No row has it, because Feast's keys are longer.
_NULL_KEY = b""


class RedisLayout:
    """Which keys and fields hold the rows of views, and how to decode them."""

    def __init__(self, settings: StateSettings) -> None:
        with quick_import():
            from feast.protos.feast.types.Value_pb2 import Value
        from google.protobuf.timestamp_pb2 import Timestamp

        self._value, self._timestamp = Value, Timestamp
        layout = RedisRows(online_config(settings))

        def key(column: str, kind: str, entity: Any) -> bytes:
            made = entity_keys(column, kind)(entity)
            return _NULL_KEY if made is None else layout.key(made)

        self._key = lru_cache(_CACHED_KEYS)(key)
        self._layout = layout
        self._fields: dict[tuple[str, tuple[str, ...]], Sequence[bytes | str]] = {}

    def reads(self, views: Sequence[View], rows: Sequence[Any]) -> list[Read]:
        """What to read for `rows`: all rows of the first view, then all rows of the next one."""
        return [
            (self._key(view.key, view.key_type, row[view.key]), self._fields_of(view)) for view in views for row in rows
        ]

    def _fields_of(self, view: View) -> Sequence[bytes | str]:
        """The fields of a row of `view`. The last one is the time of the row."""
        wanted = (view.name, view.names)
        if wanted not in self._fields:
            self._fields[wanted] = self._layout.fields(feast_view(view), view.names)
        return self._fields[wanted]

    def decoded(self, views: Sequence[View], rows: int, answers: Sequence[Sequence[bytes | None]]) -> list[ViewRows]:
        """Decode the `answers` to `reads`. Returns one ViewRows per view."""
        return [self._decoded(answers[i * rows : (i + 1) * rows]) for i in range(len(views))]

    def _decoded(self, answers: Sequence[Sequence[bytes | None]]) -> ViewRows:
        value, timestamp = self._value.FromString, self._timestamp.FromString
        return ViewRows(
            [[view_value(value(field)) if field else NAN for field in answer[:-1]] for answer in answers],
            [float(timestamp(answer[-1]).seconds) if answer[-1] else NAN for answer in answers],
        )


class RedisReader:
    """A connection that belongs to one event loop."""

    def __init__(self, url: str, timeout: float) -> None:
        # A connection that an earlier Redis has closed is opened again at once. By default the client would wait up to
        # a second before it does, longer than a lookup may take.
        again = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
        self._client = Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=again)

    async def read(self, reads: Sequence[Read]) -> list[Any]:
        """The answers to all `reads`, from one round trip. Raises TransientError when Redis does not answer."""
        pipe = self._client.pipeline(transaction=False)
        for key, fields in reads:
            pipe.execute_command("HMGET", key, *fields)
        try:
            return await pipe.execute()
        except (RedisError, OSError) as error:
            raise TransientError(
                f"The online store did not answer: {error}", hint="Check that Redis is running."
            ) from error

    async def close(self) -> None:
        await self._client.aclose()
