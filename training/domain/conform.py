"""A landed table in the spec's types. A value that its type cannot hold costs its row; a column that is of another kind
altogether costs the partition.
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
#: Column type in the spec → what a file may have for it.
_TAKES = {
    "int64": "integers, or floats that are whole numbers",
    "float64": "floats or integers",
    "string": "strings",
    "bool": "booleans",
    "timestamp": "timestamps (one without a zone is UTC)",
}
#: Key in a field's metadata: the name of its type in the file, where Arrow's says less.
FILE_TYPE = b"file_type"
#: Float type → the largest number up to which it holds every whole one.
_WHOLE = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}
_UNITS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6}
#: Seconds since 1970 of the first and the last moment that Python's datetime holds: the years 1 … 9999.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799

#: The rule that a value breaks → bool [n], which rows break it.
Unfit = dict[str, pa.ChunkedArray]


class Conformed(NamedTuple):
    """The feed's columns in the spec's order and types. A missing value is null; so is one that its type cannot hold.

    `unfit`: column → rule → positions of the rows with such a value. `problems`: a sentence for each column that is
    missing or cannot be converted; `table` is without it.
    """

    table: pa.Table
    unfit: dict[str, dict[str, list[int]]]
    problems: list[str]


def feed_schema(feed: FeedSpec) -> pa.Schema:
    """The Arrow schema of the feed's columns, in the spec's order."""
    return pa.schema([pa.field(name, ARROW_TYPES[column.type]) for name, column in feed.columns.items()])


def conform(landed: pa.Table, feed: FeedSpec) -> Conformed:
    """The feed's columns of `landed` (whose names differ) in the spec's types.

    NaN is null. Digits of a time below the microsecond are cut off. A time without a zone is UTC.
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
    """Where `mask` is true. pyarrow's `indices_nonzero` ends the process when a column has no rows and no chunks."""
    found: list[int] = np.flatnonzero(pc.fill_null(mask, False).to_numpy()).tolist()
    return found


def as_pandas(table: pa.Table) -> Any:
    """`table` as a DataFrame, with types that tell a missing number from one that is not a whole number."""
    import pandas as pd  # Slow to import, and a partition that is in the lake already needs none of it.

    types = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype(), pa.string(): pd.StringDtype()}
    return table.to_pandas(types_mapper=types.get)


def as_exact_pandas(table: pa.Table) -> Any:
    """`table` as a DataFrame, with Int64 for integers of which some are null.

    `to_pandas` alone makes floats of these, in which ids beyond 2**53 are other ids.
    """
    import pandas as pd

    frame, types = table.to_pandas(), {pa.int64(): pd.Int64Dtype()}
    for field in table.schema:
        if field.type == pa.int64() and table[field.name].null_count:
            frame[field.name] = table[field.name].to_pandas(types_mapper=types.get)
    return frame


def _missing(name: str, names: list[str]) -> str:
    alike = [other for other in names if other.strip().lower() == name.lower()]
    hint = f" (the file has {alike[0]!r}: names must agree to the letter, capitals too)" if alike else ""
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
    """`values` as `target`, null where a value does not fit, and which those are. `_may_cast` has allowed it."""
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
    """As float64, NaN as null. `whole`: they must be whole numbers, and not so large that floats skip some of them."""
    largest, kind = _WHOLE[values.type], values.type
    values = values.cast(pa.float64())
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    infinite = pc.is_inf(values)
    broken = {f"{name} is infinite": infinite}
    if whole:
        large = pc.and_not(pc.greater(pc.abs(values), float(largest)), infinite)
        broken[f"{name} is not a whole number"] = pc.and_not(pc.not_equal(values, pc.trunc(values)), infinite)
        broken[f"{name} is too large to be exact in {kind}"] = large
    return values, broken


def _beyond(values: pa.ChunkedArray, largest: int) -> pa.ChunkedArray:
    """Which of these integers lie outside ±`largest`."""
    if pt.is_signed_integer(values.type):
        wide = values.cast(pa.int64())
        return pc.or_(pc.greater(wide, largest), pc.less(wide, -largest - (largest == 2**63 - 1)))
    return pc.greater(values.cast(pa.uint64()), pa.scalar(largest, pa.uint64()))


def _texts(name: str, values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, Unfit]:
    """Parquet readers do not check that text is UTF-8, and what is not breaks whoever reads it later."""
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
    """By way of integers: the moment does not depend on the zone's name, which may be unknown on this machine."""
    unit, counts, broken = values.type.unit, values.cast(pa.int64()), {}
    if unit == "ns":  # All that 64 bits can count lie between 1677 and 2262.
        counts, unit = _floored(counts, 1000), "us"
    else:
        first, end = (second * _UNITS_PER_SECOND[unit] for second in (_FIRST_SECOND, _LAST_SECOND + 1))
        outside = pc.or_(pc.less(counts, first), pc.greater_equal(counts, end))
        broken[f"{name} is outside the years 1 … 9999"] = outside
    times = _without(counts, broken).cast(pa.timestamp(unit)).cast(pa.timestamp("us"))
    return times.cast(pa.int64()).cast(ARROW_TYPES["timestamp"]), broken


def _floored(counts: pa.ChunkedArray, divisor: int) -> pa.ChunkedArray:
    """Divided and rounded down: cut towards zero, the last moment of a day before 1970 would become the next day."""
    quotient = pc.divide(counts, divisor)
    too_high = pc.less(counts, pc.multiply(quotient, divisor))
    return pc.subtract(quotient, too_high.cast(pa.int64()))


def _without(values: pa.ChunkedArray, broken: Unfit) -> pa.ChunkedArray:
    for rows in broken.values():
        values = pc.if_else(pc.fill_null(rows, False), pa.scalar(None, values.type), values)
    return values
