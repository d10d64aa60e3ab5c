"""A predicted row on its way: a line of JSON in the spool, a row of the table `predictions` in the lake.

A line has the columns of `prediction_schema`, but for two, which are made from it where nobody waits: `features`, an
object of them as JSON, of FEATURE_NAMES (a list as JSON) and FEATURE_VALUES (float32 [features]); `day` of the event.
"""

import logging
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from training.contract.model_spec import ModelSpec
from training.domain.conform import ARROW_TYPES

FEATURE_NAMES, FEATURE_VALUES = "feature_names", "feature_values"

log = logging.getLogger("perennial")


def prediction_schema(spec: ModelSpec) -> pa.Schema:
    """The columns of the table `predictions`. `day` is the day of the event, and the table's partition.

    `slot` says who scored: champion, challenger, previous, pinned; or shadow, whose score was no answer. A shadow's row
    has the prediction_id of the answer that it stood beside.
    """
    events = [(name, ARROW_TYPES[column.type]) for name, column in spec.request_columns.items()]
    head = [("prediction_id", pa.string()), ("predicted_at", ARROW_TYPES["timestamp"])]
    tail = [("score", pa.float64()), ("flagged", pa.bool_()), ("model_version", pa.int64()), ("features", pa.string())]
    tail += [("features_defaulted", pa.bool_()), ("feature_timestamp", ARROW_TYPES["timestamp"]), ("slot", pa.string())]
    tail += [("latency_seconds", pa.float64()), ("replica", pa.string()), ("day", pa.date32())]
    return pa.schema([*head, *events, *tail])


def line(row: dict[str, Any]) -> bytes:
    """Raises TypeError for a value that JSON has no word for."""
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)


def read_segment(path: Path, spec: ModelSpec) -> pa.Table:
    """The rows of a segment as `prediction_schema` has them. A line that cannot be read is reported and left out.

    Arrow reads a whole segment without holding up the threads that answer; only when it stumbles is each line read.
    """
    schema, day_of = prediction_schema(spec), spec.feeds["events"].time_column
    written = [field for field in schema if field.name != "day"]
    texts = [pa.field(f.name, pa.string()) if pa.types.is_temporal(f.type) else f for f in written]
    texts += [pa.field(FEATURE_NAMES, pa.string()), pa.field(FEATURE_VALUES, pa.list_(pa.float64()))]
    options = pj.ParseOptions(explicit_schema=pa.schema(texts), unexpected_field_behavior="ignore")
    try:
        table = pj.read_json(path, parse_options=options)
    except pa.ArrowInvalid:
        table = pa.Table.from_pylist(_rows(path), schema=pa.schema(texts))
    # One version's rows have the same features.
    names = table[FEATURE_NAMES].unique().drop_null()
    parts = [_with_features(table.filter(pc.field(FEATURE_NAMES) == each)) for each in names]
    table = pa.concat_tables([*parts, table.filter(pc.field(FEATURE_NAMES).is_null())])
    day = table[day_of].cast(schema.field(day_of).type).cast(pa.date32())
    return table.append_column("day", day).select(schema.names).cast(schema)


def _with_features(rows: pa.Table) -> pa.Table:
    """`rows`, which have the same names of features, with the column `features`: an object of them as JSON."""
    parts: list[Any] = []
    for place, name in enumerate(orjson.loads(rows[FEATURE_NAMES][0].as_py())):
        value = pc.list_element(rows[FEATURE_VALUES], place).cast(pa.string())
        parts += [("," if parts else "{") + orjson.dumps(name).decode() + ":", value]
    place = rows.column_names.index("features")
    return rows.set_column(place, "features", pc.binary_join_element_wise(*parts, "}", ""))


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            rows.append(orjson.loads(line))
        except ValueError:
            log.error("Line %d of %s cannot be read; it is left out: %r", number, path, line[:200])
    return rows
