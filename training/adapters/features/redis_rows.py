"""Read Feast's rows in Redis directly: its keys, its fields, its protobuf values.

`store.get_online_features` gives the same answers but takes ten times as long, because for each request it computes
again what is the same for all. A test compares the two.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

import training.adapters.features.store as stores
from training.adapters.features.online import NAN, Found, View, number
from training.adapters.features.reader import entity_keys, feast_view
from training.compat.feast import RedisRows, quick_import
from training.contract.errors import TransientError
from training.settings import StateSettings

#: One HMGET: a key and its fields.
Read = tuple[bytes, Sequence[bytes | str]]
#: How many keys of entities are cached: about 20 MB.
REMEMBERED = 100_000
#: The key for a null entity. No row has it, because Feast's keys are longer.
NOBODY = b""


class RedisLayout:
    """Which keys and fields hold the rows of views, and how to decode them."""

    def __init__(self, settings: StateSettings) -> None:
        with quick_import():
            from feast.protos.feast.types.Value_pb2 import Value
        from google.protobuf.timestamp_pb2 import Timestamp

        self._value, self._timestamp = Value, Timestamp
        layout = RedisRows(stores.online_config(settings))

        def key(column: str, kind: str, entity: Any) -> bytes:
            made = entity_keys(column, kind)(entity)
            return NOBODY if made is None else layout.key(made)

        self._key = lru_cache(REMEMBERED)(key)
        self._layout = layout
        self._fields: dict[tuple[str, tuple[str, ...]], Sequence[bytes | str]] = {}

    def reads(self, views: Sequence[View], rows: Sequence[Any]) -> list[Read]:
        """What to read for `rows`: all rows of the first view, then all of the next one."""
        return [(self._key(view.key, view.key_type, row[view.key]), self._of(view)) for view in views for row in rows]

    def _of(self, view: View) -> Sequence[bytes | str]:
        """The fields of a row. The last one is its time."""
        wanted = (view.name, view.names)
        if wanted not in self._fields:
            self._fields[wanted] = self._layout.fields(feast_view(view), view.names)
        return self._fields[wanted]

    def found(self, views: Sequence[View], rows: int, answers: Sequence[Sequence[bytes | None]]) -> list[Found]:
        """Decode the `answers` to `reads`, one Found per view."""
        return [self._part(answers[i * rows : (i + 1) * rows]) for i in range(len(views))]

    def _part(self, answers: Sequence[Sequence[bytes | None]]) -> Found:
        value, timestamp = self._value.FromString, self._timestamp.FromString
        return Found(
            [[number(value(field)) if field else NAN for field in answer[:-1]] for answer in answers],
            [float(timestamp(answer[-1]).seconds) if answer[-1] else NAN for answer in answers],
        )


class RedisReader:
    """A connection that belongs to one event loop."""

    def __init__(self, url: str, timeout: float) -> None:
        self._client = Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)

    async def read(self, reads: Sequence[Read]) -> list[Any]:
        """The answers to all `reads`, in one round trip. Raises TransientError when Redis does not answer."""
        pipe = self._client.pipeline(transaction=False)
        for key, fields in reads:
            pipe.execute_command("HMGET", key, *fields)
        try:
            return await pipe.execute()
        except (RedisError, OSError) as error:
            raise TransientError(f"The online store did not answer: {error}", hint="Is Redis up?") from error

    async def ping(self) -> None:
        """Raises TransientError when Redis does not answer."""
        try:
            await self._client.execute_command("PING")
        except (RedisError, OSError) as error:
            raise TransientError(f"The online store did not answer: {error}", hint="Is Redis up?") from error

    async def close(self) -> None:
        await self._client.aclose()
