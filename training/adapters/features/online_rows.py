"""Delete rows of a view from the online store. Feast can only delete all rows of a view.

training/compat/feast.py describes how the stores hold the rows.
"""

import contextlib
import re
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from training.compat import feast as compat

if TYPE_CHECKING:
    from feast import FeatureStore

_PAGE = 1000


def stored_keys(store: "FeatureStore", view: Any, entities: list[Any]) -> set[bytes]:
    """The keys of `entities` of `view`, as Feast writes them to either store."""
    [column] = view.entity_columns
    return compat.stored_keys(store.config, column.name, entities, column.dtype.to_value_type())


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
    table = compat.sqlite_table(store.config.project, view)
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
    layout, project = compat.RedisRows(store.config), store.config.project.encode()
    client = layout.client()
    stamp = compat.time_field(view.name)
    # The last field is the row's time.
    fields = layout.fields(view, [*names, *lost])
    lost_fields = fields[len(names) : -1]
    prefix = compat.stored_key_prefix(column)
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
