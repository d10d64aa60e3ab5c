"""Feast's rows in Redis, read without Feast's code around them: its keys, its fields, its protobuf values.

`store.get_online_features` answers the same, in ten times the time: it works out anew for each request what is the same
for all. A test holds the two equal.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from training.adapters.features import store as stores
from training.adapters.features.definitions import quick_feast_import
from training.adapters.features.online import NAN, Found, View, number
from training.adapters.features.reader import entity_keys, feast_view
from training.contract.errors import TransientError
from training.settings import StateSettings

#: One HMGET: a key and its fields.
Read = tuple[bytes, Sequence[bytes | str]]
#: Keys of entities that are remembered: some 20 MB.
REMEMBERED = 100_000
#: The key of an entity that has none. No row has it: Feast's keys are longer.
NOBODY = b""


class RedisLayout:
    """Where Feast keeps the rows of views, and what they say."""

    def __init__(self, settings: StateSettings) -> None:
        with quick_feast_import():
            from feast.infra.online_stores.redis import RedisOnlineStore
            from feast.protos.feast.types.Value_pb2 import Value
        from google.protobuf.timestamp_pb2 import Timestamp

        self._value, self._timestamp = Value, Timestamp
        redis, config = RedisOnlineStore(), stores.online_config(settings)

        def key(column: str, kind: str, entity: Any) -> bytes:
            made = entity_keys(column, kind)(entity)
            if made is None:
                return NOBODY
            [found] = redis._generate_redis_keys_for_entities(config, [made])
            return found

        self._key = lru_cache(REMEMBERED)(key)
        self._redis = redis
        self._fields: dict[tuple[str, tuple[str, ...]], Sequence[bytes | str]] = {}

    def reads(self, views: Sequence[View], rows: Sequence[Any]) -> list[Read]:
        """What to read for `rows`: view by view, in each row by row."""
        return [(self._key(view.key, view.key_type, row[view.key]), self._of(view)) for view in views for row in rows]

    def _of(self, view: View) -> Sequence[bytes | str]:
        """The fields of a row; its time is the last."""
        wanted = (view.name, view.names)
        if wanted not in self._fields:
            self._fields[wanted] = self._redis._generate_hset_keys_for_features(feast_view(view), list(view.names))[1]
        return self._fields[wanted]

    def found(self, views: Sequence[View], rows: int, answers: Sequence[Sequence[bytes | None]]) -> list[Found]:
        """What the `answers` to `reads` say."""
        return [self._part(answers[i * rows : (i + 1) * rows]) for i in range(len(views))]

    def _part(self, answers: Sequence[Sequence[bytes | None]]) -> Found:
        value, timestamp = self._value.FromString, self._timestamp.FromString
        return Found(
            [[number(value(field)) if field else NAN for field in answer[:-1]] for answer in answers],
            [float(timestamp(answer[-1]).seconds) if answer[-1] else NAN for answer in answers],
        )


class RedisReader:
    """A connection of one event loop. Not for use from another."""

    def __init__(self, url: str, timeout: float) -> None:
        self._client = Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)

    async def read(self, reads: Sequence[Read]) -> list[Any]:
        """Answers to all `reads`, in one round trip. Raises TransientError."""
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
