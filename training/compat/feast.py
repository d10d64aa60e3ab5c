"""Feast 0.67: a quick import, and how its online stores lay out their rows.

Feast can look up the rows of its own registry only, and deletes a whole view or nothing. So we read and delete rows
ourselves. SQLite has a table for each view, with a row for each entity and feature. Redis has a hash for each entity,
which all views of that entity share.
"""

import contextlib
import copy
import logging
import struct
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from feast.repo_config import RepoConfig

#: The class of an offline store that has no data.
NO_OFFLINE_STORE = "training.compat.no_offline_store.NoOfflineStore"


@contextlib.contextmanager
def quick_import() -> Iterator[None]:
    """Import Feast without the two parts that cost most: 1.3 s of CPU instead of 6.0 s in every step that needs it.

    Feast imports torch, if it is installed, to offer tensors (1.6 s), and typeguard rewrites its classes (3.1 s). We
    use neither. Has no effect when Feast has been imported already.
    """
    if "feast" in sys.modules:
        yield
        return
    from training.compat.typeguard import no_type_checks

    hide_torch = "torch" not in sys.modules
    if hide_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        with no_type_checks():
            import feast  # noqa: F401

            # It warns on every call that on-demand views are experimental, and that its registry cache is new.
            warnings.filterwarnings("ignore", category=RuntimeWarning, module="feast")
            logging.getLogger("feast").setLevel(logging.WARNING)
            yield
    finally:
        if hide_torch:
            del sys.modules["torch"]


def complete_view(view: Any, key: str, value_type: str) -> None:
    """Give `view` the column of its entity, as Feast's `apply` would. `value_type`: the name of a ValueType."""
    from feast import Field, ValueType
    from feast.types import from_value_type

    if not view.entity_columns:
        view.entity_columns = [Field(name=key, dtype=from_value_type(ValueType[value_type]))]


def prepare_online_store(config: "RepoConfig", views: Sequence[Any]) -> None:
    """Create what the online store needs for rows of `views`, such as tables."""
    from feast.infra.online_stores.helpers import get_online_store_from_config

    get_online_store_from_config(config.online_store).update(config, [], views, [], [], True)


def registrable(objects: Iterable[Any]) -> list[Any]:
    """Feast `objects`, with copies of on-demand views and services whose fields have a name and a type only.

    Feast's registry keeps no more of an on-demand view's fields. Fields with tags or descriptions would differ from
    those that Feast infers from a run of the function, so it refuses them; and from those that it reads again, so it
    could not use a service. The other objects are not copied: `FeatureStore.apply` completes them.
    """
    from feast import FeatureService
    from feast.on_demand_feature_view import OnDemandFeatureView

    found = list(objects)
    on_demand = {each.name for each in found if isinstance(each, OnDemandFeatureView)}
    for i, each in enumerate(found):
        if isinstance(each, OnDemandFeatureView):
            found[i] = view = copy.copy(each)
            view.features, view.projection = _bare(view.features), _bare_projection(view.projection)
        elif isinstance(each, FeatureService):
            found[i] = service = copy.copy(each)
            service.feature_view_projections = [
                _bare_projection(projection) if projection.name in on_demand else projection
                for projection in service.feature_view_projections
            ]
    return found


def _bare_projection(projection: Any) -> Any:
    copied = copy.copy(projection)
    copied.features = _bare(projection.features)
    return copied


def _bare(fields: Iterable[Any]) -> list[Any]:
    from feast import Field

    return [Field(name=field.name, dtype=field.dtype) for field in fields]


def sqlite_table(project: str, view: Any) -> str:
    """The SQLite table of the rows of `view`."""
    from feast.infra.online_stores.helpers import compute_table_id

    return compute_table_id(project, view, False)


def entity_key(join_key: str, value: Any) -> Any:
    """Feast's EntityKey for one protobuf `value` of a join key."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

    return EntityKey(join_keys=[join_key], entity_values=[value])


def to_values(entities: Sequence[Any], value_type: Any) -> list[Any]:
    """Python values as Feast's protobuf values. Raises TypeError, ValueError or OverflowError for unsuitable ones."""
    from feast.type_map import python_values_to_proto_values

    return python_values_to_proto_values(list(entities), value_type)


def stored_key_prefix(join_key: str) -> bytes:
    """What the keys of all entities of a join key begin with."""
    from feast.infra.key_encoding_utils import serialize_entity_key_prefix

    return serialize_entity_key_prefix([join_key])


@dataclass(frozen=True)
class StoredRows:
    """Rows of one view, one for each entity, as both stores hold them: lists of one length."""

    #: In Redis the name of the project follows.
    keys: Sequence[bytes]
    #: Feature → its values, empty where it is null.
    values: Mapping[str, Sequence[bytes]]
    #: UTC.
    times: Sequence[datetime]
    #: Feature → its values as numbers and texts.
    plain: Mapping[str, pa.ChunkedArray]

    def texts(self) -> dict[str, list[str | None]]:
        """Feature → its values as texts, which SQLite has beside the bytes, null where they are null."""
        return {
            name: _by_distinct(values, lambda some: [str(each) for each in some]) for name, values in self.plain.items()
        }


def stored_rows(config: "RepoConfig", view: Any, rows: pa.Table, time: str) -> StoredRows:
    """The `rows` of `view`: its join key, its features, and the column `time`. None of the first and last is null.

    Feast makes a message of each value and of each key, which takes longer than to write them. The bytes here are the
    same: floats and keys have the bytes that Feast gives an example, but for those of the number or the text.
    """
    [column] = view.entity_columns
    kinds = {field.name: field.dtype.to_value_type() for field in view.features}
    return StoredRows(
        keys=_keys(config, column.name, rows[column.name], column.dtype.to_value_type()),
        values={name: _values(rows[name], kind) for name, kind in kinds.items()},
        times=_by_distinct(rows[time].cast(pa.timestamp("us", "UTC")), list),
        plain={name: _plain(rows[name], kind.name) for name, kind in kinds.items()},
    )


