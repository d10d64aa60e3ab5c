"""Feast 0.67: a quick import, and how its online stores lay out their rows.

Feast can look up the rows of its own registry only, and deletes a whole view or nothing. So we read and delete rows
ourselves. SQLite has a table for each view, with a row for each entity and feature. Redis has a hash for each entity,
which all views of that entity share.
"""

import contextlib
import copy
import logging
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feast.repo_config import RepoConfig


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


def stored_keys(config: "RepoConfig", join_key: str, entities: Sequence[Any], value_type: Any) -> set[bytes]:
    """The keys of `entities` as both stores hold them; in Redis the name of the project follows."""
    from feast.infra.key_encoding_utils import serialize_entity_key

    version = config.entity_key_serialization_version
    keys = (entity_key(join_key, value) for value in to_values(entities, value_type))
    return {serialize_entity_key(key, entity_key_serialization_version=version) for key in keys}


def stored_key_prefix(join_key: str) -> bytes:
    """What the keys of all entities of a join key begin with."""
    from feast.infra.key_encoding_utils import serialize_entity_key_prefix

    return serialize_entity_key_prefix([join_key])


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


def time_field(view: str) -> str:
    """The field of the hash that holds the time of the row of `view`."""
    return f"_ts:{view}"
