"""What a sample says about its columns: types, missing values, ranges, categories."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from training.contract.column_types import DECIMAL_DIGITS, ColumnType, column_type
from training.onboarding.sample import Sample
from training.onboarding.times import as_times

#: Counts of single values are kept up to so many different ones.
COUNTED = 100
#: The largest number of characters of a text in a prediction request.
_LONGEST_TEXT = 1000


@dataclass(frozen=True)
class Profile:
    """One column of a sample of `rows` rows.

    `declared`: its type in a spec; None when no spec can have it, for the reason `left_out`. `low` and `high`: the
    smallest and largest number. `counts`: value → rows, the most frequent first; empty when there are
    more than COUNTED values. `text_times`: the file has texts, all of which are times.
    """

    name: str
    original: str
    file_type: str
    rows: int
    declared: ColumnType | None
    left_out: str = ""
    nulls: int = 0
    distinct: int = 0
    low: Any = None
    high: Any = None
    mean: float | None = None
    counts: dict[Any, int] = field(default_factory=dict)
    text_times: bool = False
    all_whole: bool = False

    @property
    def kind(self) -> str:
        """The kind of `declared`; empty for a column that is left out."""
        return self.declared.kind if self.declared else ""

    @property
    def key_kind(self) -> str:
        """The kind as an id or an entity; empty: it can be neither. Whole floats are integers of which one is
        missing."""
        if self.kind == "float" and self.all_whole:
            return "int"
        return self.kind if self.kind in ("int", "string") else ""

    @property
    def known(self) -> int:
        """The rows with a value."""
        return self.rows - self.nulls

    @property
    def is_unique(self) -> bool:
        """Whether every row has a value of its own."""
        return not self.nulls and self.distinct == self.rows

    @property
    def is_constant(self) -> bool:
        return self.distinct == 1

    @property
    def is_zero_or_one(self) -> bool:
        """Whether the values are the numbers 0 and 1, both or one of them."""
        return self.kind in ("int", "float", "decimal") and 0 < len(self.counts) <= 2 and set(self.counts) <= {0, 1}


def profiles(sample: Sample) -> dict[str, Profile]:
    """Column → its profile, in the order of the file."""
    return {name: profile_of(name, original, sample.table[name]) for name, original in sample.original.items()}


def profile_of(name: str, original: str, values: pa.ChunkedArray) -> Profile:
    """The profile of one column, which the file calls `original`."""
    file_type, rows = str(values.type), len(values)
    text_times = False
    if pt.is_string(values.type) and (times := as_times(values)) is not None:
        values, text_times = times, True
    declared, left_out = _declared(values)
    plain = Profile(name, original, file_type, rows, declared, left_out, nulls=values.null_count)
    if declared is None or declared.kind == "list":
        return plain
    low = high = mean = None
    all_whole = False
    if declared.kind in ("int", "float", "decimal"):
        low, high = (each.as_py() for each in pc.min_max(values).values())
        mean = float(pc.mean(values.cast(pa.float64(), safe=False)).as_py())
        all_whole = declared.kind == "int" or _is_whole(values)
    countable = declared.kind not in ("date", "timestamp")  # Python does not hold all of these.
    distinct = pc.count_distinct(values, mode="only_valid").as_py()
    return Profile(
        name, original, file_type, rows, declared,
        nulls=values.null_count, distinct=distinct, low=low, high=high, mean=mean,
        counts=_counts(values) if countable and distinct <= COUNTED else {},
        text_times=text_times, all_whole=all_whole,
    )  # fmt: skip


def _is_whole(values: pa.ChunkedArray) -> bool:
    if pt.is_decimal(values.type):  # Its own type may have no room for a digit before the point.
        values = values.cast(pa.decimal256(2 * DECIMAL_DIGITS, values.type.scale))
    return bool(pc.all(pc.equal(values, pc.trunc(values))).as_py())


def _counts(values: pa.ChunkedArray) -> dict[Any, int]:
    found = {each["values"]: each["counts"] for each in pc.value_counts(values.drop_null()).to_pylist()}
    return dict(sorted(found.items(), key=lambda item: (-item[1], str(item[0]))))


def _declared(values: pa.ChunkedArray) -> tuple[ColumnType | None, str]:
    """The type of a spec for these values, or why there is none."""
    kind = values.type
    if pt.is_null(kind) or values.null_count == len(values):
        return None, "has no values"
    if pt.is_unsigned_integer(kind) and kind.bit_width == 64 and pc.max(values).as_py() >= 2**63:
        return None, f"is {kind} with numbers of 2⁶³ and more, which the lake cannot hold: deliver it as text"
    if pt.is_integer(kind) or pt.is_boolean(kind):
        return column_type(str(kind)), ""
    if pt.is_floating(kind):
        if not pc.all(pc.is_finite(values)).as_py():
            return None, "has infinite numbers, which no column may have: deliver them as missing"
        return column_type("float32" if pt.is_float32(kind) else "float64"), ""
    if pt.is_decimal(kind):
        if kind.scale < 0 or kind.precision > DECIMAL_DIGITS:
            return None, f"is {kind}, a decimal of more than {DECIMAL_DIGITS} digits or a negative scale"
        return column_type(f"decimal({kind.precision}, {kind.scale})"), ""
    if pt.is_string(kind):
        longest = pc.max(pc.utf8_length(values)).as_py()
        if longest > _LONGEST_TEXT:
            return None, f"has a text of {longest:,} characters; a request takes {_LONGEST_TEXT:,}"
        return column_type("string"), ""
    if pt.is_date(kind) or pt.is_timestamp(kind):
        return column_type("date" if pt.is_date(kind) else "timestamp"), ""
    return _list_type(values)


def _list_type(values: pa.ChunkedArray) -> tuple[ColumnType | None, str]:
    kind = values.type
    listed = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
    if not listed or not (pt.is_integer(kind.value_type) or pt.is_floating(kind.value_type)):
        return None, f"is {kind}, which is not a type of a spec: deliver its parts as columns of numbers or text"
    lengths = pc.unique(pc.list_value_length(values)).drop_null().to_pylist()
    bits = 32 if pt.is_float32(kind.value_type) else 64
    length = f", {lengths[0]}" if len(lengths) == 1 and lengths[0] else ""
    return column_type(f"list(float{bits}{length})"), ""


def only(found: dict[str, Profile], kinds: Sequence[str]) -> list[Profile]:
    """The profiles of columns of these kinds."""
    return [each for each in found.values() if each.kind in kinds]
