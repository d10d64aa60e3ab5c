"""Converts logged rows: first to a line of JSON in the spool, then to a row of the table `predictions`."""

import logging
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from training.contract.model_spec import ModelSpec
from training.contract.predictions import SCORE, LoggedRow
from training.domain.predictions import FEATURES, FLAT, OUTPUTS, aside, event_columns, event_type, prediction_schema

log = logging.getLogger("perennial")

_KINDS = {"outputs": OUTPUTS, "features": FEATURES}
#: Column of the table → the fields of the line from which it is made: names (a JSON list) and values.
_MAPS = {"outputs": ("output_names", "output_values"), "features": ("feature_names", "feature_values")}
#: In the metadata of a file: the name of the time column.
_TIME = "time_column"
#: What Arrow and orjson raise for a value of the wrong type.
_UNREADABLE = (ValueError, TypeError, LookupError, OverflowError)


def line(row: LoggedRow) -> bytes:
    """`row` as a line of JSON. Raises TypeError for a value that JSON cannot express."""
    return orjson.dumps(row, _decimal, orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)


def _decimal(value: Any) -> str:
    """A decimal as text, which keeps all its digits. orjson asks for the types that it does not know."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    raise TypeError(f"{value!r} is not a value of JSON")


class EventLayout(NamedTuple):
    """The columns of events, and which of them is their time: what the rows of a segment cannot say themselves."""

    event: pa.StructType
    time_column: str

    @classmethod
    def of(cls, spec: ModelSpec) -> "EventLayout":
        return cls(event_type(spec), spec.source.events.time_column)

    @property
    def content(self) -> bytes:
        """For a file; `read` reads it."""
        schema = pa.schema(list(self.event), metadata={_TIME: self.time_column})
        return bytes(schema.serialize().to_pybytes())

    @classmethod
    def read(cls, path: Path) -> "EventLayout":
        """Raises OSError, and ValueError for a file that is not one."""
        schema = pa.ipc.read_schema(pa.py_buffer(path.read_bytes()))
        if _TIME.encode() not in (schema.metadata or {}):
            raise ValueError(f"{path} does not name the time column")
        return cls(pa.struct(list(schema)), schema.metadata[_TIME.encode()].decode())


def read_segment(path: Path, layout: EventLayout) -> pa.Table:
    """The rows of a segment, with the schema `prediction_schema`. A line that cannot be read is logged and left out.

    Arrow reads a whole segment without blocking the threads that answer. Only when that fails, lines are read one by
    one: a line may be broken, from another version of the spec, or in the older layout. A value that does not fit its
    type in the spec, or has no column there, is kept as text in the event's column `_<name>_string`.
    """
    event = layout.event
    table = _read_whole(path, event)
    if table is not None:
        try:
            return _finished(table, layout)
        except _UNREADABLE:
            pass
    rows = _readable(path, _rows(path), lambda rows: _finished(_of_rows(rows, event), layout))
    return _finished(_of_rows(rows, event), layout)


def _of_rows(rows: list[dict[str, Any]], event: pa.StructType) -> pa.Table:
    plain = pa.Table.from_pylist(rows, schema=pa.schema([f for f in _line_schema(event) if f.name != "event"]))
    return plain.append_column("event", _events([row["event"] for row in rows], event))


def _readable(
    path: Path, rows: list[dict[str, Any]], make: Callable[[list[dict[str, Any]]], pa.Table]
) -> list[dict[str, Any]]:
    """The rows that `make` accepts. Searches by halves, because hardly any row is broken."""
    try:
        make(rows)
    except _UNREADABLE as error:
        if len(rows) > 1:
            half = len(rows) // 2
            return _readable(path, rows[:half], make) + _readable(path, rows[half:], make)
        log.error("A line of %s is not a prediction: %s; it is left out: %.200r", path, error, rows[0])
        return []
    return rows


def _finished(table: pa.Table, layout: EventLayout) -> pa.Table:
    for name in _MAPS:
        table = _with_map(table, name)
    return _with_day(table, layout)


def _with_day(table: pa.Table, layout: EventLayout) -> pa.Table:
    schema = prediction_schema(table.schema.field("event").type)
    # An event without its time was logged when the spec named another time column: use the day of its prediction.
    time = event_columns(table)[layout.time_column]
    predicted_at = table["predicted_at"].cast(schema.field("predicted_at").type)
    table = table.append_column("day", pc.coalesce(time, predicted_at).cast(pa.date32(), safe=False))
    return table.select(schema.names).cast(schema)


def _line_schema(event: pa.StructType) -> pa.Schema:
    """The schema of a line: dates, times and decimals are text, and each map is two fields, names and values."""
    schema = prediction_schema(pa.struct([_as_text(field) for field in event]))
    fields = [_as_text(field) for field in schema if field.name not in ("day", *_MAPS)]
    for names, values in _MAPS.values():
        fields += [pa.field(names, pa.string()), pa.field(values, pa.list_(pa.float64()))]
    return pa.schema(fields)


def _as_text(field: pa.Field) -> pa.Field:
    return field.with_type(pa.string()) if _is_text(field.type) else field


def _is_text(kind: pa.DataType) -> bool:
    """Whether a line of JSON has the values of `kind` as text."""
    return bool(pa.types.is_temporal(kind) or pa.types.is_decimal(kind))


def _read_whole(path: Path, event: pa.StructType) -> pa.Table | None:
    """The segment as Arrow reads it; None when Arrow cannot, or when a line is in the older layout."""
    options = pj.ParseOptions(explicit_schema=_line_schema(event), unexpected_field_behavior="error")
    try:
        table = pj.read_json(path, parse_options=options)
        if table["event"].null_count:
            return None
        place = table.column_names.index("event")
        return table.set_column(place, "event", table["event"].cast(event))
    except pa.ArrowInvalid:
        return None


def _with_map(table: pa.Table, name: str) -> pa.Table:
    """`table` with the map column `name`. Rows of one version have the same names, so they are converted together."""
    names = _MAPS[name][0]
    parts = [_mapped(table.filter(pc.field(names) == each), name) for each in table[names].unique().drop_null()]
    without = table.filter(pc.field(names).is_null())
    return pa.concat_tables([*parts, without.append_column(name, pa.nulls(without.num_rows, _KINDS[name]))])


def _mapped(rows: pa.Table, name: str) -> pa.Table:
    """`rows` with the map column `name`. The names must be the same in all of them."""
    (names, values), kind = _MAPS[name], _KINDS[name]
    keys = orjson.loads(rows[names][0].as_py())
    columns = [pc.list_element(rows[values], place).to_numpy() for place in range(len(keys))]
    items = pa.array(np.stack(columns, axis=1).ravel() if columns else [], kind.item_type, from_pandas=True)
    offsets = pa.array(np.arange(rows.num_rows + 1, dtype=np.int32) * len(keys))
    made = pa.MapArray.from_arrays(offsets, pa.array(keys * rows.num_rows, pa.string()), items)
    return rows.append_column(name, made)


def _rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a file as rows. Lines in the older layout are converted."""
    rows = []
    for number, text in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = orjson.loads(text)
            rows.append(row if isinstance(row.get("event"), dict) else _from_flat(row))
        except (ValueError, KeyError, AttributeError):
            log.error("Line %d of %s cannot be read; it is left out: %r", number, path, text[:200])
    return rows


