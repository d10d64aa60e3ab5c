"""The Feast objects of a source, made from declared tables or loaded from `feature_repo/<source>.py`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.adapters.features.declared_views import GENERATED, declared_objects
from training.adapters.features.definitions_file import definition_objects, definitions_path
from training.contract.errors import ConfigError
from training.contract.feature_definitions import (
    FeatureDefinitions,
    RequestViewDefinition,
    ViewColumn,
    ViewDefinition,
)
from training.contract.names import more_than_once
from training.contract.source_spec import SourceSpec

if TYPE_CHECKING:
    from feast import Entity, FeatureService


@dataclass(frozen=True)
class Definitions:
    """What a source's spec and file define. Every view reads the feature table of the same name."""

    entities: list["Entity"]
    #: feast.FeatureView, each with a ttl and a FileSource.
    views: list[Any]
    #: feast.on_demand_feature_view.OnDemandFeatureView, in pandas mode.
    on_demand: list[Any]
    #: Name → service.
    services: dict[str, "FeatureService"]
    #: The columns of the event that are features as they are.
    event_columns: tuple[str, ...] = ()

    @property
    def objects(self) -> list[Any]:
        return [*self.entities, *self.views, *self.on_demand, *self.services.values()]

    @property
    def names(self) -> list[str]:
        """All features: the event's columns, then those of the views and of the request views, each in its order."""
        made = [feature.name for view in (*self.views, *self.on_demand) for feature in view.features]
        return [*self.event_columns, *made]

    @property
    def may_be_null(self) -> dict[str, list[str]]:
        """View → its features that may be null in the feature table."""
        return {
            view.name: [field.name for field in view.features if _column(field).may_be_missing] for view in self.views
        }

    @property
    def request_columns(self) -> list[str]:
        """The event columns that the on-demand views take."""
        sources = [source for view in self.on_demand for source in view.source_request_sources.values()]
        return sorted({field.name for source in sources for field in source.schema})


class JoinKeyError(ConfigError):
    """The views of some tables have another key than the entity that the spec gives the table."""

    def __init__(self, keys: Mapping[str, list[str]], spec: SourceSpec, path: Path) -> None:
        self.tables = set(keys)
        said = [f"{table} by {', '.join(key)} instead of {spec.entities[table]}" for table, key in keys.items()]
        hint = "Give the view the entity that features.tables.<table>.entity names in the spec, or correct it there."
        super().__init__(f"{path}: feature views are keyed by another entity than the spec's: {'; '.join(said)}", hint)


def load_definitions(folder: Path, spec: SourceSpec) -> Definitions:
    """New objects, of the spec's declared tables and from `<folder>/<source>.py`. The caller may change their sources.

    Raises ConfigError when the file fails, or does not define what the spec names.
    """
    found = definition_objects(folder, spec)
    from feast import Entity, FeatureService, FeatureView
    from feast.on_demand_feature_view import OnDemandFeatureView

    path = definitions_path(folder, spec, "py")
    declared_entities, declared = declared_objects(spec)
    written = [o for o in found if isinstance(o, FeatureView) and o.tags != GENERATED]
    if twice := sorted({view.name for view in declared} & {view.name for view in written}):
        problem = f"{path} defines the feature views {twice}, whose tables have aggregations in the spec"
        raise ConfigError(
            problem, hint="Remove them: their views are generated. declared_views(__file__) returns them."
        )
    named = {view.name: view for view in (*declared, *written)}
    # In the order of the spec. Views that the spec does not name come last, for the comparison below.
    views = [named.pop(table) for table in spec.entities if table in named] + list(named.values())
    services = {o.name: o for o in found if isinstance(o, FeatureService)}
    entities = {o.name: o for o in (*found, *declared_entities) if isinstance(o, Entity)}
    _check_tables([view.name for view in views], spec, path)
    keys = {view.name: [entities[name].join_key for name in view.entities] for view in views}
    if wrong := {table: keys[table] for table, entity in spec.entities.items() if keys[table] != [entity]}:
        raise JoinKeyError(wrong, spec, path)
    if without_ttl := [view.name for view in views if not view.ttl]:
        raise ConfigError(
            f"{path}: the feature views {without_ttl} have no ttl",
            hint="Write for example `ttl=timedelta(days=7)`: how long a feature row is used when no newer one comes.",
        )
    on_demand = [o for o in found if isinstance(o, OnDemandFeatureView)]
    definitions = Definitions(list(entities.values()), views, on_demand, services, spec.features.event_columns)
    _check_names(definitions, path)
    return definitions


