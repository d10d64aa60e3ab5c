"""Convert a landed table to the types of the spec.

A row with a value that the type cannot hold is quarantined. A partition with a column of another kind of type is
refused.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from training.contract.model_spec import FeedSpec

#: Column type in the spec → Arrow type, in the lake and everywhere else.
ARROW_TYPES: dict[str, pa.DataType] = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}
#: Column type in the spec → the types that a file may have for it, for messages.
_TAKES = {
    "int64": "integers, or floats that are whole numbers",
    "float64": "floats or integers",
    "string": "strings",
    "bool": "booleans",
    "timestamp": "timestamps (one without a zone is UTC)",
}
#: Key in the metadata of a field: the name of its type in the file, when Arrow's type does not tell it.
FILE_TYPE = b"file_type"
#: Float type → the largest number up to which it holds all whole numbers.
_WHOLE = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}
_UNITS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6}
#: The range of Python's datetime, the years 1 … 9999, in seconds since 1970.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799

#: Rule → bool [n]: which rows break it.
Unfit = dict[str, pa.ChunkedArray]


class Conformed(NamedTuple):
    """The feed's columns in the spec's order and types. Missing values are null, and so are values that do not fit.

    `unfit`: column → rule → positions of the rows whose value does not fit its type. `problems`: a sentence for each
    column that is missing or cannot be converted. `table` does not have these columns.
    """

    table: pa.Table
    unfit: dict[str, dict[str, list[int]]]
    problems: list[str]


def feed_schema(feed: FeedSpec) -> pa.Schema:
    """The Arrow schema of the feed's columns, in the spec's order."""
    return pa.schema([pa.field(name, ARROW_TYPES[column.type]) for name, column in feed.columns.items()])


def conform(landed: pa.Table, feed: FeedSpec) -> Conformed:
    """Convert the feed's columns of `landed`, whose column names are distinct, to the spec's types.

    NaN becomes null. Times are rounded down to microseconds. A time without a zone is UTC.
    """
    columns: dict[str, pa.ChunkedArray] = {}
    unfit: dict[str, dict[str, list[int]]] = {}
    problems: list[str] = []
    if not set(feed.columns) <= set(landed.column_names):
        problems.append(f"the columns of the file are {', '.join(landed.column_names) or '(none)'}")
    for name, column in feed.columns.items():
        if name not in landed.column_names:
            problems.append(_missing(name, landed.column_names))
        elif not _may_cast(landed.field(name), column.type):
            problems.append(_another_kind(landed.field(name), column.type))
        else:
            columns[name], broken = _cast(name, landed[name], ARROW_TYPES[column.type])
            rows = {rule: positions(where) for rule, where in broken.items()}
            unfit[name] = {rule: at for rule, at in rows.items() if at}
    return Conformed(pa.table(columns), unfit, problems)


def positions(mask: pa.ChunkedArray) -> list[int]:
    """The positions where `mask` is true. pyarrow's `indices_nonzero` crashes on a column without rows and chunks."""
    found: list[int] = np.flatnonzero(pc.fill_null(mask, False).to_numpy()).tolist()
    return found


def as_pandas(table: pa.Table) -> Any:
    """`table` as a DataFrame with pandas' nullable types, so that integers with nulls stay integers."""
    import pandas as pd  # Slow to import, and not needed when the partition is in the lake already.

    types = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype(), pa.string(): pd.StringDtype()}
    return table.to_pandas(types_mapper=types.get)


def as_exact_pandas(table: pa.Table) -> Any:
    """`table` as a DataFrame, with Int64 for columns of integers with nulls.

    `to_pandas` alone converts these to floats, which changes ids above 2**53.
    """
    import pandas as pd

    frame, types = table.to_pandas(), {pa.int64(): pd.Int64Dtype()}
    for field in table.schema:
        if field.type == pa.int64() and table[field.name].null_count:
            frame[field.name] = table[field.name].to_pandas(types_mapper=types.get)
    return frame


def _missing(name: str, names: list[str]) -> str:
    alike = [other for other in names if other.strip().lower() == name.lower()]
    hint = f" (the file has {alike[0]!r}: names must be equal, also in upper and lower case)" if alike else ""
    return f"column {name} is missing{hint}"


def _another_kind(field: pa.Field, wanted: str) -> str:
    found = (field.metadata or {}).get(FILE_TYPE, str(field.type).encode()).decode()
    return f"column {field.name} is not of type {wanted}: the file has {found}; {wanted} takes {_TAKES[wanted]}"


def _may_cast(field: pa.Field, wanted: str) -> bool:
    kind, target = field.type, ARROW_TYPES[wanted]
    if FILE_TYPE in (field.metadata or {}):
        return False
    if pt.is_dictionary(kind):
        kind = kind.value_type
    if pt.is_null(kind):
        return True
    if pt.is_integer(target) or pt.is_floating(target):
        return bool(pt.is_integer(kind) or pt.is_floating(kind))
    if pt.is_timestamp(target):
        return bool(pt.is_timestamp(kind))
    if pt.is_string(target):
        return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))
    return bool(kind == target)