def _from_flat(row: dict[str, Any]) -> dict[str, Any]:
    """Convert a line in the older layout. Raises KeyError when it is not one."""
    names, values = row.get("feature_names"), row.get("feature_values")
    if row.get("features") is not None:
        features = orjson.loads(row["features"])
        names, values = orjson.dumps(list(features)).decode(), list(features.values())
    ours = {name: row.get(name) for name in FLAT}
    return ours | {
        "prediction_id": row["prediction_id"],
        "role": ours["slot"] or "champion",
        "decision": "alert" if ours["flagged"] else "pass",
        "output_names": orjson.dumps([SCORE]).decode(),
        "output_values": [ours["score"]],
        "event": {k: v for k, v in row.items() if k not in (*FLAT, "feature_names", "feature_values")},
        "feature_names": names,
        "feature_values": values,
    }


def _events(rows: list[dict[str, Any]], event: pa.StructType) -> pa.ChunkedArray:
    columns: dict[str, pa.Array] = {}
    for field in event:
        columns[field.name], misfits = _fitting([row.get(field.name) for row in rows], field.type)
        if misfits.null_count < len(rows):
            columns[aside(field.name, pa.string())] = misfits
            log.warning("Predictions in the spool have a %s that is not a %s: kept as text", field.name, field.type)
    for name in sorted({name for row in rows for name in row} - set(columns)):
        columns[aside(name, pa.string())] = pa.array([_text(row.get(name)) for row in rows], pa.string())
        log.warning("Predictions in the spool have a %s, which the spec does not have: kept as text", name)
    return pa.chunked_array([pa.StructArray.from_arrays(columns.values(), names=list(columns))])


def _fitting(values: list[Any], target: pa.DataType) -> tuple[pa.Array, pa.Array]:
    """Two arrays: the values that fit `target`, and the others as text. Each is null where the other is not."""
    try:
        return _array(values, target), pa.nulls(len(values), pa.string())
    except (ValueError, TypeError, OverflowError):
        if len(values) > 1:
            pairs = [_fitting([value], target) for value in values]
            return pa.concat_arrays([fit for fit, _ in pairs]), pa.concat_arrays([misfit for _, misfit in pairs])
        return pa.nulls(1, target), pa.array([_text(values[0])], pa.string())


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def _array(values: list[Any], target: pa.DataType) -> pa.Array:
    return pa.array(values, pa.string()).cast(target) if _is_text(target) else pa.array(values, target)
