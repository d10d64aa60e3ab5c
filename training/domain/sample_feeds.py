"""Sample events and labels that follow a source spec. The check step runs the SQL and the request features on them.

They contain the cases that real feeds have: entities with many events and entities with one, an event exactly at
midnight, nulls where the spec allows them, values at the bounds, and labels that are early, late, missing and
corrected.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from training.contract.base import midnight
from training.contract.column_types import as_float32
from training.contract.columns import Column
from training.contract.feeds import EVENTS
from training.contract.source_spec import SourceSpec
from training.domain.arrow_types import feed_schema

#: Number of entities with many events, and their events per day. Each day has one more entity with a single event.
REGULARS, PER_DAY = 6, 12
_NULL_SHARE = 0.1
#: NumPy draws from no wider range.
_WIDEST = 1e300

Values = list[Any]


def sample_feeds(
    spec: SourceSpec, first: date, days: int, also: Sequence[str | float] = (), seed: int = 0
) -> dict[str, pa.Table]:
    """Events of `days` days from `first` on and their labels: feed → Arrow table with the feed's schema.

    `also`: values to use in columns of their type, when the rules allow them.
    """
    random = np.random.default_rng(seed)
    events = _events(spec, first, days, also, random)
    found = {EVENTS: events}
    found |= {feed: _labels(spec, feed, events, also, random) for feed in spec.label_feeds}
    return {feed: pa.table(columns, schema=feed_schema(spec.feeds[feed])) for feed, columns in found.items()}


def _events(
    spec: SourceSpec, first: date, days: int, also: Sequence[str | float], random: np.random.Generator
) -> dict[str, Values]:
    feed = spec.events
    times = _times(first, days, random)
    rows = len(times)
    # The number of the entity of each row. The last row of each day has an entity that no other row has.
    numbers = random.integers(0, REGULARS, rows)
    single = np.arange(rows) % (PER_DAY + 1) == PER_DAY
    numbers[single] = REGULARS + np.arange(int(single.sum()))
    entities = set(spec.entities.values())
    found: dict[str, Values] = {}
    for name, column in feed.columns.items():
        if name == feed.time_column:
            found[name] = list(times)
        elif name == spec.id_column:
            found[name] = _distinct(column, rows)
        elif name in entities:
            # Each column gets its own order, so that two entity columns do not group the rows in the same way.
            shuffled = np.append(random.permutation(REGULARS), np.arange(REGULARS, REGULARS + days))
            pool = _distinct(column, REGULARS + days)
            mixed = np.where(single, numbers, random.integers(0, REGULARS, rows))
            found[name] = [pool[shuffled[i] % len(pool)] for i in mixed]
        else:
            found[name] = _plain(column, times, also, random)
        if column.nullable:
            found[name] = [None if random.random() < _NULL_SHARE else value for value in found[name]]
    return found


def _times(first: date, days: int, random: np.random.Generator) -> list[datetime]:
    """PER_DAY + 1 times per day, in order. The first is midnight."""
    found = []
    for n in range(days):
        seconds = np.sort(random.integers(0, 86_400, PER_DAY))
        found += [midnight(first + timedelta(days=n)) + timedelta(seconds=int(s)) for s in [0, *seconds]]
    return found


def _labels(
    spec: SourceSpec,
    name_of_feed: str,
    events: dict[str, Values],
    also: Sequence[str | float],
    random: np.random.Generator,
) -> dict[str, Values]:
    feed, labels = spec.feeds[name_of_feed], spec.labels_of(name_of_feed)
    delay = labels[0].delay_days
    zero_or_one = {label.column for label in labels if _is_zero_or_one(feed.columns[label.column])}
    rows: list[tuple[int, float, datetime]] = []
    for i, at in enumerate(events[spec.events.time_column]):
        if random.random() < 0.1:
            continue  # Never reported.
        # Most within the delay, some on the same day, some after the delay.
        days = random.choice([random.random() * (delay + 1), 0.01, delay + random.random() * 10], p=[0.7, 0.15, 0.15])
        reported, value = at + timedelta(days=float(days)), float(random.random() < 0.3)
        rows.append((i, value, reported))
        if random.random() < 0.3:
            rows.append((i, 1 - value, reported + timedelta(days=float(1 + random.random() * (delay + 1)))))
    found: dict[str, Values] = {}
    for name, column in feed.columns.items():
        if name in zero_or_one:
            found[name] = [_label_value(column, value) for _, value, _ in rows]
        elif name == feed.time_column:
            found[name] = [reported for _, _, reported in rows]
        elif name in events and column.type == spec.events.columns[name].type:
            found[name] = [events[name][i] for i, _, _ in rows]
        else:
            found[name] = _plain(column, [reported for _, _, reported in rows], also, random)
    return found


def _is_zero_or_one(column: Column) -> bool:
    """Whether the column's rules allow nothing but 0 and 1, or false and true."""
    if column.values is not None:
        return column.kind == "bool" or {1} <= set(column.values) <= {0, 1}
    return column.kind == "bool" or (column.minimum in (0, 1) and column.maximum == 1)