def _cast(name: str, values: pa.ChunkedArray, target: pa.DataType) -> tuple[pa.ChunkedArray, Unfit]:
    """`values` as `target`, null where a value does not fit, and the rows where it does not. Call `_may_cast` first."""
    if pt.is_dictionary(values.type):
        values = pa.chunked_array([chunk.dictionary_decode() for chunk in values.chunks], values.type.value_type)
    if pt.is_null(values.type) or values.type == pa.bool_():
        return values.cast(target), {}
    if pt.is_timestamp(target):
        return _times(name, values)
    if pt.is_string(target):
        return _texts(name, values)
    return _numbers(name, values, target)


def _numbers(name: str, values: pa.ChunkedArray, target: pa.DataType) -> tuple[pa.ChunkedArray, Unfit]:
    if pt.is_floating(values.type):
        values, broken = _floats(name, values, whole=pt.is_integer(target))
    elif pt.is_floating(target):
        broken = {f"{name} is too large to be exact in float64": _beyond(values, 2**53)}
    else:
        broken = {f"{name} is too large for int64": _beyond(values, 2**63 - 1)}
    return _without(values, broken).cast(target), broken


def _floats(name: str, values: pa.ChunkedArray, whole: bool) -> tuple[pa.ChunkedArray, Unfit]:
    """As float64 with NaN as null. `whole`: they must be whole numbers, in the range where floats hold all of them."""
    largest, kind = _WHOLE[values.type], values.type
    values = values.cast(pa.float64())
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    infinite = pc.is_inf(values)
    broken = {f"{name} is infinite": infinite}
    if whole:
        too_large = pc.and_not(pc.greater(pc.abs(values), float(largest)), infinite)
        broken[f"{name} is not a whole number"] = pc.and_not(pc.not_equal(values, pc.trunc(values)), infinite)
        broken[f"{name} is too large to be exact in {kind}"] = too_large
    return values, broken


def _beyond(values: pa.ChunkedArray, largest: int) -> pa.ChunkedArray:
    """Which of these integers are outside ±`largest`."""
    if pt.is_signed_integer(values.type):
        wide = values.cast(pa.int64())
        return pc.or_(pc.greater(wide, largest), pc.less(wide, -largest - (largest == 2**63 - 1)))
    return pc.greater(values.cast(pa.uint64()), pa.scalar(largest, pa.uint64()))


def _texts(name: str, values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, Unfit]:
    """Check that texts are UTF-8, because Parquet readers do not, and later readers would fail."""
    try:
        values.validate(full=True)
        return values.cast(pa.string()), {}
    except pa.ArrowInvalid:
        raw = [None if each is None else bytes(each) for each in values.cast(pa.large_binary()).to_pylist()]
    texts = [None if each is None else _decoded(each) for each in raw]
    broken = pa.chunked_array([[text is None and each is not None for text, each in zip(texts, raw, strict=True)]])
    return pa.chunked_array([texts], pa.string()), {f"{name} is not UTF-8 text": broken}


def _decoded(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _times(name: str, values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, Unfit]:
    """Convert through integers, because Arrow cannot convert from a zone whose name this machine does not have."""
    unit, counts, broken = values.type.unit, values.cast(pa.int64()), {}
    if unit == "ns":  # 64 bits of nanoseconds only reach from 1677 to 2262.
        counts, unit = _floored(counts, 1000), "us"
    else:
        first, end = (second * _UNITS_PER_SECOND[unit] for second in (_FIRST_SECOND, _LAST_SECOND + 1))
        outside = pc.or_(pc.less(counts, first), pc.greater_equal(counts, end))
        broken[f"{name} is outside the years 1 … 9999"] = outside
    times = _without(counts, broken).cast(pa.timestamp(unit)).cast(pa.timestamp("us"))
    return times.cast(pa.int64()).cast(ARROW_TYPES["timestamp"]), broken


def _floored(counts: pa.ChunkedArray, divisor: int) -> pa.ChunkedArray:
    """Divide and round down. Rounding towards zero would move times before 1970 to the next day."""
    quotient = pc.divide(counts, divisor)
    too_high = pc.less(counts, pc.multiply(quotient, divisor))
    return pc.subtract(quotient, too_high.cast(pa.int64()))


def _without(values: pa.ChunkedArray, broken: Unfit) -> pa.ChunkedArray:
    """`values` with null where a rule is broken."""
    for rows in broken.values():
        values = pc.if_else(pc.fill_null(rows, False), pa.scalar(None, values.type), values)
    return values
