"""Rows that are in quarantine, in the types of the spec again."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from training.contract.columns import Column
from training.contract.feeds import FeedSpec
from training.domain.arrow_types import feed_schema
from training.domain.quarantine import DELIVERED

#: Bytes that are not text are escaped in quarantine, so the text there is another one.
_NOT_TEXT = "is not UTF-8 text"
_TOO_FINE = re.compile(r"\.\d{6}\d*[1-9]")


def restored(quarantined: Sequence[Mapping[str, str]], feed: FeedSpec) -> tuple[pa.Table, list[int]]:
    """The rows whose values fit the types of the spec, and the positions in `quarantined` of the others.

    `quarantined` has `row` and `reason`. The table has the columns of the feed, and DELIVERED: the row as it was
    delivered, in JSON. A column that a row lacks is null.
    """
    good: list[dict[str, Any]] = []
    others: list[int] = []
    for at, each in enumerate(quarantined):
        try:
            if _NOT_TEXT in each["reason"]:
                raise ValueError(each["reason"])
            delivered = json.loads(each["row"])
            values = {name: value_of(delivered.get(name), column) for name, column in feed.columns.items()}
            good.append({**values, DELIVERED: each["row"]})
        except (ValueError, InvalidOperation, OverflowError):
            others.append(at)
    return pa.Table.from_pylist(good, composed_schema(feed)), others


def composed_schema(feed: FeedSpec) -> pa.Schema:
    """The columns of the feed, and DELIVERED, null in a row that is not from quarantine."""
    return feed_schema(feed).append(pa.field(DELIVERED, pa.string()))


def value_of(found: Any, column: Column) -> Any:
    """A value of a quarantined row in the type of `column`, as Python has it.

    Raises ValueError, OverflowError or InvalidOperation when the type does not hold it without loss.
    """
    if found is None or found == "nan":
        return None
    kind = column.parsed
    if kind.kind == "int":
        low, high = kind.range
        if isinstance(found, bool) or not isinstance(found, int | float) or found != int(found):
            raise ValueError(f"{found!r} is not a whole number")
        if not low <= int(found) <= high:
            raise ValueError(f"{found!r} is outside {kind.name}")
        return int(found)
    if kind.kind == "float":
        return _float(found, kind.bits)
    if kind.kind == "list":
        if not isinstance(found, list) or (kind.length and len(found) != kind.length):
            raise ValueError(f"{found!r} is not such a list")
        return [_float(each, kind.bits) for each in found]
    if kind.kind == "bool":
        if not isinstance(found, bool):
            raise ValueError(f"{found!r} is neither true nor false")
        return found
    if not isinstance(found, str):
        raise ValueError(f"{found!r} is not text")
    if kind.kind == "timestamp":
        return _time(found)
    if kind.kind == "date":
        return date.fromisoformat(found)
    if kind.kind == "decimal":
        return _decimal(found, kind.precision, kind.scale)
    return found


def _float(found: Any, bits: int) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise ValueError(f"{found!r} is not a number")
    value = float(found)
    exact = pa.scalar(value, pa.float32()).as_py() == value if bits == 32 else value == found
    if not exact:
        raise ValueError(f"{found!r} is not exact")
    return value


def _time(found: str) -> datetime:
    """A time without a zone is UTC, as in a file."""
    if _TOO_FINE.search(found):
        raise ValueError(f"{found} has digits below the microsecond")
    value = datetime.fromisoformat(found)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _decimal(found: str, precision: int, scale: int) -> Decimal:
    value = Decimal(found)
    if value != round(value, scale) or abs(value) >= Decimal(10) ** (precision - scale):
        raise ValueError(f"{found} does not fit decimal({precision}, {scale})")
    return value
