"""The table `predictions`: its types, the layout that it had before, and what happens when the spec's types change.

The table follows the spec without losing a value. New rows take the table's types where they fit. Where they do not,
the table's column takes theirs. Where neither loses nothing, the old values are kept in the event as
`_<name>_<type>`, and the column begins again: the log never stops for a changed spec.
"""

import json
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from training.contract.model_spec import ModelSpec
from training.contract.predictions import SCORE
from training.domain.conform import ARROW_TYPES

OUTPUTS = pa.map_(pa.string(), pa.float64())
FEATURES = pa.map_(pa.string(), pa.float32())
#: Rows of JSON text that are Python objects at the same time.
_CHUNK = 10_000

#: Ours, in the layout before: event columns stood beside them.
FLAT = frozenset(
    [
        *("prediction_id", "predicted_at", "score", "flagged", "model_version", "features", "features_defaulted"),
        *("feature_timestamp", "slot", "latency_seconds", "replica", "day"),
    ]
)


def prediction_schema(event: pa.DataType) -> pa.Schema:
    """The columns of the table. `day` is the day of the event, and the table's partition."""
    time = ARROW_TYPES["timestamp"]
    return pa.schema(
        [
            ("prediction_id", pa.string()),
            ("predicted_at", time),
            ("day", pa.date32()),
            ("model_version", pa.int64()),
            ("role", pa.string()),
            ("decision", pa.string()),
            ("features_defaulted", pa.bool_()),
            ("feature_timestamp", time),
            ("latency_seconds", pa.float64()),
            ("replica", pa.string()),
            ("outputs", OUTPUTS),
            ("event", event),
            ("features", FEATURES),
        ]
    )


def event_type(spec: ModelSpec) -> pa.StructType:
    """The event columns of the spec, as one struct."""
    return pa.struct([(name, ARROW_TYPES[column.type]) for name, column in spec.request_columns.items()])


def is_flat(schema: pa.Schema) -> bool:
    """Whether a table has the layout before."""
    return "event" not in schema.names or not pa.types.is_struct(schema.field("event").type)


def nested(flat: pa.Table) -> pa.Table:
    """A table in the layout before, or some of its columns, in today's layout; what it lacks is null.

    Rows from before there were roles were all the champion's.
    """
    events = [name for name in flat.column_names if name not in FLAT]
    event = pc.make_struct(*(flat[name] for name in events), field_names=events)
    schema = prediction_schema(event.type)
    made = {"event": event, "role": pa.repeat(pa.scalar("champion"), flat.num_rows)}
    if "slot" in flat.column_names:
        made["role"] = pc.fill_null(flat["slot"].cast(pa.string()), "champion")
    if "flagged" in flat.column_names:
        made["decision"] = pc.if_else(flat["flagged"], "flag", "pass")
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
    """Name → values of the event columns; null where the row has no event."""
    return {field.name: pc.struct_field(table["event"], [i]) for i, field in enumerate(table["event"].type)}


def with_event(table: pa.Table, columns: dict[str, pa.ChunkedArray]) -> pa.Table:
    """`table` with these event columns."""
    event = pc.make_struct(*columns.values(), field_names=list(columns))
    return table.set_column(table.column_names.index("event"), "event", event)


def without_loss(values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray | None:
    """`values` as `target`, when they are the same again after being cast back; else None."""
    if values.type == target:
        return values
    try:
        found = values.cast(target)
        return found if found.cast(values.type).equals(values) else None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def fitted(rows: pa.Table, schema: pa.Schema) -> pa.Table | None:
    """`rows` as a table of `schema` can take them; None when the table has to follow first (`following`)."""
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
    """All rows of the table, such that `rows` fit. Takes the memory of the table twice: about 1 kB a row each time."""
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
            before = held.get(aside(name, new[name].type))  # what was kept when the type changed away from this one
            made[name] = pa.chunked_array([pa.nulls(table.num_rows, new[name].type)]) if before is None else before
    for name, values in kept.items():
        made[name] = pc.coalesce(made[name], values) if name in made else values
    return with_event(table, made)


def aside(name: str, held: pa.DataType) -> str:
    """Where an event column's values of a type are kept that the column no longer has. No column of a spec has it."""
    return f"_{name}_{str(held).partition('[')[0]}"


def _respelled(held: Iterable[str], new: Iterable[str]) -> set[str]:
    """Columns of `held` that `new` spells with other capitals: to a Delta table these are one name."""
    return {old for old in held for name in new if old != name and old.lower() == name.lower()}
