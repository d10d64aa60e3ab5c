"""Makes the rules of a column, and of the rows of a day, from the figures of a sample."""

import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from statistics import fmean, median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from training.contract.errors import InputError
from training.contract.feeds import RowCount
from training.contract.names import listed, shown
from training.domain.arrow_types import utc_days
from training.onboarding.profile import Profile

#: A text with at most so many values, each often enough in both halves of the sample, is a closed set.
_CLOSED_VALUES, _CLOSED_ROWS = 12, 20
#: An integer label with more values is a number, not a class.
CLASSES = 10
#: A text label with more values is not a class.
_MOST_CLASSES = 50
#: Of the number of rows of a day: how far beyond the sample's own extremes the rules allow.
_LOW_HEADROOM, _HIGH_HEADROOM = 0.5, 1.5
#: The days of history that `make land` puts into one file.
DAYS_PER_FILE = 90
#: Name of a part of a date or of a time → its range.
_CALENDAR = {
    "month": (1, 12),
    "week": (0, 53),
    "day": (1, 31),
    "day_of_year|yday|dayofyear": (1, 366),
    "weekday|day_of_week|dayofweek|dow": (0, 7),
    "hour": (0, 23),
    "minute": (0, 59),
}
#: A correlation with time above this is that of a counter.
_RISES = 0.9


@dataclass(frozen=True)
class Rules:
    """The fields of a column in a spec, and what the sample says about it."""

    fields: dict[str, Any]
    comment: str


def key_rules(each: Profile, unique: bool, comment: str) -> Rules:
    """Of an id or an entity: no bounds but zero, because new ones come."""
    fields: dict[str, Any] = {"type": _key_type(each)}
    if unique:
        fields["unique"] = True
    elif each.nulls:
        fields["nullable"] = True
    if fields["type"] != "string" and each.low >= 0:
        fields["minimum"] = 0
    return Rules(fields, comment)


def _key_type(each: Profile) -> str:
    assert each.declared is not None
    return "int64" if each.kind == "float" else each.declared.name


def column_rules(each: Profile, values: pa.ChunkedArray, times: pa.ChunkedArray) -> Rules:
    """Of any other column: a range with headroom for numbers, the values of a small closed set of texts.

    `times`: of the events.
    """
    assert each.declared is not None
    fields: dict[str, Any] = {"type": each.declared.name}
    if each.nulls:
        fields["nullable"] = True
    comment = [f"{each.nulls / each.rows:.1%} missing"] if each.nulls else []
    if each.is_constant:
        comment.append("one value only")
    elif each.kind == "string":
        extra, text = _text_rules(each, values)
        fields |= extra
        comment.append(text)
    elif each.is_zero_or_one and each.kind == "int":
        fields["values"] = [0, 1]
        comment.append(f"1 in {each.counts.get(1, 0) / each.known:.1%}")
    elif each.kind in ("int", "float", "decimal"):
        fields |= calendar_bounds(each) or bounds(each)
        comment.append(f"{_short(each.low)} … {_short(each.high)}, mean {_short(each.mean)}")
        if rises(values, times) and not calendar_bounds(each):
            fields.pop("maximum", None)
            comment.append("it rises with time, so it has no maximum")
    elif each.text_times:
        comment.append("text in the sample; `make land` writes timestamps")
    return Rules(fields, joined(comment))


def joined(parts: Iterable[str]) -> str:
    """The parts of a comment that are not empty."""
    return "; ".join(filter(None, parts))


def _text_rules(each: Profile, values: pa.ChunkedArray) -> tuple[dict[str, Any], str]:
    frequent = each.counts and min(each.counts.values()) >= _CLOSED_ROWS
    if frequent and each.distinct <= _CLOSED_VALUES and _in_both_halves(values, each.distinct):
        comment = f"most often {shown(next(iter(each.counts)))}; another value is a bad row"
        return {"values": sorted(each.counts)}, comment
    if each.counts:
        return {}, f"{each.distinct} values, such as {listed(list(each.counts)[:3])[:60]}"
    return {}, f"{each.distinct:,} values"


