"""The Feast objects of a model, loaded from `feature_repo/<m>.py`."""

import hashlib
import linecache
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from training.adapters.features.online import Transform
from training.compat.feast import quick_import
from training.contract.errors import ConfigError
from training.contract.feature_definitions import (
    FeatureDefinitions,
    RequestViewDefinition,
    ViewColumn,
    ViewDefinition,
)
from training.contract.model_spec import ModelSpec

if TYPE_CHECKING:
    from feast import Entity, FeatureService


_INTEGERS = {"int8", "int16", "int32"}
#: Type of a Feast field that can be a feature → the Arrow types that it holds. Float32 and Float64 hold the same: a
#: model gets float32.
HOLDS = {
    "Float32": {"float", "double", "int64", *_INTEGERS},
    "Float64": {"float", "double", "int64", *_INTEGERS},
    "Int64": {"int64", *_INTEGERS},
    "Int32": _INTEGERS,
    "Bool": {"bool"},
}
_KEYS = {
    "INT64": {"int64", *_INTEGERS},
    "INT32": _INTEGERS,
    "STRING": {"string", "large_string"},
    "UNKNOWN": {"string", "large_string"},
}


@dataclass(frozen=True)
class Definitions:
    """What a model's file defines. Every view is over the feature table of the same name."""

    entities: list["Entity"]
    #: feast.FeatureView, each with a ttl and a FileSource.
    views: list[Any]
    #: feast.on_demand_feature_view.OnDemandFeatureView, in pandas mode.
    on_demand: list[Any]
    service: "FeatureService"

    @property
    def objects(self) -> list[Any]:
        return [*self.entities, *self.views, *self.on_demand, self.service]

    @property
    def names(self) -> list[str]:
        """The service's features in its order."""
        return [feature.name for view in self.service.feature_view_projections for feature in view.features]

    @property
    def request_columns(self) -> list[str]:
        """The columns of an event that the on-demand views take."""
        sources = [source for view in self.on_demand for source in view.source_request_sources.values()]
        return sorted({field.name for source in sources for field in source.schema})


def definitions_digest(folder: Path, spec: ModelSpec) -> str:
    """SHA-256 of the files that define the features, first 16 hex digits. Does not import Feast."""
    found = hashlib.sha256()
    for path in (_path(folder, spec, "py"), _path(folder, spec, "sql")):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def load_definitions(folder: Path, spec: ModelSpec) -> Definitions:
    """A fresh copy of the objects in `<folder>/<m>.py`; the caller may point their sources elsewhere.

    Raises ConfigError when the file is missing, fails, or does not define what the spec names.
    """
    found = _objects(folder, spec)
    from feast import Entity, FeatureService, FeatureView
    from feast.on_demand_feature_view import OnDemandFeatureView

    path = _path(folder, spec, "py")
    views = [o for o in found if isinstance(o, FeatureView)]
    services = {o.name: o for o in found if isinstance(o, FeatureService)}
    entities = {o.name: o for o in found if isinstance(o, Entity)}
    keys = {view.name: [entities[name].join_key for name in view.entities] for view in views}
    if keys != {table: [entity] for table, entity in spec.features.tables.items()}:
        problem = f"{path} defines feature views with the join keys {keys}, the spec has {spec.features.tables}"
        raise ConfigError(problem, hint="Every feature table needs a view of its name, keyed by its entity.")
    if endless := [view.name for view in views if not view.ttl]:
        raise ConfigError(
            f"{path}: the feature views {endless} have no ttl",
            hint="Write `ttl=timedelta(days=7)`: how long a feature row counts when no newer one comes.",
        )
    if spec.features.service not in services:
        problem = f"{path} defines no feature service {spec.features.service!r}, but {sorted(services)}"
        raise ConfigError(problem, hint="Make features.service and the definitions agree.")
    on_demand = [o for o in found if isinstance(o, OnDemandFeatureView)]
    definitions = Definitions(list(entities.values()), views, on_demand, services[spec.features.service])
    _check_service(definitions, path)
    return definitions


def _check_service(definitions: Definitions, path: Path) -> None:
    """Raises ConfigError when the service has a feature that no view of the file makes, or one name twice."""
    made = {view.name: {f.name for f in view.features} for view in (*definitions.views, *definitions.on_demand)}
    for view in definitions.service.feature_view_projections:
        if lost := sorted({f.name for f in view.features} - made.get(view.name, set())):
            problem = f"{path}: the feature service takes {lost} of {view.name!r}, which no view of this file makes"
            raise ConfigError(problem, hint="Define the view in this file, or take the features out of the service.")
    names = definitions.names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        problem = f"{path}: the feature service has the features {twice} twice"
        raise ConfigError(problem, hint="Rename one of them: models know features by name alone.")


def check_schema(definitions: Definitions, folder: Path, spec: ModelSpec, table: str, columns: pa.Schema) -> None:
    """Raises the first of `schema_mistakes`."""
    for mistake in schema_mistakes(definitions, folder, spec, table, columns):
        raise mistake


