"""Read views of any online store through Feast, without its registry. So a view need not be defined in this image."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

from training.adapters.features.online_stores import contract_errors, online_config
from training.adapters.features.views import NAN, View, ViewRows, view_value
from training.compat.feast import entity_key, quick_import, to_values
from training.settings import StateSettings


class OnlineReader:
    """For one thread at a time. The first read opens the connection."""

    def __init__(self, settings: StateSettings) -> None:
        with quick_import():
            from feast.infra.online_stores.helpers import get_online_store_from_config
        self._config = online_config(settings)
        self._store = get_online_store_from_config(self._config.online_store)
        self._settings = settings
        self._views: dict[View, Any] = {}

    def look_up(self, rows: Sequence[Mapping[str, Any]], views: Sequence[View]) -> list[ViewRows]:
        """Look up the entities of `rows` (events). Returns one ViewRows per view.

        Raises TransientError when the store does not answer.
        """
        with contract_errors(self._settings):
            return [self._look_up(rows, view) for view in views]

    def _look_up(self, rows: Sequence[Mapping[str, Any]], view: View) -> ViewRows:
        values: list[list[Any]] = [[NAN] * len(view.names) for _ in rows]
        stamps = [NAN] * len(rows)
        key = entity_keys(view.key, view.key_type)
        keys = {i: made for i, row in enumerate(rows) if (made := key(row[view.key])) is not None}
        if not keys:
            return ViewRows(values, stamps)
        answers = self._store.online_read(self._config, self._feast_view(view), [*keys.values()], list(view.names))
        for i, (time, found) in zip(keys, answers, strict=True):
            # For a missing row, Feast's Redis store returns the epoch as its time.
            if found and time and (stamp := float(int(time.timestamp()))):
                stamps[i] = stamp
                values[i] = [view_value(found[name]) if name in found else NAN for name in view.names]
        return ViewRows(values, stamps)

    def _feast_view(self, view: View) -> Any:
        if view not in self._views:
            made = feast_view(view)
            # SQLite has a table for each view. This creates it when nothing was written to the view yet.
            self._store.update(self._config, [], [made], [], [], True)
            self._views[view] = made
        return self._views[view]


def feast_view(view: View) -> Any:
    """A feast.FeatureView with the name and columns of `view`. It has no data: only the online store is read."""
    from feast import Entity, FeatureView, Field, FileSource, ValueType
    from feast.types import Float32

    entity = Entity(name=view.key, join_keys=[view.key], value_type=ValueType[view.key_type])
    return FeatureView(
        name=view.name,
        entities=[entity],
        ttl=timedelta(0),
        schema=[Field(name=name, dtype=Float32) for name in view.names],
        source=FileSource(name=view.name, path="none", timestamp_field="feature_timestamp"),
    )


@cache
def entity_keys(column: str, kind: str) -> Callable[[Any], Any]:
    """A function that makes Feast's EntityKey of an entity. `kind` is Feast's ValueType of the column.

    It returns None for a null and for a value that the type cannot hold. The store has no rows for those.
    """
    from feast import ValueType

    value_type = ValueType[kind]

    def key(entity: Any) -> Any:
        if entity is None or entity != entity:  # NaN: pandas has it for a null among numbers.
            return None
        try:
            [value] = to_values([entity], value_type)
        except (TypeError, ValueError, OverflowError):
            return None
        return entity_key(column, value)

    return key
