"""The online store's rows of a view, which Feast's interface does not list, so that some can be deleted.

Feast writes rows but deletes none, short of a whole view. The layouts are Feast's own: SQLite holds a table for each
view with a row for each entity and feature; Redis a hash for each entity, which all views of that entity share.
"""

import contextlib
import re
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feast import FeatureStore

_PAGE = 1000


def stored_keys(store: "FeatureStore", view: Any, entities: list[Any]) -> set[bytes]:
    """The keys of `entities` of `view`, as Feast writes them to either store."""
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.type_map import python_values_to_proto_values

    [column] = view.entity_columns
    version = store.config.entity_key_serialization_version
    values = python_values_to_proto_values(entities, column.dtype.to_value_type())
    keys = (EntityKey(join_keys=[column.name], entity_values=[value]) for value in values)
    return {serialize_entity_key(key, entity_key_serialization_version=version) for key in keys}


def keep_only(
    store: "FeatureStore", view: Any, keys: set[bytes], features: Iterable[str], columns: Iterable[str]
) -> int:
    """Delete the rows of `view` of other entities than `keys`, and the features that the view no longer has.

    `features` and `columns`: the view's features and entity columns, now and earlier. Returns the number of entities
    deleted.
    """
    if store.config.online_store.type == "sqlite":
        return _keep_only_sqlite(store, view, keys)
    names = [feature.name for feature in view.features]
    lost = sorted(set(features) - set(names))
    return sum(_keep_only_redis(store, view, keys, names, lost, column) for column in {*columns, *view.join_keys})


def _keep_only_sqlite(store: "FeatureStore", view: Any, keys: set[bytes]) -> int:
    from feast.infra.online_stores.helpers import compute_table_id

    table = compute_table_id(store.config.project, view, False)
    with contextlib.closing(sqlite3.connect(store.config.online_store.path, timeout=30)) as connection, connection:
        there = {key for (key,) in connection.execute(f'SELECT DISTINCT entity_key FROM "{table}"')}
        gone = [(key,) for key in there - keys]
        connection.executemany(f'DELETE FROM "{table}" WHERE entity_key = ?', gone)
        names = [feature.name for feature in view.features]
        marks = ", ".join("?" * len(names))
        connection.execute(f'DELETE FROM "{table}" WHERE feature_name NOT IN ({marks})', names)
    return len(gone)


def _keep_only_redis(
    store: "FeatureStore", view: Any, keys: set[bytes], names: list[str], lost: list[str], column: str
) -> int:
    from feast.infra.key_encoding_utils import serialize_entity_key_prefix
    from feast.infra.online_stores.redis import RedisOnlineStore

    redis, project = RedisOnlineStore(), store.config.project.encode()
    client: Any = redis._get_client(store.config.online_store)
    stamp = f"_ts:{view.name}"
    # The last field is the row's time.
    fields = redis._generate_hset_keys_for_features(view, [*names, *lost])[1]
    lost_fields = fields[len(names) : -1]
    prefix = serialize_entity_key_prefix([column])
    pattern = re.sub(rb"([*?\[\]\\])", rb"\\\1", prefix) + b"*"
    gone = 0
    with contextlib.closing(client):
        for page in _pages(client.scan_iter(match=pattern, count=_PAGE)):
            # A project's name ends its keys.
            ours = [key for key in page if key.startswith(prefix) and key.endswith(project)]
            with client.pipeline(transaction=False) as pipe:
                for key in ours:
                    pipe.hexists(key, stamp)
                there = [key for key, found in zip(ours, pipe.execute(), strict=True) if found]
            with client.pipeline(transaction=False) as pipe:
                for key in there:
                    is_gone = key.removesuffix(project) not in keys
                    gone += is_gone
                    if unwanted := fields if is_gone else lost_fields:
                        pipe.hdel(key, *unwanted)
                pipe.execute()
    return gone


def _pages(found: Iterable[bytes]) -> Iterator[list[bytes]]:
    rest = iter(found)
    while page := list(islice(rest, _PAGE)):
        yield page
