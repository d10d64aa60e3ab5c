"""The Arrow types of a spec's columns, in the lake and everywhere else, and tables of them as DataFrames."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from training.contract.column_types import ColumnType, whole_digits
from training.contract.model_spec import Column, FeedSpec

TIME = pa.timestamp("us", tz="UTC")

_PLAIN: dict[str, pa.DataType] = {"bool": pa.bool_(), "string": pa.string(), "date": pa.date32(), "timestamp": TIME}
_FLOATS = {32: pa.float32(), 64: pa.float64()}
_INTEGERS = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}


def arrow_type(column: Column) -> pa.DataType:
    """The Arrow type of the column's values in the lake."""
    return stored_as(column.parsed)


def stored_as(of: ColumnType) -> pa.DataType:
    """The Arrow type of values of a type. Unsigned integers get the next larger signed type: Delta has no unsigned."""
    if of.kind == "int":
        return _INTEGERS[of.bits if of.signed else min(2 * of.bits, 64)]
    if of.kind == "float":
        return _FLOATS[of.bits]
    if of.kind == "list":
        return pa.list_(_FLOATS[of.bits])
    if of.kind == "decimal":
        return pa.decimal128(of.precision, of.scale)
    return _PLAIN[of.kind]


def feed_schema(feed: FeedSpec) -> pa.Schema:
    """The Arrow schema of the feed's columns, in the spec's order."""
    return pa.schema([pa.field(name, arrow_type(column)) for name, column in feed.columns.items()])


def utc_days(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """The UTC day of each of `times`, which are timestamps in UTC."""
    return times.cast(pa.timestamp("us")).cast(pa.date32(), safe=False)


def all_distinct(values: pa.ChunkedArray) -> bool:
    """Whether no value comes twice. Two nulls are equal."""
    if pt.is_integer(values.type) and not values.null_count:
        ordered = np.sort(values.to_numpy())  # Takes a tenth of the time of hashing them.
        return not (ordered[1:] == ordered[:-1]).any()
    return bool(pc.count_distinct(values, mode="all").as_py() == len(values))


def as_exact_pandas(table: pa.Table) -> Any:
    """`table` as a DataFrame in which no value changes.

    A column of integers with nulls has one of pandas' nullable types: `to_pandas` alone makes floats of them, which
    changes ids above 2**53. Decimals and dates are Python's, lists are NumPy arrays.
    """
    frame = table.to_pandas()
    for field in table.schema:
        if pt.is_integer(field.type) and table[field.name].null_count:
            frame[field.name] = table[field.name].to_pandas(types_mapper=_nullable().get)
    return frame


def as_validation_frame(table: pa.Table) -> Any:
    """`table` as a DataFrame for Great Expectations: values that compare exactly, can be hashed, and may be missing.

    Decimals are whole numbers of their last digit, because Great Expectations makes floats of decimal bounds. Lists are
    tuples.
    """
    import pandas as pd  # Slow to import, and not needed when the partition is in the lake already.

    frame = table.to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype(), pa.string(): pd.StringDtype()}.get)
    for field in table.schema:
        # Great Expectations compares pandas' nullable integers one by one, and those of NumPy all at once.
        if pt.is_integer(field.type) and table[field.name].null_count:
            frame[field.name] = table[field.name].to_pandas(types_mapper=_nullable().get)
    for field in table.schema:
        if pt.is_decimal(field.type):
            digits = [None if value is None else whole_digits(value, field.type.scale) for value in frame[field.name]]
            frame[field.name] = pd.Series(digits, frame.index, dtype=object)
        elif pt.is_list(field.type):
            tuples = [None if value is None else tuple(value) for value in frame[field.name]]
            frame[field.name] = pd.Series(tuples, frame.index, dtype=object)
    return frame


def _nullable() -> dict[pa.DataType, Any]:
    import pandas as pd

    return dict(
        zip(_INTEGERS.values(), (pd.Int8Dtype(), pd.Int16Dtype(), pd.Int32Dtype(), pd.Int64Dtype()), strict=True)
    )
