"""Partitions: their names and days, the feature days that they affect, and how many rows a day should have."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from training.contract.base import Days
from training.contract.errors import InputError
from training.contract.model_spec import RowCount
from training.domain.arrow_types import utc_days

if TYPE_CHECKING:
    import pandas as pd

_DAY = timedelta(days=1)
#: The years that a partition may be of. Nanoseconds in 64 bits, as pandas counts time, reach from 1677 to 2262.
FIRST_YEAR, LAST_YEAR = 1700, 2250


def partition_days(name: str) -> Days:
    """The days in a partition's name: `2026-01-05`, or `2026-01-05_2026-01-18` (the last day included).

    Raises InputError when the name has another form, ends before it starts, or is of years that no data has.
    """
    first, _, last = name.partition("_")
    try:
        start, end = date.fromisoformat(first), date.fromisoformat(last or first)
        days = Days(start=start, end=end + _DAY)
    except (ValueError, OverflowError) as error:
        hint = "Name files 2026-01-05.parquet, or 2026-01-05_2026-01-18.parquet for several days."
        raise InputError(f"{name!r} is not the name of a partition", hint) from error
    if partition_name(days) != name:
        raise InputError(f"{name!r} should be written {partition_name(days)!r}", "Rename the file.")
    if start.year < FIRST_YEAR or end.year > LAST_YEAR:
        raise InputError(f"{name!r} is not of the years {FIRST_YEAR} to {LAST_YEAR}", "Name the file after its days.")
    return days


def partition_name(days: Days) -> str:
    """The inverse of `partition_days`."""
    last = days.end - _DAY
    return str(days.start) if last == days.start else f"{days.start}_{last}"


def ingest_application(name: str) -> str:
    """The name of the fingerprint of partition `name` in the commits of its rows."""
    return f"ingest/{name}"


def replayed_application(name: str) -> str:
    """The name under which the fingerprint of the delivery is kept whose quarantined rows were replayed since."""
    return f"delivered/{name}"


def widened(days: Days, slack_days: int) -> Days:
    """`days` with `slack_days` added before and after."""
    return Days(start=days.start - slack_days * _DAY, end=days.end + slack_days * _DAY)


def affected_days(
    changed: Days, history_days: int, horizon: date | None, since: date | None = None, hourly: bool = False
) -> Days | None:
    """The feature days that rows of the days `changed` can affect; None when there are none.

    A row of day e is used by the features of the midnights e+1 … e+history_days, and with `hourly` feature rows by
    those of the hours of e itself. Feature rows end at `horizon`, a midnight (None: there are no events). `since` is
    the newest day with events before `changed`. The days without events in between need feature rows too, because
    windows move on without events.
    """
    if horizon is None:
        return None
    start = changed.start + (0 if hourly else 1) * _DAY
    if since is not None:
        start = max(min(start, since + (0 if hourly else 2) * _DAY), start - history_days * _DAY)
    last = min(changed.end - _DAY + history_days * _DAY, horizon)
    return Days(start=start, end=last + _DAY) if start <= last else None


def newest_before(spans: Iterable[tuple[date, date]], day: date) -> date | None:
    """The newest day before `day` that one of `spans` (first and last day, both included) reaches."""
    return max((min(last, day - _DAY) for first, last in spans if first < day), default=None)


def daily_rows(partitions: Iterable[tuple[str, int]]) -> dict[date, float]:
    """Day → its number of rows, from `partitions` (name and rows). Rows of several days are spread evenly over them."""
    found: dict[date, float] = {}
    for name, rows in partitions:
        days = partition_days(name)
        for at in range(len(days)):
            day = days.start + at * _DAY
            found[day] = found.get(day, 0.0) + rows / len(days)
    return found


class Bounds(NamedTuple):
    """How many rows a day may have. `maximum` is None when earlier days give no bound."""

    minimum: float
    maximum: float | None


def row_bounds(counts: Mapping[date, int], history: Mapping[date, float], rule: RowCount) -> dict[date, Bounds]:
    """Bounds for each day of `counts`, from the median of the days before it in `history` and in `counts`.

    A median of 0 gives only the rule's minimum: the feed has no rows on most days, such as one with positives only.
    """
    known = {**history, **counts}
    bounds = {}
    for day in counts:
        before = (day - at * _DAY for at in range(1, rule.history_days + 1))
        recent = [known[each] for each in before if each in known]
        typical = median(recent) if recent else 0
        if not typical:
            bounds[day] = Bounds(rule.minimum, None)
        else:
            minimum = max(rule.minimum, rule.minimum_ratio * typical)
            bounds[day] = Bounds(minimum, max(minimum, rule.maximum_ratio * typical))
    return bounds


def rows_per_day(times: pa.ChunkedArray) -> Counter[date]:
    """Day → how many of `times` lie on it. A row without a time lies on none."""
    found = pc.value_counts(utc_days(times)).to_pylist()
    return Counter({day["values"]: day["counts"] for day in found if day["values"] is not None})


def day_counts(
    rows: Mapping[date, int], promised: Days, history: Mapping[date, float], rule: RowCount, newest: date | None
) -> "pd.DataFrame":
    """One row per `promised` day: `day`, its number of `rows`, and the bounds `minimum` and `maximum`.

    `gap`: days since the newest earlier day with rows. `newest` is the newest day with rows in other partitions (None:
    there are none). NaN for a day without rows and for the first day with rows.
    """
    import pandas as pd  # Slow to import, and only needed for validation.

    days = [promised.start + at * _DAY for at in range(len(promised))]
    counts = {day: rows.get(day, 0) for day in days}
    bounds, found = row_bounds(counts, history, rule), []
    for day, count in counts.items():
        gap = (day - newest).days if newest and count else None
        newest = max(day, newest or day) if count else newest
        found.append((str(day), count, *bounds[day], gap))
    columns = ["day", "rows", "minimum", "maximum", "gap"]
    return pd.DataFrame(found, columns=columns).astype(dict.fromkeys(columns[2:], "float64"))
