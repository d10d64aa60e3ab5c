"""Which days a table covers."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from training.contract.base import Days


def covered_days(ranges: Iterable[tuple[datetime, datetime]]) -> Days | None:
    """From the day of the earliest to the day of the newest time in `ranges` (UTC, both included); None for no ranges.

    The end is the midnight after the newest row.
    """
    both = list(ranges)
    if not both:
        return None
    earliest, newest = min(first for first, _ in both), max(last for _, last in both)
    return Days(start=earliest.date(), end=newest.date() + timedelta(days=1))
