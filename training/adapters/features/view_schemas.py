"""Compare the columns that the feature SQL yields with the fields of the feature views."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from training.adapters.features.definitions import Definitions
from training.adapters.features.definitions_file import definitions_path
from training.contract.errors import ConfigError
from training.contract.source_spec import SourceSpec

_INTEGERS = {"int8", "int16", "int32"}
#: Type of a Feast field that can be a feature → the Arrow types that fit. Float32 and Float64 take the same types,
#: because a model gets float32 anyway.
COMPATIBLE_TYPES = {
    "Float32": {"float", "double", "int64", *_INTEGERS},
    "Float64": {"float", "double", "int64", *_INTEGERS},
    "Int64": {"int64", *_INTEGERS},
    "Int32": _INTEGERS,
    "Bool": {"bool"},
    "String": {"string", "large_string"},
}
#: Feast's ValueType of an entity → the Arrow types that fit.
_KEYS = {
    "INT64": {"int64", *_INTEGERS},
    "INT32": _INTEGERS,
    "STRING": {"string", "large_string"},
    "UNKNOWN": {"string", "large_string"},
}


def check_schema(definitions: Definitions, folder: Path, spec: SourceSpec, table: str, columns: pa.Schema) -> None:
    """Raises the first error of `schema_mistakes`, if any."""
    for mistake in schema_mistakes(definitions, folder, spec, table, columns):
        raise mistake


def schema_mistakes(
    definitions: Definitions, folder: Path, spec: SourceSpec, table: str, columns: pa.Schema
) -> Iterator[ConfigError]:
    """Compare the `columns` that the SQL of `table` yields (FeatureQueries.schema) with its feature view.

    Yields a ConfigError for features that only one of them has, for features that are neither numbers nor texts, and
    for a type in the view that cannot hold all values of the type in the SQL.
    """
    [view] = [view for view in definitions.views if view.name == table]
    sql, py = definitions_path(folder, spec, "sql"), definitions_path(folder, spec, "py")
    key = spec.entities[table]
    yielded = {field.name: str(field.type) for field in columns if field.name not in ("feature_timestamp", "day")}
    fields = {field.name: str(field.dtype) for field in view.features}
    [entity] = [entity for entity in definitions.entities if entity.name in view.entities]
    kind, wanted = yielded.pop(key), entity.value_type.name
    if kind not in _KEYS.get(wanted, {kind}):
        problem = (
            f"The SQL of {table!r} yields {key!r} as {kind}, but {py} defines the entity {entity.name!r} as {wanted}"
        )
        yield ConfigError(problem, hint="Give the Entity the value_type of the column.")
    if unnamed := [name for name in yielded if name not in fields]:
        problem = f"Query {table!r} of {sql} yields {unnamed}, which the feature view in {py} does not have"
        yield ConfigError(problem, hint="Add them to the view's schema, or remove them from the SQL.")
    if missing := [name for name in fields if name not in yielded]:
        problem = f"The feature view {table!r} in {py} has {missing}, which its query in {sql} does not yield"
        yield ConfigError(problem, hint="Add them to the SQL, or remove them from the view.")
    if unsupported := {name: kind for name, kind in fields.items() if kind not in COMPATIBLE_TYPES}:
        problem = f"{py}: features of {table!r} have the types {unsupported}"
        yield ConfigError(problem, hint=f"Models take {sorted(COMPATIBLE_TYPES)}.")
    both = [name for name, kind in fields.items() if name in yielded and kind in COMPATIBLE_TYPES]
    if lossy := [
        f"{name} ({yielded[name]} in the SQL, {fields[name]} in the view)"
        for name in both
        if yielded[name] not in COMPATIBLE_TYPES[fields[name]]
    ]:
        problem = f"SQL and view disagree on the types in {table!r}: {', '.join(lossy)}; see {sql} and {py}"
        yield ConfigError(problem, hint="Cast in the SQL, for example ::FLOAT for Float32 and ::BIGINT for Int64.")