def _check_tables(views: list[str], spec: SourceSpec, path: Path) -> None:
    """Raises ConfigError unless `views` and the feature tables of the spec have the same names."""
    if lacking := [table for table in spec.entities if table not in views]:
        problem = f"{path} has no feature views {lacking}"
        if not path.is_file():
            problem = f"{path} does not exist, but the tables {lacking} have no aggregations and need feature views"
        hint = "Define a view with the name of each of these tables, or declare aggregations in the spec."
        raise ConfigError(problem, hint)
    if more := [view for view in views if view not in spec.entities]:
        problem = f"{path} defines the feature views {more}, which are not among features.tables: {list(spec.entities)}"
        raise ConfigError(problem, hint="Correct the name of the view, or add the table to the spec.")


def _check_names(definitions: Definitions, path: Path) -> None:
    """Raises ConfigError when two views have one feature, or a service has a feature that no view defines."""
    names = definitions.names
    if repeated := sorted(more_than_once(names)):
        problem = f"{path}: the feature views have the features {repeated} twice"
        raise ConfigError(problem, hint="Rename one of them. Models identify features by name alone.")
    made = {view.name: {f.name for f in view.features} for view in (*definitions.views, *definitions.on_demand)}
    for service in definitions.services.values():
        for view in service.feature_view_projections:
            if undefined := sorted({f.name for f in view.features} - made.get(view.name, set())):
                problem = (
                    f"{path}: the feature service {service.name} has {undefined} of {view.name!r}, which no view in "
                    "this file defines"
                )
                fix = "Define the view in this file, or remove the features from the service."
                raise ConfigError(problem, hint=fix)


def described(definitions: Definitions, spec: SourceSpec) -> FeatureDefinitions:
    """The definitions of all features, as an artifact holds them."""
    entities = {entity.name: entity for entity in definitions.entities}
    views = tuple(
        ViewDefinition(
            name=view.name,
            entity=spec.entities[view.name],
            entity_type=_entity_type(view, entities[view.entities[0]], spec),
            ttl_seconds=view.ttl.total_seconds(),
            columns=tuple(_column(field) for field in view.features),
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
            may_be_missing=tuple(field.name for field in view.features if default_of(field) is None),
        )
        for view in definitions.on_demand
    )
    return FeatureDefinitions(views=views, request_views=request_views, event_features=definitions.event_columns)


def _column(field: Any) -> ViewColumn:
    kind = field.dtype.to_value_type().name
    return ViewColumn(name=field.name, type=kind, default=None if kind == "STRING" else default_of(field))


def default_of(field: Any) -> float | None:
    """The value of a feature (feast.Field) when there is none: its tag `default`, else 0. None: it is missing.

    Raises ConfigError when the tag is neither a number nor `null`.
    """
    text = field.tags.get("default", "0")
    try:
        return None if text == "null" else float(text)
    except ValueError as error:
        problem = f"The feature {field.name} has the tag default={text!r}"
        raise ConfigError(problem, hint="Write a number, or null where the feature is missing then.") from error


def _entity_type(view: Any, entity: Any, spec: SourceSpec) -> str:
    """Feast's ValueType of the view's key: from its field, else from its entity, else from the event column."""
    fields = {field.name: field.dtype.to_value_type().name for field in view.entity_columns}
    if entity.join_key in fields:
        return fields[entity.join_key]
    declared = entity.value_type.name
    return declared if declared != "UNKNOWN" else _VALUE_TYPES[spec.request_columns[entity.join_key].kind]


#: Kind of a column that can be an entity → Feast's ValueType.
_VALUE_TYPES = {"int": "INT64", "string": "STRING"}
