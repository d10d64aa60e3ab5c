"""Convert a column of a landed file to a type of the spec, without loss. A value that does not fit becomes null."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from training.contract.column_types import ColumnType, column_type
from training.domain.arrow_types import TIME, stored_as

#: Rule → bool [n]: which rows break it.
Unfit = dict[str, pa.ChunkedArray]

#: Kind of type in the spec → the types that a file may have for it, for messages.
TAKES = {
    "int": "integers, or floats and decimals that are whole numbers",
    "float": "floats or integers",
    "decimal": "decimals or integers",
    "string": "strings",
    "bool": "booleans",
    "date": "dates, or timestamps at midnight without a zone or in UTC",
    "timestamp": "timestamps (one without a zone is UTC)",
    "list": "lists of floats or integers",
}
#: Float type → the largest number up to which it holds all whole numbers.
_WHOLE = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6}
_DAY_SECONDS = 86_400
#: The range of Python's dates, the years 1 … 9999, in days and in seconds since 1970.
_DAYS = (-719_162, 2_932_896)
_SECONDS = (_DAYS[0] * _DAY_SECONDS, (_DAYS[1] + 1) * _DAY_SECONDS - 1)
#: Any decimal of a file, and any integer, fits into it.
_WIDEST_DIGITS = 76
_UTC = (None, "UTC", "Etc/UTC", "Z", "+00:00")


def may_cast(kind: pa.DataType, of: ColumnType) -> bool:
    """Whether values of type `kind` in a file can be converted, at least some of them."""
    if pt.is_dictionary(kind):
        kind = kind.value_type
    if pt.is_null(kind):
        return True
    match of.kind:
        case "int":
            return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))
        case "float":
            return bool(pt.is_integer(kind) or pt.is_floating(kind))
        case "decimal":
            return bool(pt.is_integer(kind) or pt.is_decimal(kind))
        case "timestamp":
            return bool(pt.is_timestamp(kind))
        case "date":
            return bool(pt.is_date(kind) or (pt.is_timestamp(kind) and kind.tz in _UTC))
        case "string":
            return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))
        case "list":
            listed = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
            return bool(listed and (pt.is_integer(kind.value_type) or pt.is_floating(kind.value_type)))
    return bool(kind == stored_as(of))


def cast(name: str, values: pa.ChunkedArray, of: ColumnType) -> tuple[pa.ChunkedArray, Unfit]:
    """`values` as `of`, null where a value does not fit, and the rows where it does not. Call `may_cast` first."""
    if pt.is_dictionary(values.type):
        values = pa.chunked_array([chunk.dictionary_decode() for chunk in values.chunks], values.type.value_type)
    if pt.is_null(values.type) or of.kind == "bool":
        return values.cast(stored_as(of)), {}
    if of.kind == "int":
        return _integers(name, values, of)
    if of.kind == "float":
        return _floats(name, values, of)
    makers = {"decimal": _decimals, "timestamp": _times, "date": _dates, "list": _lists, "string": _texts}
    return makers[of.kind](name, values, of)


def _integers(name: str, values: pa.ChunkedArray, of: ColumnType) -> tuple[pa.ChunkedArray, Unfit]:
    broken: Unfit = {}
    if pt.is_floating(values.type):
        values, broken = _finite(name, values, whole=True)
        values = _without(values, broken).cast(pa.int64())
    elif pt.is_decimal(values.type):
        values = values.cast(pa.decimal256(_WIDEST_DIGITS, values.type.scale))
        broken = {f"{name} is not a whole number": pc.not_equal(values, pc.trunc(values))}
        values = _without(values, broken).cast(pa.decimal256(_WIDEST_DIGITS, 0))
    end = "int64, which holds uint64 in the lake" if (of.bits, of.signed) == (64, False) else of.name
    below, above = _outside(values, *of.range)
    outside = {f"{name} is too large for {end}": above, f"{name} is too small for {of.name}": below}
    return _without(values, outside).cast(stored_as(of)), broken | outside


def _outside(values: pa.ChunkedArray, low: int, high: int) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Which of these integers, or whole decimals, are below `low`, and which are above `high`."""
    if pt.is_decimal(values.type):
        wide = values.type
    else:
        wide = pa.int64() if pt.is_signed_integer(values.type) else pa.uint64()
        low = low if wide == pa.int64() else max(low, 0)
    values = values.cast(wide)
    first, last = (pa.scalar(Decimal(each) if pt.is_decimal(wide) else each, wide) for each in (low, high))
    return pc.less(values, first), pc.greater(values, last)


def _floats(name: str, values: pa.ChunkedArray, of: ColumnType) -> tuple[pa.ChunkedArray, Unfit]:
    if not pt.is_floating(values.type):
        inexact = pc.or_(*_outside(values, -of.whole, of.whole))
        broken = {f"{name} is too large to be exact in {of.name}": inexact}
        return _without(values, broken).cast(stored_as(of)), broken
    values, broken = _finite(name, values, whole=False)
    values = _without(values, broken)
    narrow = values.cast(stored_as(of), safe=False)
    if of.bits == 32:
        inexact = {f"{name} is not exact in float32": pc.not_equal(narrow.cast(pa.float64()), values)}
        return _without(narrow, inexact), broken | inexact
    return narrow, broken