def schema_mistakes(
    definitions: Definitions, folder: Path, spec: ModelSpec, table: str, columns: pa.Schema
) -> Iterator[ConfigError]:
    """Compare the `columns` that the SQL of `table` yields (FeatureQueries.schema) with its feature view.

    A ConfigError when one has features that the other lacks, and when a type would lose values on its way: every
    feature becomes a number, and a view's type must hold all values of the SQL's.
    """
    [view] = [view for view in definitions.views if view.name == table]
    sql, py = _path(folder, spec, "sql"), _path(folder, spec, "py")
    key = spec.features.tables[table]
    made = {field.name: str(field.type) for field in columns if field.name not in ("feature_timestamp", "day")}
    named = {field.name: str(field.dtype) for field in view.features}
    [entity] = [entity for entity in definitions.entities if entity.name in view.entities]
    kind, wanted = made.pop(key), entity.value_type.name
    if kind not in _KEYS.get(wanted, {kind}):
        problem = f"{sql} yields {key!r} of {table!r} as {kind}, {py} says that entity {entity.name!r} is {wanted}"
        yield ConfigError(problem, hint="Give the Entity the value_type of the column.")
    if unnamed := [name for name in made if name not in named]:
        problem = f"Query {table!r} of {sql} yields {unnamed}, which the feature view in {py} does not have"
        yield ConfigError(problem, hint="Add them to the view's schema, or take them out of the SQL.")
    if lost := [name for name in named if name not in made]:
        problem = f"The feature view {table!r} in {py} has {lost}, which its query in {sql} does not yield"
        yield ConfigError(problem, hint="Add them to the SQL, or take them out of the view.")
    if odd := {name: kind for name, kind in named.items() if kind not in HOLDS}:
        yield ConfigError(f"{py}: features of {table!r} have the types {odd}", hint=f"Models take {sorted(HOLDS)}.")
    both = [name for name, kind in named.items() if name in made and kind in HOLDS]
    if loses := [
        f"{name} ({made[name]} in the SQL, {named[name]} in the view)"
        for name in both
        if made[name] not in HOLDS[named[name]]
    ]:
        problem = f"{sql} and {py} disagree on the types in {table!r}: {', '.join(loses)}"
        yield ConfigError(problem, hint="Cast in the SQL, for example ::FLOAT for Float32 and ::BIGINT for Int64.")


def described(definitions: Definitions, spec: ModelSpec) -> FeatureDefinitions:
    """The definitions as an artifact holds them: those of all features of the service."""
    entities = {entity.name: entity for entity in definitions.entities}
    views = tuple(
        ViewDefinition(
            name=view.name,
            entity=spec.features.tables[view.name],
            entity_type=_entity_type(view, entities[view.entities[0]], spec),
            ttl_seconds=view.ttl.total_seconds(),
            columns=tuple(ViewColumn(name=f.name, type=f.dtype.to_value_type().name) for f in view.features),
        )
        for view in definitions.views
    )
    request_views = tuple(
        RequestViewDefinition(
            name=view.name,
            features=tuple(feature.name for feature in view.features),
            event_columns=tuple(
                field.name for source in view.source_request_sources.values() for field in source.schema
            ),
            source_features=tuple(
                f.name for source in view.source_feature_view_projections.values() for f in source.features
            ),
        )
        for view in definitions.on_demand
    )
    return FeatureDefinitions(views=views, request_views=request_views).needed_for(definitions.names)


@dataclass(frozen=True)
class RequestCode:
    """The functions of the request views."""

    #: SHA-256 of the file that they come from.
    digest: str
    #: Request view → its function.
    functions: Mapping[str, Transform]


def request_code(folder: Path, spec: ModelSpec) -> RequestCode:
    """The request views' functions in `<folder>/<m>.py` as it is now.

    What else it defines does not matter: it may be of another version than the caller's. Raises ConfigError when the
    file is missing or fails.
    """
    source = _path(folder, spec, "py").read_bytes()
    found = _objects(folder, spec, source)
    from feast.on_demand_feature_view import OnDemandFeatureView

    functions = functions_of(o for o in found if isinstance(o, OnDemandFeatureView))
    return RequestCode(hashlib.sha256(source).hexdigest(), functions)


def functions_of(on_demand: Iterable[Any]) -> dict[str, Transform]:
    return {view.name: view.feature_transformation.udf for view in on_demand}


def _entity_type(view: Any, entity: Any, spec: ModelSpec) -> str:
    """Feast's ValueType of the view's key: its field's, its entity's, or that of the event column."""
    fields = {field.name: field.dtype.to_value_type().name for field in view.entity_columns}
    if entity.join_key in fields:
        return fields[entity.join_key]
    declared = entity.value_type.name
    return declared if declared != "UNKNOWN" else _VALUE_TYPES[spec.request_columns[entity.join_key].type]


#: Type of a column in the model spec → Feast's ValueType.
_VALUE_TYPES = {
    "int64": "INT64",
    "float64": "DOUBLE",
    "string": "STRING",
    "bool": "BOOL",
    "timestamp": "UNIX_TIMESTAMP",
}


def _objects(folder: Path, spec: ModelSpec, source: bytes | None = None) -> list[Any]:
    """All objects in the model's file, made anew."""
    with quick_import():
        import feast  # noqa: F401
    path = _path(folder, spec, "py")
    module = ModuleType(f"perennial_features_{spec.name}")
    module.__file__ = str(path)
    # Feast keeps the source of on-demand views: not lines of the file as this process loaded it before.
    linecache.checkcache(str(path))
    try:
        # Not by a loader: its cache takes a file of the same size and second for the same file.
        exec(compile(path.read_bytes() if source is None else source, path, "exec"), vars(module))
    except Exception as error:
        raise ConfigError(f"{path} failed: {type(error).__name__}: {error}", hint="Correct the definitions.") from error
    return list(vars(module).values())


def _path(folder: Path, spec: ModelSpec, ending: str) -> Path:
    path = folder / f"{spec.name}.{ending}"
    if not path.is_file():
        raise ConfigError(f"No feature definitions at {path}", hint="A model is a spec, a .py and a .sql file.")
    return path
