"""Converts logged rows: first to lines of JSON in the spool, then to rows of the table `predictions`.

A line holds the rows of about ten milliseconds, column by column: what they share is there once, and Arrow reads a
segment without any work in Python for a single row.
"""

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

from serving.spool import Line
from training.contract.model_spec import ModelSpec
from training.contract.predictions import SCORE, LoggedRows
from training.domain.predictions import FEATURES, FLAT, OUTPUTS, aside, event_columns, event_type, prediction_schema

log = logging.getLogger("perennial")

_KINDS = {"outputs": OUTPUTS, "features": FEATURES}
#: Column of the table → the fields of the line from which it is made: names (a JSON list) and values.
_MAPS = {"outputs": ("output_names", "output_values"), "features": ("feature_names", "feature_values")}
_NAMES, _VALUES = ([fields[place] for fields in _MAPS.values()] for place in (0, 1))
#: The fields of a line that all its rows share. Of the others it has one value for each row.
_SHARED = ("model_version", "model_digest", "role", "replica")
_WHOLE = (*_SHARED, *_NAMES, *_VALUES)
#: Arrow parses this many bytes of a segment at once.
_BLOCK_BYTES = 1 << 20
#: In the metadata of a file: the name of the time column.
_TIME = "time_column"
_UNEVEN = "a field does not have one value for each row"
#: What Arrow and orjson raise for a value of the wrong type.
_UNREADABLE = (ValueError, TypeError, LookupError, OverflowError)


def line(rows: LoggedRows) -> Line:
    """`rows` as a line of JSON. Raises TypeError for a value that JSON cannot express."""
    content = orjson.dumps(rows, _decimal, orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)
    return Line(content, len(rows["prediction_id"]))


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
    """The rows of a segment, with the schema `prediction_schema`. A row that cannot be read is logged and left out.

    Arrow reads a whole segment without blocking the threads that answer. Only when that fails, rows are read one by
    one: a line may be broken, from another version of the spec, or in an older layout. A value that does not fit its
    type in the spec, or has no column there, is kept as text in the event's column `_<name>_string`.
    """
    event = layout.event
    lines = _read_whole(path.read_bytes(), event)
    if lines is not None:
        try:
            return _finished(lines, layout)
        except _UNREADABLE:
            pass
    rows = _readable(path, _single_rows(path), lambda rows: _finished(_of_rows(rows, event), layout))
    return _finished(_of_rows(rows, event), layout)


def _of_rows(rows: list[dict[str, Any]], event: pa.StructType) -> pa.Table:
    """Lines of one row each, as a table of lines."""
    plain = pa.Table.from_pylist(rows, schema=pa.schema([f for f in _line_schema(event) if f.name != "event"]))
    ends, columns = np.arange(len(rows) + 1, dtype=np.int32), _events([row["event"] for row in rows], event)
    lists = [pa.ListArray.from_arrays(ends, column) for column in columns.values()]
    return plain.append_column("event", pa.StructArray.from_arrays(lists, names=list(columns)))


def _readable(
    path: Path, rows: list[dict[str, Any]], make: Callable[[list[dict[str, Any]]], pa.Table]
) -> list[dict[str, Any]]:
    """The rows that `make` accepts. Searches by halves, because hardly any row is broken."""
    try:
        make(rows)
    except _UNREADABLE as error:
        if not rows:
            raise
        if len(rows) > 1:
            half = len(rows) // 2
            return _readable(path, rows[:half], make) + _readable(path, rows[half:], make)
        log.error("A row of %s is not a prediction: %s; it is left out: %.200r", path, error, rows[0])
        return []
    return rows


def _finished(lines: pa.Table, layout: EventLayout) -> pa.Table:
    """The rows of a table of lines. Raises one of _UNREADABLE when a line lacks a field, or values of a field."""
    return pa.concat_tables([_with_day(_rows(part), layout) for part in _by_names(lines)])


def _by_names(lines: pa.Table) -> list[pa.Table]:
    """Tables of lines with the same outputs and features. Lines of one version have the same."""
    kinds = lines.select(_NAMES).group_by(_NAMES).aggregate([]).to_pylist()
    if len(kinds) <= 1:
        return [lines]
    return [lines.filter(pc.and_(*(_equal(lines[name], kind[name]) for name in _NAMES))) for kind in kinds]


def _equal(values: pa.ChunkedArray, text: str | None) -> pa.ChunkedArray:
    return pc.is_null(values) if text is None else pc.fill_null(pc.equal(values, text), False)


def _rows(lines: pa.Table) -> pa.Table:
    """One row for each prediction of `lines`, whose names are all the same."""
    counts = pc.list_value_length(lines["prediction_id"])
    line_of_row = pa.array(np.repeat(np.arange(len(lines)), counts.to_numpy()))
    columns = {name: lines[name].take(line_of_row) for name in _SHARED}
    for name in lines.column_names:
        if name not in (*_WHOLE, "event"):
            columns[name] = _flat(lines[name], counts)
    event = {name: _flat(values, counts) for name, values in event_columns(lines).items()}
    columns["event"] = pc.make_struct(*event.values(), field_names=list(event))
    for name in _MAPS:
        columns[name] = _maps(lines, name, counts)
    return pa.table(columns)


def _flat(values: pa.ChunkedArray, counts: pa.ChunkedArray) -> pa.ChunkedArray:
    """The elements of the lists `values`. Raises ValueError unless each has as many as `counts` says."""
    if pc.all(pc.equal(pc.list_value_length(values), counts), skip_nulls=False, min_count=0).as_py() is not True:
        raise ValueError(_UNEVEN)
    return pc.list_flatten(values)