def _finite(name: str, values: pa.ChunkedArray, whole: bool) -> tuple[pa.ChunkedArray, Unfit]:
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


def _decimals(name: str, values: pa.ChunkedArray, of: ColumnType) -> tuple[pa.ChunkedArray, Unfit]:
    if pt.is_integer(values.type):
        values = values.cast(pa.decimal128(20, 0))
    values = values.cast(pa.decimal256(_WIDEST_DIGITS, values.type.scale))
    broken: Unfit = {}
    if values.type.scale > of.scale:
        rounded = pc.round(values, ndigits=of.scale)
        broken[f"{name} has more than {of.scale} digits after the point"] = pc.not_equal(values, rounded)
    digits = of.precision - of.scale
    if digits + values.type.scale < _WIDEST_DIGITS:  # Else the file's type has no larger numbers.
        end = pa.scalar(Decimal(10**digits), values.type)
        broken[f"{name} is too large for {of.name}"] = pc.greater_equal(pc.abs(values), end)
    return _without(values, broken).cast(stored_as(of)), broken


def _texts(name: str, values: pa.ChunkedArray, of: ColumnType) -> tuple[pa.ChunkedArray, Unfit]:
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


def _times(name: str, values: pa.ChunkedArray, of: ColumnType) -> tuple[pa.ChunkedArray, Unfit]:
    """Convert through integers, because Arrow cannot convert from a zone whose name this machine does not have."""
    unit, counts = values.type.unit, values.cast(pa.int64())
    if unit == "ns":  # 64 bits of nanoseconds only reach from 1677 to 2262.
        whole = pc.multiply(pc.divide(counts, 1000), 1000)
        broken = {f"{name} has digits below the microsecond": pc.not_equal(counts, whole)}
        counts, unit = pc.divide(counts, 1000), "us"
    else:
        broken = {f"{name} is outside the years 1 … 9999": _outside_the_years(counts, _PER_SECOND[unit])}
    times = _without(counts, broken).cast(pa.timestamp(unit)).cast(pa.timestamp("us"))
    return times.cast(pa.int64()).cast(TIME), broken


def _dates(name: str, values: pa.ChunkedArray, of: ColumnType) -> tuple[pa.ChunkedArray, Unfit]:
    if pt.is_date32(values.type):
        days = values.cast(pa.int32()).cast(pa.int64())
        broken = {f"{name} is outside the years 1 … 9999": pc.or_(*_outside(days, *_DAYS))}
        return _without(days, broken).cast(pa.int32()).cast(pa.date32()), broken
    unit = "ms" if pt.is_date64(values.type) else values.type.unit
    counts, per_second = values.cast(pa.int64()), {**_PER_SECOND, "ns": 10**9}[unit]
    days = pc.divide(counts, _DAY_SECONDS * per_second)
    broken = {f"{name} has a time of day": pc.not_equal(counts, pc.multiply(days, _DAY_SECONDS * per_second))}
    if unit != "ns":
        broken[f"{name} is outside the years 1 … 9999"] = _outside_the_years(counts, per_second)
    return _without(days, broken).cast(pa.int32()).cast(pa.date32()), broken


def _outside_the_years(counts: pa.ChunkedArray, per_second: int) -> pa.ChunkedArray:
    return pc.or_(*_outside(counts, _SECONDS[0] * per_second, (_SECONDS[1] + 1) * per_second - 1))


def _lists(name: str, values: pa.ChunkedArray, of: ColumnType) -> tuple[pa.ChunkedArray, Unfit]:
    """Convert the elements as floats. A list with an element that is missing or does not fit is null."""
    rows = values.combine_chunks().cast(pa.large_list(values.type.value_type))
    lengths = pc.list_value_length(rows)
    counts = pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
    of_row = np.repeat(np.arange(len(rows)), counts)
    elements, element_rules = _floats("an element", pa.chunked_array([rows.flatten()]), column_type(f"float{of.bits}"))
    misfit = np.logical_or.reduce([pc.fill_null(where, False).to_numpy() for where in element_rules.values()])
    element_rules["an element is missing"] = pa.chunked_array([elements.is_null().to_numpy() & ~misfit])
    broken = {}
    for rule, where in element_rules.items():
        at = np.unique(of_row[pc.fill_null(where, False).to_numpy()])
        broken[f"{name}: {rule}"] = pa.chunked_array([np.isin(np.arange(len(rows)), at)])
    if of.length:
        broken[f"{name} does not have {of.length} elements"] = pa.chunked_array([pc.not_equal(lengths, of.length)])
    offsets = np.append(0, np.cumsum(counts))
    made = pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), elements.combine_chunks(), type=stored_as(of), mask=rows.is_null()
    )
    return _without(pa.chunked_array([made]), broken), broken


def _without(values: pa.ChunkedArray, broken: Unfit) -> pa.ChunkedArray:
    """`values` with null where a rule is broken."""
    for rows in broken.values():
        values = pc.if_else(pc.fill_null(rows, False), pa.scalar(None, values.type), values)
    return values