def _in_both_halves(values: pa.ChunkedArray, distinct: int) -> bool:
    """Whether both halves of the rows have all values: then the set does not seem to grow."""
    half = len(values) // 2
    parts = (values.slice(0, half), values.slice(half))
    return all(pc.count_distinct(part, mode="only_valid").as_py() == distinct for part in parts)


def bounds(each: Profile) -> dict[str, Any]:
    """`minimum` and `maximum` with the sample's whole range as headroom; no negative numbers where it has none.

    Empty when floats cannot express them: the range is too narrow or too wide.
    """
    assert each.declared is not None
    low, high = float(each.low), float(each.high)
    span = high - low
    if not is_normal(span) or not all(map(math.isfinite, (low - span, high + span))):
        return {}
    digit = math.floor(math.log10(span))
    step = 10.0**digit
    # Written as decimal numbers, because multiples of 0.1 are not exact floats.
    lowest, highest = (
        float(f"{multiple}e{digit}") for multiple in (math.floor((low - span) / step), math.ceil((high + span) / step))
    )
    lowest = max(lowest, 0.0) if low >= 0 else lowest
    highest = min(highest, 0.0) if high <= 0 else highest
    if each.kind == "int":
        least, most = each.declared.range
        # A float beyond 2**53 may lie beyond the type.
        lowest, highest = max(int(lowest), least), min(int(highest), most)
    elif each.kind == "decimal":
        # Beyond the largest whole number of the type only the type itself is a bound.
        end = 10 ** (each.declared.precision - each.declared.scale) - 1
        whole = {"minimum": math.floor(lowest), "maximum": math.ceil(highest)}
        return {name: bound for name, bound in whole.items() if abs(bound) <= end}
    else:
        end = float(np.finfo(np.float32 if each.declared.bits == 32 else np.float64).max)
        lowest, highest = _whole(max(lowest, -end)), _whole(min(highest, end))
    return {"minimum": lowest, "maximum": highest}


def calendar_bounds(each: Profile) -> dict[str, Any]:
    """Bounds of a part of a date, known by its name: a sample of some months does not have all of its values."""
    for name, (lowest, highest) in _CALENDAR.items():
        named = re.fullmatch(rf"(.*_)?({name})(_value)?", each.name, re.I)
        if named and lowest <= each.low and each.high <= highest:
            return {"minimum": lowest, "maximum": highest}
    return {}


def rises(values: pa.ChunkedArray, times: pa.ChunkedArray) -> bool:
    """Whether the numbers `values` rise with time, as those of a counter or of a year do."""
    return correlation(values, times.cast(pa.int64())) > _RISES


def correlation(first: pa.ChunkedArray, second: pa.ChunkedArray) -> float:
    """Pearson's correlation of two columns of numbers or booleans, over the rows that have both; 0 without variance."""
    both = pc.and_(first.is_valid(), second.is_valid())
    x, y = (_floats(each.filter(both)) for each in (first, second))
    return float(np.corrcoef(x, y)[0, 1]) if len(x) > 2 and x.std() > 0 and y.std() > 0 else 0.0


def _floats(values: pa.ChunkedArray) -> np.ndarray:
    if pt.is_boolean(values.type):
        values = values.cast(pa.int8())
    found: np.ndarray = values.cast(pa.float64(), safe=False).to_numpy()
    return found


def is_normal(value: float) -> bool:
    """Whether a positive number is finite, and not so near to 0 that quotients of it overflow."""
    return sys.float_info.min <= value < math.inf


def _whole(value: float) -> float | int:
    """As an integer, if it is one and not too long to read."""
    return int(value) if abs(value) < 1e15 and value == int(value) else value


def label_rules(each: Profile, positive: str = "") -> Rules:
    """Of a label. `positive`: the text of the class that becomes 1.

    Raises InputError for a column that no task can learn.
    """
    fields = _label_type(each, positive)
    if not each.nulls:
        return Rules(fields, _label_comment(each, positive))
    fields = {"type": fields.pop("type"), "nullable": True, **fields}
    missing = f"missing in {each.nulls / each.rows:.1%}: an event without a label by design"
    return Rules(fields, joined([_label_comment(each, positive), missing]))


