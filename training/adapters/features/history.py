"""What a training set takes from the feature tables: the rows that were the newest at the events' times."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.types as pt

from training.adapters.features.feature_plan import request_column, text_column
from training.contract.model_spec import Column
from training.domain.arrow_types import TIME, arrow_type
from training.domain.feature_engine import FeatureEngine, Relation, TimedRows


def timed_rows(view: Any, keys: Sequence[str], columns: Sequence[str], rows: Relation) -> TimedRows:
    """`rows` with the times and the ttl of `view` (feast.FeatureView). As in Feast, a ttl of zero means no ttl.

    `keys`: the join keys of the view's entities. Events have them under the same names.
    """
    source = view.batch_source
    return TimedRows(
        rows=rows,
        keys={name: name for name in keys},
        time=source.timestamp_field,
        columns=columns,
        created=source.created_timestamp_column or None,
        ttl=view.ttl or None,
    )


def look_up(
    engine: FeatureEngine, events: pd.DataFrame, times: pd.DatetimeIndex, views: Iterable[TimedRows]
) -> dict[str, np.ndarray]:
    """The columns of `views` as they were for the entities of `events` at `times` (UTC, one per event).

    Numbers are float32 [events], NaN where there is no feature row; texts are objects, None where there is none.
    """
    found: dict[str, np.ndarray] = {}
    for rows in views:
        joined = newest_rows(engine, events, times, rows)
        found |= {column: column_values(joined[column]) for column in rows.columns}
    return found


def newest_rows(engine: FeatureEngine, events: pd.DataFrame, times: pd.DatetimeIndex, rows: TimedRows) -> pa.Table:
    """The columns of `rows` as they were for the entities of `events` at `times` (UTC, one per event)."""
    asked = pa.table([pa.array(times, TIME), *(pa.array(events[key]) for key in rows.keys)], ["time", *rows.keys])
    return engine.newest(asked, "time", rows)


def event_columns(events: pd.DataFrame, columns: Mapping[str, Column]) -> dict[str, np.ndarray]:
    """These `columns` of the spec for request views: `request_column` of all rows at once."""
    return {name: _event_column(events[name], column) for name, column in columns.items()}


def _event_column(values: pd.Series, column: Column) -> np.ndarray:
    if column.kind == "timestamp":
        times = pd.DatetimeIndex(values).as_unit("us")
        return (times if times.tz is None else times.tz_convert(None)).to_numpy()
    if column.kind in ("decimal", "list"):
        return request_column([None if value is None else value for value in values], column)
    wide = {"int": pa.float64() if column.nullable else pa.int64(), "float": pa.float64()}.get(column.kind)
    # Not safe: whole numbers above 2⁵³ are rounded, as `request_column` does.
    found: np.ndarray = pa.array(values).cast(wide or arrow_type(column), safe=False).to_numpy(zero_copy_only=False)
    return found


def column_values(values: pa.ChunkedArray) -> np.ndarray:
    """A looked up column: numbers as float32, NaN where there is none; texts as objects, None where there is none."""
    if pt.is_string(values.type) or pt.is_large_string(values.type):
        return text_column(values.to_pylist())
    found: np.ndarray = values.cast(pa.float32(), safe=False).to_numpy()
    return found
