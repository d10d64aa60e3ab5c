"""Finds the days that a sample covers completely: many samples begin or end in the middle of a day."""

from datetime import date, timedelta
from statistics import median

import pyarrow as pa
import pyarrow.compute as pc

from training.contract.base import Days
from training.contract.feeds import RowCount
from training.domain.arrow_types import utc_days

#: With fewer other days nothing can be said about the first and the last.
_OTHER_DAYS = 3


def all_days(times: pa.ChunkedArray) -> Days:
    """From the first day of `times`, timestamps in UTC, to the last."""
    first, last = pc.min_max(utc_days(times)).values()
    return Days(start=first.as_py(), end=last.as_py() + timedelta(days=1))


def complete_days(times: pa.ChunkedArray) -> Days:
    """As `all_days`, without a first or last day of which the sample lacks a part.

    A part of the first day is missing when it begins later in the day than every other day, and has so few rows that
    the default of `row_count` would refuse them. So is a part of the last day when it ends earlier than every other.
    """
    days, found = all_days(times), _by_day(times)
    first, last = days.start, days.end - timedelta(days=1)
    if len(found) <= _OTHER_DAYS:
        return days
    fewest = RowCount().minimum_ratio * median(rows for rows, _, _ in found.values())
    begins = found[first][1] > max(begin for day, (_, begin, _) in found.items() if day != first)
    ends = found[last][2] < min(end for day, (_, _, end) in found.items() if day != last)
    return Days(
        start=first + timedelta(days=1) if begins and found[first][0] < fewest else first,
        end=last if ends and found[last][0] < fewest else days.end,
    )


def _by_day(times: pa.ChunkedArray) -> dict[date, tuple[int, int, int]]:
    """Day with rows → their number, and the microseconds from its midnight to the first and to the last of them."""
    days = utc_days(times)
    midnights = days.cast(pa.timestamp("us")).cast(pa.int64())
    since = pc.subtract(times.cast(pa.timestamp("us")).cast(pa.int64()), midnights)
    of = pa.table({"day": days, "since": since}).group_by("day")
    found = of.aggregate([("since", "count"), ("since", "min"), ("since", "max")])
    columns = [found[name].to_pylist() for name in ("day", "since_count", "since_min", "since_max")]
    return {day: (rows, begin, end) for day, rows, begin, end in zip(*columns, strict=True)}
