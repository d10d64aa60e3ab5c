"""Windows of days, and the rows whose entity was known already."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.contract.base import Days
from training.domain.windows import known_entities, thinly_labelled, windows


def test_the_handbooks_protocol() -> None:
    found = windows(date(2018, 8, 22), window_days=7, holdout_days=7, delay_days=7)
    assert found.train == Days(start=date(2018, 7, 25), end=date(2018, 8, 1))
    assert found.holdout == Days(start=date(2018, 8, 8), end=date(2018, 8, 15))
    assert found.holdout.start - found.train.end == timedelta(days=7)


@given(
    as_of=st.dates(date(2000, 1, 1), date(2100, 1, 1)),
    window=st.integers(1, 400),
    holdout=st.integers(1, 60),
    delay=st.integers(0, 60),
)
def test_no_window_holds_what_was_not_known(as_of: date, window: int, holdout: int, delay: int) -> None:
    found = windows(as_of, window, holdout, delay)
    assert (len(found.train), len(found.holdout)) == (window, holdout)
    late = timedelta(days=delay)
    assert found.holdout.start - found.train.end == late
    # A label that comes `delay` days after the last payment of a window is there when it is used.
    assert found.holdout.end + late <= as_of
    assert found.train.end + late <= found.holdout.start


def times(*texts: str) -> pd.Series:
    return pd.Series(pd.to_datetime(list(texts), utc=True, format="ISO8601"))


@pytest.mark.parametrize(
    ("reported", "known"),
    [
        ("2026-01-09T23:59:59.999999", True),
        ("2026-01-10T00:00:00", False),
        ("2026-01-10T08:00:00", False),
        ("2026-01-12", False),
    ],
)
def test_an_entity_is_known_when_reported_before_the_rows_day(reported: str, known: bool) -> None:
    rows = pd.Series([1], index=[17]), times("2026-01-10T09:00").set_axis([17])
    assert known_entities(*rows, pd.Series([1]), times(reported)).tolist() == [known]


def test_the_first_report_counts_and_others_are_not_touched() -> None:
    entities = pd.Series([1, 2, 3, 1])
    when = times("2026-01-10T09:00", "2026-01-10T09:00", "2026-01-10T09:00", "2026-01-04T09:00")
    frauds = pd.Series([1, 1, 2]), times("2026-01-20", "2026-01-05", "2026-01-11")
    assert known_entities(entities, when, *frauds).tolist() == [True, False, False, False]


@pytest.mark.filterwarnings("error::FutureWarning")
def test_integers_with_nulls_and_texts_are_entities_as_they_are() -> None:
    large = pd.Series([2**53 + 1, 2**53, None], dtype="Int64")
    when, reported = times("2026-01-10", "2026-01-10", "2026-01-10"), times("2026-01-08")
    assert known_entities(large, when, large[:1], reported).tolist() == [True, False, False]
    names = pd.Series(["a", "b", None])
    assert known_entities(names, when, names[1:2], reported.set_axis([1])).tolist() == [False, True, False]


def test_without_frauds_nobody_is_known() -> None:
    none = pd.Series([], dtype="int64"), times()
    assert known_entities(pd.Series([1, 2]), times("2026-01-10", "2026-01-11"), *none).tolist() == [False, False]


def test_days_with_too_few_labels_are_found_in_the_windows_alone() -> None:
    noons = times(*(f"2026-01-{day:02} 12:00" for day in (1, 1, 2, 2, 3, 4, 4, 4, 4)))
    labelled = np.array([True, True, True, False, False, False, True, True, True])
    both = [Days(start=date(2026, 1, 1), end=date(2026, 1, 3)), Days(start=date(2026, 1, 4), end=date(2026, 1, 6))]
    assert thinly_labelled(noons, labelled, both, 0.8) == {date(2026, 1, 2): 0.5, date(2026, 1, 4): 0.75}
    assert thinly_labelled(noons, labelled, both, 0.5) == {}


def test_no_events_lack_no_labels() -> None:
    none = times()
    window = Days(start=date(2026, 1, 1), end=date(2026, 1, 3))
    assert thinly_labelled(none, np.array([], dtype=bool), [window], 0.9) == {}