def _keys(config: "RepoConfig", column: str, entities: pa.ChunkedArray, value_type: Any) -> list[bytes]:
    from feast.infra.key_encoding_utils import serialize_entity_key

    def made(some: Sequence[Any]) -> list[bytes]:
        keys = (entity_key(column, value) for value in to_values(some, value_type))
        version = config.entity_key_serialization_version
        return [serialize_entity_key(key, entity_key_serialization_version=version) for key in keys]

    if value_type.name == "INT64":
        [example] = made([1])
        if example.endswith(struct.pack("<q", 1)):
            return _with_numbers(example[:-8], entities.cast(pa.int64()).to_numpy().astype("<i8"))
    if value_type.name == "STRING":
        [empty, example] = made(["", "é"])
        head, text = empty[:-4], "é".encode()
        if empty == head + struct.pack("<I", 0) and example == head + struct.pack("<I", len(text)) + text:
            texts = (entity.encode() for entity in entities.to_pylist())
            return [head + struct.pack("<I", len(text)) + text for text in texts]
    return made(entities.to_pylist())


def _values(column: pa.ChunkedArray, value_type: Any) -> list[bytes]:
    """The bytes of Feast's protobuf values. NaN counts as null, as it does for Feast."""
    if value_type.name in ("FLOAT", "DOUBLE"):
        kind, width = ("<f4", 4) if value_type.name == "FLOAT" else ("<f8", 8)
        [example] = to_values([1.0], value_type)
        if (found := example.SerializeToString()).endswith(np.array(1.0, kind).tobytes()):
            numbers = column.cast(pa.float64(), safe=False).to_numpy()
            with np.errstate(over="ignore"):
                made = _with_numbers(found[:-width], numbers.astype(kind))
            for i in np.flatnonzero(np.isnan(numbers)):
                made[i] = b""
            return made
    found = _by_distinct(column, lambda some: [value.SerializeToString() for value in to_values(some, value_type)])
    return [b"" if value is None else value for value in found]


def _plain(column: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    """The values as Feast holds them: Float32 has fewer digits than the column may have. NaN is null."""
    if kind not in ("FLOAT", "DOUBLE"):
        return column
    numbers = column.cast(pa.float64(), safe=False)
    if kind == "FLOAT":
        numbers = numbers.cast(pa.float32(), safe=False).cast(pa.float64())
    return pc.if_else(pc.is_nan(numbers), None, numbers)


def _by_distinct(column: pa.ChunkedArray, made: Callable[[list[Any]], list[Any]]) -> list[Any]:
    """What `made` returns for each value, called with distinct values; None for null."""
    encoded = column.combine_chunks()
    encoded = (encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded).dictionary_encode()
    distinct = made(encoded.dictionary.to_pylist())
    return [None if i is None else distinct[i] for i in encoded.indices.to_pylist()]


def _with_numbers(head: bytes, numbers: np.ndarray) -> list[bytes]:
    """`head` followed by the bytes of each number."""
    width = numbers.dtype.itemsize
    made = np.empty((len(numbers), len(head) + width), np.uint8)
    made[:, : len(head)] = np.frombuffer(head, np.uint8)
    made[:, len(head) :] = np.ascontiguousarray(numbers).view(np.uint8).reshape(-1, width)
    found: list[bytes] = made.view(f"V{made.shape[1]}").reshape(-1).tolist()
    return found


def sqlite_time(time: datetime) -> int:
    """A row's `time` in SQLite."""
    from feast.infra.online_stores.sqlite import adapt_datetime_epoch

    return int(adapt_datetime_epoch(time.replace(tzinfo=None)))


def redis_time(time: datetime) -> bytes:
    """A row's `time` in Redis."""
    from google.protobuf.timestamp_pb2 import Timestamp

    made = Timestamp()
    made.FromDatetime(time)
    return bytes(made.SerializeToString())


class RedisRows:
    """Keys, fields and client of Feast's rows in Redis."""

    def __init__(self, config: "RepoConfig") -> None:
        from feast.infra.online_stores.redis import RedisOnlineStore

        self._config, self._store = config, RedisOnlineStore()

    def key(self, entity_key: Any) -> bytes:
        """The key of the hash of one entity."""
        [found] = self._store._generate_redis_keys_for_entities(self._config, [entity_key])
        return found

    def fields(self, view: Any, features: Iterable[str]) -> list[bytes | str]:
        """The fields of the hash that hold `features` of `view`, and last the field of the row's time."""
        return self._store._generate_hset_keys_for_features(view, list(features))[1]

    def client(self) -> Any:
        """A redis.Redis with the settings of the store."""
        return self._store._get_client(self._config.online_store)


def send_packed(client: Any, commands: Sequence[bytes]) -> None:
    """Send `commands`, packed already, to the redis.Redis `client`, in one go, and wait for all answers.

    redis-py packs each argument of a command by itself, which takes longer than all else of a write.
    Raises redis.RedisError when there is no answer, or one of them is an error.
    """
    connection = client.connection_pool.get_connection()
    try:
        connection.send_packed_command([b"".join(commands)])
        for _ in commands:
            connection.read_response()
    except BaseException:
        # Answers that were not read would be taken for those of the next command.
        connection.disconnect()
        raise
    finally:
        client.connection_pool.release(connection)


def time_field(view: str) -> str:
    """The field of the hash that holds the time of the row of `view`."""
    return f"_ts:{view}"
