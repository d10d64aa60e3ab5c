"""Reads times that a sample has as text, as dates or as seconds since 1970."""

import re

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from training.domain.arrow_types import TIME

_ISO = re.compile(r"\d{4}-\d{2}-\d{2}(?:[ T]\d{2}:\d{2}.*)?")
#: Unit → the largest number of it that is taken for a time: 5138 in each unit.
_EPOCH = {"s": 10**11, "ms": 10**14, "us": 10**17, "ns": 2**63}
#: Smaller numbers of seconds are before 1973: most likely no times at all.
_FIRST_SECOND = 10**8


def as_times(values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """`values` as timestamps in UTC with microseconds; None when they are not times, or too far away for microseconds.

    Timestamps and dates are times, and so are texts when all of them are written in ISO 8601. A time without a zone is
    UTC. Digits below the microsecond are cut off.
    """
    try:
        return _as_times(values)
    except pa.ArrowInvalid:
        return None


def _as_times(values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    if pt.is_timestamp(values.type):
        # Through integers, because Arrow cannot convert from a zone whose name this machine does not have.
        counts = values.cast(pa.int64())
        unit = values.type.unit
        if unit == "ns":
            counts, unit = pc.divide(counts, 1000), "us"
        return counts.cast(pa.timestamp(unit)).cast(pa.timestamp("us")).cast(pa.int64()).cast(TIME)
    if pt.is_date(values.type):
        return values.cast(pa.timestamp("us")).cast(pa.int64()).cast(TIME)
    if pt.is_string(values.type):
        return _texts(values)
    return None


def to_times(values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """As `as_times`, and integers that count from 1970 on. For columns that a person or a spec calls times."""
    times = as_times(values)
    return _from_epoch(values) if times is None else times


def _from_epoch(values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Integers that count seconds, or thousandths, millionths, … of them since 1970, as times; None for others."""
    if not pt.is_integer(values.type) or values.null_count == len(values):
        return None
    low, high = (each.as_py() for each in pc.min_max(values).values())
    unit = next((unit for unit, largest in _EPOCH.items() if high < largest), None)
    if unit is None:
        return None
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    if low < _FIRST_SECOND * per_second:
        return None
    return as_times(values.cast(pa.int64()).cast(pa.timestamp(unit)))


def _texts(values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    known = values.drop_null()
    if not len(known) or not all(_ISO.fullmatch(text) for text in known.slice(0, 100).to_pylist()):
        return None
    for kind in (TIME, pa.timestamp("us")):  # The first takes texts with a zone only, the second texts without.
        try:
            return values.cast(kind).cast(pa.int64()).cast(TIME)
        except pa.ArrowInvalid:
            continue
    return None