def _label_type(each: Profile, positive: str) -> dict[str, Any]:
    assert each.declared is not None
    if positive:
        if each.kind != "string" or positive not in each.counts or len(each.counts) != 2:
            values = ", ".join(map(repr, each.counts)) or f"{each.distinct:,} values"
            hint = "Name one of the two values of a text label as POSITIVE."
            raise InputError(f"POSITIVE is {positive!r}, but the label {each.name} has {values}", hint)
        return {"type": "int64", "values": [0, 1]}
    if each.kind == "string":
        if not each.counts or each.distinct > _MOST_CLASSES:
            what = f"The label {each.name} is text with {each.distinct:,} values, too many to be classes"
            raise InputError(what, "Name another column as LABELS, or group its values first.")
        return {"type": "string", "values": sorted(each.counts)}
    if each.is_zero_or_one:
        return {"type": "int64", "values": [0, 1]}
    if each.kind == "bool":
        return {"type": "bool"}
    if each.kind not in ("int", "float", "decimal"):
        what = f"The label {each.name} is {each.file_type}; a label is a number, a class as text, or true and false"
        raise InputError(what, "Name another column as LABELS.")
    if each.kind == "int" and each.distinct <= CLASSES:
        return {"type": each.declared.name, "values": sorted(each.counts)}
    return {"type": each.declared.name, **({} if each.is_constant else bounds(each))}


def _label_comment(each: Profile, positive: str) -> str:
    if positive:
        return f"1 where the sample has {positive!r}: {each.counts[positive] / each.known:.1%}; deliver 0 and 1"
    if each.is_zero_or_one or each.kind == "bool":
        # True equals 1.
        return f"positive in {each.counts.get(1, 0) / each.known:.1%}"
    if each.kind in ("int", "float", "decimal") and each.mean is not None:
        return f"{_short(each.low)} … {_short(each.high)}, mean {_short(each.mean)}"
    return ", ".join(f"{shown(value)} {rows / each.known:.1%}" for value, rows in list(each.counts.items())[:5])


def day_counts(times: pa.ChunkedArray) -> dict[date, int]:
    """Day → its rows, for every day from the first to the last, also those without rows."""
    found = pc.value_counts(utc_days(times)).to_pylist()
    rows = {each["values"]: each["counts"] for each in found}
    first, last = min(rows), max(rows)
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return {day: rows.get(day, 0) for day in days}


def row_count_rules(counts: Mapping[date, int]) -> tuple[dict[str, Any], str]:
    """The fields of `row_count` that differ from its defaults, so that every day of the sample passes; a comment."""
    usual, every = RowCount(), list(counts.values())
    ratios = []
    for at in range(1, len(every)):
        before = every[max(0, at - usual.history_days) : at]
        # Days of a partition of several days count with the partition's mean.
        means = fmean(before), fmean(every[max(0, at - DAYS_PER_FILE) : at])
        ratios += [every[at] / typical for typical in (median(before), *means) if typical]
    fields: dict[str, Any] = {}
    if 0 in every:
        fields["minimum"] = 0
    lowest, highest = min(ratios, default=1.0), max(ratios, default=1.0)
    if lowest * _LOW_HEADROOM < usual.minimum_ratio:
        fields["minimum_ratio"] = math.floor(lowest * _LOW_HEADROOM * 100) / 100
    if highest * _HIGH_HEADROOM > usual.maximum_ratio:
        fields["maximum_ratio"] = float(math.ceil(highest * _HIGH_HEADROOM))
    times = f"{_short_ratio(lowest)} to {_short_ratio(highest)} times the days before"
    comment = f"{min(every):,} to {max(every):,} rows a day, {times}"
    return fields, comment


def largest_gap(counts: Mapping[date, int]) -> int:
    """Days from a day with rows to the next one, at most."""
    days = [day for day, rows in counts.items() if rows]
    return max(((later - earlier).days for earlier, later in pairwise(days)), default=1)


def _short_ratio(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def _short(value: Any) -> str:
    return f"{float(value):.5g}" if abs(float(value)) < 1e5 else f"{float(value):,.0f}"
