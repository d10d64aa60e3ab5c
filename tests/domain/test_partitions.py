"""Partition names, the feature days that a partition touches, and how many rows a day should have."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.contract.base import Days
from training.contract.errors import InputError
from training.contract.model_spec import RowCount
from training.domain.partitions import (
    Bounds,
    affected_days,
    newest_before,
    partition_days,
    partition_name,
    row_bounds,
    widened,
)

DAY = date(2026, 1, 5)
starts = st.dates(date(1970, 1, 1), date(2200, 1, 1))
spans = st.builds(lambda start, length: Days(start=start, end=start + timedelta(length)), starts, st.integers(1, 400))


def on(number: int) -> date:
    return DAY + timedelta(days=number)


@given(spans)
def test_a_name_says_its_days(days: Days) -> None:
    assert partition_days(partition_name(days)) == days


@given(st.text(alphabet="0123456789-_", max_size=22))
def test_a_name_is_read_one_way_or_refused(name: str) -> None:
    try:
        days = partition_days(name)
    except InputError:
        return
    assert partition_name(days) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "2026-02-30", "2026-01-05_", "2026-01-05_2026-01-04", "2026-01-05_2026-01-05", "20260105", "9999-12-31"),
        *("0001-01-01", "1699-12-31", "2251-01-01", "0001-01-01_9999-12-30"),
    ],
)
def test_a_name_that_promises_no_days_is_bad_input(name: str) -> None:
    with pytest.raises(InputError):
        partition_days(name)


@given(spans, st.integers(1, 60), st.one_of(st.none(), starts), st.one_of(st.none(), starts))
def test_affected_days_reach_from_the_day_after_to_history_or_horizon(
    changed: Days, history: int, horizon: date | None, since: date | None
) -> None:
    affected = affected_days(changed, history, horizon, since if since and since < changed.start else None)
    touched = {changed.start + timedelta(d) for d in range(1, len(changed) + history)}
    due = {day for day in touched if horizon is not None and day <= horizon}
    if affected is None:
        assert not due
    else:
        named = {affected.start + timedelta(d) for d in range(len(affected))}
        assert due <= named
        assert max(named) <= min(max(touched), horizon or date.max)
        assert since is not None or named == due


def test_many_days_have_bounds_of_the_days_before_each() -> None:
    counts = {on(number): 10 for number in range(10_000)}
    bounds = row_bounds(counts, {}, RowCount())
    assert bounds[on(0)] == Bounds(1, None)
    assert bounds[on(9_999)] == Bounds(3, 30)


def test_days_without_events_before_a_partition_are_affected_too() -> None:
    changed = Days(start=on(5), end=on(6))
    assert affected_days(changed, 37, horizon=on(6), since=on(2)) == Days(start=on(4), end=on(7))
    assert affected_days(changed, 37, horizon=on(6), since=on(4)) == Days(start=on(6), end=on(7))
    assert affected_days(changed, 3, horizon=on(6), since=on(-90)) == Days(start=on(3), end=on(7))


def test_hourly_rows_of_the_day_itself_are_affected_too() -> None:
    changed = Days(start=on(5), end=on(6))
    assert affected_days(changed, 2, horizon=on(9), hourly=True) == Days(start=on(5), end=on(8))
    # The hours after the last event of day 3 have no rows yet.
    assert affected_days(changed, 37, horizon=on(6), since=on(3), hourly=True) == Days(start=on(3), end=on(7))


def test_the_newest_day_before_another() -> None:
    assert newest_before([(on(0), on(2)), (on(4), on(9))], on(4)) == on(2)
    assert newest_before([(on(0), on(9))], on(4)) == on(3)
    assert newest_before([(on(4), on(9))], on(4)) is None


def test_slack_widens_on_both_sides() -> None:
    assert widened(Days(start=on(1), end=on(2)), 1) == Days(start=on(0), end=on(3))
    assert widened(Days(start=on(1), end=on(2)), 0) == Days(start=on(1), end=on(2))


def test_a_first_day_has_a_least_number_of_rows_only() -> None:
    assert row_bounds({on(0): 500}, {}, RowCount(minimum=10)) == {on(0): Bounds(10, None)}


@pytest.mark.parametrize("minimum", [0, 1])
def test_days_without_rows_bound_no_day_after_them(minimum: int) -> None:
    """A feed that only names positives, and had none on most days."""
    bounds = row_bounds({on(0): 0, on(1): 0, on(2): 15}, {}, RowCount(minimum=minimum))
    assert bounds[on(2)] == Bounds(minimum, None)


def test_the_maximum_is_never_below_the_minimum() -> None:
    assert row_bounds({on(1): 5}, {on(0): 1.0}, RowCount(minimum=5, maximum_ratio=2))[on(1)] == Bounds(5, 5)


def test_bounds_follow_the_median_of_the_days_before() -> None:
    rule = RowCount(minimum=1, history_days=3, minimum_ratio=0.5, maximum_ratio=2)
    history = {on(-9): 9000.0, on(-2): 100.0, on(-1): 300.0, on(5): 8000.0}
    bounds = row_bounds({on(0): 200, on(1): 0}, history, rule)
    assert bounds[on(0)] == Bounds(100, 400)
    assert bounds[on(1)] == Bounds(100, 400)
