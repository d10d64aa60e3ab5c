"""Feast's entities and views of feature tables with declared aggregations, made from the spec of their source.

A file `<source>.py` gets the views as `declared_views(__file__)`, for request views that take features of them.
"""

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.contract.feature_tables import DeclaredFeature
from training.contract.source_spec import SourceSpec, load_source_spec

if TYPE_CHECKING:
    from feast import Entity, FeatureView

#: The tag of a generated view.
GENERATED = {"generated": "from features.tables"}


def declared_views(file: str) -> "list[FeatureView]":
    """The views of all tables with aggregations in the spec beside `file`, a `<source>.py`, in the spec's order.

    Raises ConfigError when the spec is not valid.
    """
    path = Path(file)
    return declared_objects(load_source_spec(path.stem, path.parent))[1]


def declared_objects(spec: SourceSpec) -> "tuple[list[Entity], list[FeatureView]]":
    """New entities and views of the tables with aggregations in `spec`."""
    from feast import FeatureView

    tables = {name: table for name, table in spec.features.tables.items() if table.is_declared}
    entities = {column: _entity(spec, column) for column in dict.fromkeys(table.entity for table in tables.values())}
    views = [
        FeatureView(
            name=name,
            entities=[entities[table.entity]],
            ttl=timedelta(days=table.ttl_days or 0),
            schema=[_field(feature) for feature in table.features()],
            source=_source(spec, name),
            tags=GENERATED,
        )
        for name, table in tables.items()
    ]
    return list(entities.values()), views


def _entity(spec: SourceSpec, column: str) -> "Entity":
    from feast import Entity, ValueType

    definition = spec.events.columns[column]
    kind = ValueType.STRING if definition.kind == "string" else ValueType.INT64
    return Entity(name=column, join_keys=[column], value_type=kind, description=definition.description)


def _field(feature: DeclaredFeature) -> Any:
    from feast import Field
    from feast.types import Float32

    default = "null" if feature.default is None else repr(feature.default)
    return Field(name=feature.name, dtype=Float32, description=feature.description, tags={"default": default})


def _source(spec: SourceSpec, table: str) -> Any:
    from feast import FileSource
    from feast.data_format import DeltaFormat

    # Only for the `feast` command, which cannot import our settings. The steps use the lake of their settings instead.
    home = os.environ.get("CT_HOME") or Path(__file__).parents[3] / ".perennial"
    path = f"{os.environ.get('CT_LAKE_URI') or f'{home}/lake'}/{spec.name}/{table}"
    return FileSource(name=table, path=path, timestamp_field="feature_timestamp", file_format=DeltaFormat())