def _maps(lines: pa.Table, name: str, counts: pa.ChunkedArray) -> pa.Array:
    """The map column `name`: one map for each row of `lines`."""
    (names, values), kind = _MAPS[name], _KINDS[name]
    rows = pc.sum(counts).as_py() or 0
    text = lines[names][0].as_py() if rows else None
    if text is None:
        return pa.nulls(rows, kind)
    keys = orjson.loads(text)
    items = _flat(lines[values], pc.multiply(counts, len(keys))).cast(kind.item_type, safe=False)
    repeated = pa.array(keys, pa.string()).take(pa.array(np.tile(np.arange(len(keys)), rows)))
    ends = pa.array(np.arange(rows + 1, dtype=np.int32) * len(keys))
    return pa.MapArray.from_arrays(ends, repeated, items.combine_chunks())


def _with_day(table: pa.Table, layout: EventLayout) -> pa.Table:
    schema = prediction_schema(table.schema.field("event").type)
    # An event without its time was logged when the spec named another time column: use the day of its prediction.
    time = event_columns(table)[layout.time_column]
    predicted_at = table["predicted_at"].cast(schema.field("predicted_at").type)
    table = table.append_column("day", pc.coalesce(time, predicted_at).cast(pa.date32(), safe=False))
    return table.select(schema.names).cast(schema)


def _line_schema(event: pa.StructType) -> pa.Schema:
    """The schema of a line: dates, times and decimals are text, and each map is two fields, names and values."""
    schema = prediction_schema(event)
    fields = [field for field in schema if field.name in _SHARED]
    each = [field for field in schema if field.name not in ("day", "event", *_SHARED, *_MAPS)]
    fields += [pa.field(field.name, pa.list_(_as_text(field).type)) for field in each]
    fields += [pa.field("event", _lists(pa.struct([_as_text(field) for field in event])))]
    fields += [pa.field(name, pa.string()) for name in _NAMES]
    fields += [pa.field(name, pa.list_(pa.float64())) for name in _VALUES]
    return pa.schema(fields)


def _lists(event: pa.StructType) -> pa.StructType:
    """A struct of lists: the events of a line, column by column."""
    return pa.struct([pa.field(field.name, pa.list_(field.type)) for field in event])


def _as_text(field: pa.Field) -> pa.Field:
    return field.with_type(pa.string()) if _is_text(field.type) else field


def _is_text(kind: pa.DataType) -> bool:
    """Whether a line of JSON has the values of `kind` as text."""
    return bool(pa.types.is_temporal(kind) or pa.types.is_decimal(kind))


def _read_whole(content: bytes, event: pa.StructType) -> pa.Table | None:
    """A table of the lines of a segment, as Arrow reads them; None when it cannot, or when one has an older layout."""
    parse = pj.ParseOptions(explicit_schema=_line_schema(event), unexpected_field_behavior="error")
    # A line must fit into a block.
    read = pj.ReadOptions(block_size=max(_BLOCK_BYTES, 1 + max(map(len, content.splitlines()), default=0)))
    try:
        table = pj.read_json(pa.BufferReader(content), read, parse)
        place = table.column_names.index("event")
        return table.set_column(place, "event", table["event"].cast(_lists(event)))
    except pa.ArrowInvalid:
        return None


def _single_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, each as a line of one row. Lines in older layouts are converted."""
    rows = []
    for number, text in enumerate(path.read_bytes().splitlines(), 1):
        try:
            rows += _split(orjson.loads(text))
        except (*_UNREADABLE, AttributeError):
            log.error("Line %d of %s cannot be read; it is left out: %r", number, path, text[:200])
    return rows


def _split(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a line, each as a line of one row whose event is not in columns.

    Raises KeyError, TypeError, AttributeError or ValueError for what is no line, or has not one value for each row.
    """
    if not isinstance(found.get("prediction_id"), list):  # An older layout: a line for each row.
        row = found if isinstance(found.get("event"), dict) else _from_flat(found)
        return [{name: row.get(name) if name in (*_WHOLE, "event") else [row[name]] for name in row}]
    count = len(found["prediction_id"])
    widths = {name: len(found[name]) // max(count, 1) for name in _VALUES}
    widths |= {name: 1 for name in found if name not in (*_WHOLE, "event")}
    wanted = [(found[name], count * width) for name, width in widths.items()]
    wanted += [(values, count) for values in found["event"].values()]
    if any(len(values) != length for values, length in wanted):
        raise ValueError(_UNEVEN)
    return [
        {name: _part(value, i, widths[name]) if name in widths else value for name, value in found.items()}
        | {"event": {name: values[i] for name, values in found["event"].items()}}
        for i in range(count)
    ]


def _part(values: list[Any], place: int, width: int) -> list[Any]:
    return values[place * width : (place + 1) * width]


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


def _events(rows: list[dict[str, Any]], event: pa.StructType) -> dict[str, pa.Array]:
    """The columns of events that are not in columns."""
    columns: dict[str, pa.Array] = {}
    for field in event:
        columns[field.name], misfits = _fitting([row.get(field.name) for row in rows], field.type)
        if misfits.null_count < len(rows):
            columns[aside(field.name, pa.string())] = misfits
            log.warning("Predictions in the spool have a %s that is not a %s: kept as text", field.name, field.type)
    for name in sorted({name for row in rows for name in row} - set(columns)):
        columns[aside(name, pa.string())] = pa.array([_text(row.get(name)) for row in rows], pa.string())
        log.warning("Predictions in the spool have a %s, which the spec does not have: kept as text", name)
    return columns


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