def _label_value(column: Column, value: float) -> bool | int:
    if column.kind == "bool":
        return bool(value)
    return 1 if column.values is not None and 0 not in column.values else int(value)


def _distinct(column: Column, count: int) -> Values:
    """Up to `count` distinct values for an id or an entity. Fewer if the column's rules do not allow so many."""
    if column.allowed is not None:
        return list(column.allowed)[:count]
    if column.kind == "string":
        return [f"id-{i}" for i in range(count)]
    if column.kind in ("date", "timestamp"):
        return _consecutive(column, count)
    low, high = _bounds(column, count)
    if column.kind in ("float", "decimal"):
        return [_number(column, value) for value in np.linspace(low, high, count)]
    return [int(value) for value in range(int(low), int(min(high, low + count - 1)) + 1)]


def _plain(column: Column, times: list[datetime], also: Sequence[str | float], random: np.random.Generator) -> Values:
    """A value for each of `times` that follows the column's type and rules. The bounds are among them."""
    rows = len(times)
    if column.allowed is not None:
        return [column.allowed[i] for i in random.integers(0, len(column.allowed), rows)]
    if column.kind == "bool":
        return [bool(value) for value in random.random(rows) < 0.5]
    if column.kind == "list":
        lengths = [column.parsed.length or int(random.integers(0, 4)) for _ in range(rows)]
        return [random.random(length).astype(np.float32).tolist() for length in lengths]
    if column.unique:
        return _distinct(column, rows)
    if column.kind in ("date", "timestamp"):
        before = [at - timedelta(hours=float(random.random() * 48)) for at in times]
        found = [at.date() if column.kind == "date" else at for at in before]
        return [_clipped(column, at) for at in found]
    if column.kind == "string":
        pool = ["a", "b", "é", "", *(value for value in also if isinstance(value, str))]
        return [pool[i] for i in random.integers(0, len(pool), rows)]
    low, high = _bounds(column, 100)
    drawn = random.uniform(low, high, rows)
    edges = [low, high, *([0] if low <= 0 <= high else [])]
    drawn[: len(edges)] = edges[: len(drawn)]
    # A fifth of the rows get a value at or next to one of the numbers in `also`.
    near = [v + d for v in also if not isinstance(v, str) for d in (-1, 0, 1) if _allows(column, v + d)]
    if near:
        drawn = np.where(random.random(rows) < 0.2, random.choice(near, rows), drawn)
    return [_number(column, value) for value in drawn]


def _number(column: Column, value: float) -> int | float | Decimal:
    """`value` in the column's type, with at most two digits after the point."""
    if column.kind == "int":
        low, high = column.parsed.range  # A large bound may have been rounded to a float beyond it.
        return int(_clipped(column, min(max(round(value), low), high)))
    if column.kind == "decimal":
        return Decimal(round(value * 10 ** min(column.parsed.scale, 2))).scaleb(-min(column.parsed.scale, 2))
    rounded = round(float(value), 2)
    return as_float32(rounded) if column.parsed.bits == 32 else rounded


def _clipped(column: Column, at: Any) -> Any:
    """The value `at`, or the bound of the column that it is beyond."""
    at = at if column.low is None else max(at, column.low)
    return at if column.high is None else min(at, column.high)


def _consecutive(column: Column, count: int) -> Values:
    """Days from the lower bound, or up to the upper one."""
    first = column.low if column.low is not None else column.high
    if first is None:
        first = date(2026, 1, 5) if column.kind == "date" else midnight(date(2026, 1, 5))
    step = timedelta(days=-1 if column.low is None and column.high is not None else 1)
    found = [first + n * step for n in range(count)]
    return [at for at in found if column.within(at)]


def _allows(column: Column, value: float) -> bool:
    """Whether `value` is within the column's bounds, and its type."""
    of = column.parsed
    fits = column.kind != "decimal" or abs(value) < 10 ** (of.precision - of.scale)
    return fits and column.within(value)


def _bounds(column: Column, width: int) -> tuple[float, float]:
    """The lowest and the highest sample value. Without bounds the range includes negative numbers."""
    low, high = (float(bound) if isinstance(bound, Decimal) else bound for bound in (column.low, column.high))
    if column.kind == "float" and low is not None and high is not None and high - low > _WIDEST:
        low, high = max(low, -_WIDEST / 2), min(high, _WIDEST / 2)
    of = column.parsed
    smallest, largest = of.range if column.kind == "int" else (float("-inf"), float("inf"))
    if column.kind == "decimal":
        largest = 10 ** (of.precision - of.scale) - 1
        smallest = -largest
    if low is None:
        low = max(smallest, -1 if high is None else min(-1, high - width))
    return low, min(largest, low + width) if high is None else high
