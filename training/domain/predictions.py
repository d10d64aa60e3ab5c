"""The table `predictions`: its types, its earlier layout, and what happens when the types in the spec change.

The table follows the spec without losing a value, so the log continues after any change of the spec. New rows are cast
to the table's types if that loses nothing. Otherwise the table's column is cast to the new type. If both would lose
values, the old values move to the event column `_<name>_<type>`, and the column continues with the new type.
"""

import json
import re
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from training.contract.model_spec import ModelSpec
from training.contract.predictions import SCORE
from training.domain.arrow_types import TIME, arrow_type

OUTPUTS = pa.map_(pa.string(), pa.float64())
FEATURES = pa.map_(pa.string(), pa.float32())
#: Rows whose JSON text is parsed at once.
_CHUNK = 10_000

#: Our columns in the earlier layout, where event columns were at the same level.
FLAT = frozenset(
    [
        *("prediction_id", "predicted_at", "score", "flagged", "model_version", "features", "features_defaulted"),
        *("feature_timestamp", "slot", "latency_seconds", "replica", "day"),
    ]
)


def prediction_schema(event: pa.DataType) -> pa.Schema:
    """The columns of the table. `day` is the day of the event, and the table's partition.

    Rows from before `model_digest` was a column have null in it.
    """
    return pa.schema(
        [
            ("prediction_id", pa.string()),
            ("predicted_at", TIME),
            ("day", pa.date32()),
            ("model_version", pa.int64()),
            ("model_digest", pa.string()),
            ("role", pa.string()),
            ("decision", pa.string()),
            ("features_defaulted", pa.bool_()),
            ("feature_timestamp", TIME),
            ("latency_seconds", pa.float64()),
            ("replica", pa.string()),
            ("outputs", OUTPUTS),
            ("event", event),
            ("features", FEATURES),
        ]
    )


def event_type(spec: ModelSpec) -> pa.StructType:
    """The struct of the spec's event columns."""
    return pa.struct([(name, arrow_type(column)) for name, column in spec.request_columns.items()])


def is_flat(schema: pa.Schema) -> bool:
    """Whether a table has the earlier layout."""
    return "event" not in schema.names or not pa.types.is_struct(schema.field("event").type)


def nested(flat: pa.Table) -> pa.Table:
    """Convert a table in the earlier layout, or some of its columns, to the current layout. Missing columns are null.

    Rows without a role are from the champion, because there were no other roles then.
    """
    events = [name for name in flat.column_names if name not in FLAT]
    event = pc.make_struct(*(flat[name] for name in events), field_names=events)
    schema = prediction_schema(event.type)
    made = {"event": event, "role": pa.repeat(pa.scalar("champion"), flat.num_rows)}
    if "slot" in flat.column_names:
        made["role"] = pc.fill_null(flat["slot"].cast(pa.string()), "champion")
    if "flagged" in flat.column_names:
        made["decision"] = pc.if_else(flat["flagged"], "alert", "pass")
    if "features" in flat.column_names:
        made["features"] = pa.chunked_array(_maps(flat["features"]), FEATURES)
    if "score" in flat.column_names:
        names = pa.array([SCORE] * flat.num_rows, pa.string())
        offsets = pa.array(range(flat.num_rows + 1), pa.int32())
        made["outputs"] = pa.MapArray.from_arrays(offsets, names, flat["score"].cast(pa.float64()).combine_chunks())
    kept = {name: flat[name] for name in schema.names if name in flat.column_names and name not in made}
    columns = {field.name: pa.nulls(flat.num_rows, field.type) for field in schema} | kept | made
    return pa.table({name: columns[name] for name in schema.names}).cast(schema)


def _maps(texts: pa.ChunkedArray) -> Iterator[pa.Array]:
    for start in range(0, len(texts), _CHUNK):
        some = texts.slice(start, _CHUNK).to_pylist()
        yield pa.array([None if each is None else list(json.loads(each).items()) for each in some], FEATURES)


def event_columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Name → values of the event columns. Null if the row has no event."""
    return {field.name: pc.struct_field(table["event"], [i]) for i, field in enumerate(table["event"].type)}


def with_event(table: pa.Table, columns: dict[str, pa.ChunkedArray]) -> pa.Table:
    """`table` with these event columns instead of its own."""
    event = pc.make_struct(*columns.values(), field_names=list(columns))
    return table.set_column(table.column_names.index("event"), "event", event)


def without_loss(values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray | None:
    """`values` as `target` if casting them back gives the same values, else None."""
    if values.type == target:
        return values
    try:
        found = values.cast(target)
        return found if found.cast(values.type).equals(values) else None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def fitted(rows: pa.Table, schema: pa.Schema) -> pa.Table | None:
    """`rows` in the types of a table with `schema`; None if the table must be changed first (`following`)."""
    if is_flat(schema):
        return None
    held, columns = {field.name: field.type for field in schema.field("event").type}, event_columns(rows)
    if _respelled(held, columns):
        return None
    for name in columns.keys() & held.keys():
        found = without_loss(columns[name], held[name])
        if found is None:
            return None
        columns[name] = found
    return with_event(rows, columns)


def following(table: pa.Table, rows: pa.Table) -> pa.Table:
    """All rows of the table in a schema that `rows` fit. Takes twice the memory of the table, at about 1 kB per row."""
    table = nested(table) if is_flat(table.schema) else table
    held, new = event_columns(table), event_columns(rows)
    respelled = _respelled(held, new)
    made: dict[str, pa.ChunkedArray] = {}
    kept: dict[str, pa.ChunkedArray] = {}
    for name, values in held.items():
        if name in respelled:
            kept[aside(name, values.type)] = values
        elif name not in new or without_loss(new[name], values.type) is not None:
            made[name] = values
        elif (found := without_loss(values, new[name].type)) is not None:
            made[name] = found
        else:
            kept[aside(name, values.type)] = values
            before = held.get(aside(name, new[name].type))  # Values from when the column had this type before.
            made[name] = pa.chunked_array([pa.nulls(table.num_rows, new[name].type)]) if before is None else before
    for name, values in kept.items():
        made[name] = pc.coalesce(made[name], values) if name in made else values
    return with_event(table, made)


def aside(name: str, held: pa.DataType) -> str:
    """The name of the event column for the values of a type that column `name` no longer has. No spec can use it."""
    kind = re.sub(r"\W+", "_", str(held).partition("[")[0]).strip("_")
    return f"_{name}_{kind}"


def _respelled(held: Iterable[str], new: Iterable[str]) -> set[str]:
    """Columns of `held` whose case differs in `new`. Delta tables do not distinguish upper and lower case in names."""
    return {old for old in held for name in new if old != name and old.lower() == name.lower()}
