"""A landed table against the spec's types: casts that lose nothing are made, all others are left for the rules."""

from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from training.contract.model_spec import Column, FeedSpec

#: Column type in the spec → Arrow type, in the lake and everywhere else.
ARROW_TYPES: dict[str, pa.DataType] = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


def feed_schema(feed: FeedSpec) -> pa.Schema:
    """The Arrow schema of the feed's columns, in the spec's order."""
    return pa.schema([pa.field(name, ARROW_TYPES[column.type]) for name, column in feed.columns.items()])


def conform(landed: pa.Table, feed: FeedSpec) -> pa.Table:
    """The feed's columns that `landed` has, in the spec's order, in the spec's types where a cast loses nothing.

    Numbers cast among themselves when every value survives, times when they have a zone and whole microseconds.
    A column that cannot be cast keeps its type.
    """
    present = {name: column for name, column in feed.columns.items() if name in landed.column_names}
    return pa.table({name: _cast(landed[name], column) for name, column in present.items()})


def as_pandas(table: pa.Table) -> Any:
    """`table` as a DataFrame, with types that tell a missing number from one that is not a whole number."""
    import pandas as pd  # Slow to import, and a partition that is in the lake already needs none of it.

    types = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype(), pa.string(): pd.StringDtype()}
    return table.to_pandas(types_mapper=types.get)


def _cast(values: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    target = ARROW_TYPES[column.type]
    if not _may_cast(values.type, target):
        return values
    try:
        return values.cast(target, safe=True)
    except pa.ArrowInvalid:
        return values


def _may_cast(source: pa.DataType, target: pa.DataType) -> bool:
    if pt.is_null(source):
        return True
    if pt.is_dictionary(source):
        source = source.value_type
    if pt.is_integer(target) or pt.is_floating(target):
        return bool(pt.is_integer(source) or pt.is_floating(source))
    if pt.is_timestamp(target):
        return bool(pt.is_timestamp(source) and source.tz is not None)
    if pt.is_string(target):
        return bool(pt.is_string(source) or pt.is_large_string(source) or pt.is_string_view(source))
    return bool(source == target)
