"""Windows of days, and the rows whose entity was known already."""

from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.contract.base import Days
from training.contract.spec_sections import AfterChangeSpec, TrainingSpec
from training.domain.windows import (
    event_days,
    known_entities,
    learnable_from,
    named_windows,
    rows_of_window,
    thinly_labelled,
    windows,
    windows_after_change,
)


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


# --- several windows, and after a change ---

USUAL = Days(start=date(2026, 3, 1), end=date(2026, 3, 15))


def training(**fields: Any) -> TrainingSpec:
    return TrainingSpec.model_validate({"window_days": 14, "estimators": {"mlp": {}}, **fields})


def test_windows_end_together_and_those_without_enough_history_are_left_out() -> None:
    names = ["7d", "28d", "400d", "expanding", "half_life_7d", "half_life_2d"]
    found = dict(named_windows(USUAL, names, date(2026, 2, 10), None))
    assert {days.end for days in found.values()} == {USUAL.end}
    assert {name: (USUAL.end - days.start).days for name, days in found.items()} == {
        "": 14,
        "7d": 7,
        "28d": 28,
        "expanding": 33,
        # Six half-lives, or all there is.
        "half_life_7d": 33,
        "half_life_2d": 12,
    }


def test_windows_with_the_same_days_are_one() -> None:
    found = dict(named_windows(USUAL, ["14d", "20d", "expanding"], date(2026, 2, 23), None))
    assert list(found) == ["", "20d"]


@pytest.mark.parametrize(("change", "there"), [(10, True), (1, False), (15, False)])
def test_the_days_since_a_change_are_a_window_of_their_own(change: int, there: bool) -> None:
    found = dict(named_windows(USUAL, [], None, date(2026, 3, change)))
    assert ("since_change" in found) == there
    if there:
        assert found["since_change"] == Days(start=date(2026, 3, change), end=USUAL.end)


def test_rows_are_those_of_the_windows_days() -> None:
    row_days = np.arange("2026-02-01", "2026-04-01", dtype="datetime64[D]").repeat(3)
    rows = rows_of_window("", USUAL, row_days, seed=1)
    assert len(rows) == 14 * 3
    assert (row_days[rows].min(), row_days[rows].max()) == (np.datetime64("2026-03-01"), np.datetime64("2026-03-14"))


def test_weights_by_age_keep_a_share_of_older_rows() -> None:
    row_days = np.arange("2026-02-01", "2026-04-01", dtype="datetime64[D]").repeat(4000)
    rows = rows_of_window("half_life_7d", USUAL, row_days, seed=1)
    kept = {day: np.count_nonzero(row_days[rows] == np.datetime64(day)) for day in ("2026-03-14", "2026-03-07")}
    assert kept["2026-03-14"] == 4000
    assert kept["2026-03-07"] == pytest.approx(2000, abs=150)
    assert (np.diff(rows) > 0).all()
    assert rows.tolist() == rows_of_window("half_life_7d", USUAL, row_days, seed=1).tolist()
    assert rows.tolist() != rows_of_window("half_life_7d", USUAL, row_days, seed=2).tolist()


AFTER = AfterChangeSpec(holdout_days=3, gap_days=1, train_days=4)


@pytest.mark.parametrize(
    ("changed", "shorter"),
    [
        # The usual windows end 21 and 7 days before the horizon; the training window begins 28 days before it.
        (28, False),
        (27, True),
        (15, True),
        # 7 days' delay, 3 of holdout, 1 of gap, 4 to train on.
        (14, False),
        (0, False),
    ],
)
def test_after_a_change_gap_and_holdout_are_shorter_while_the_usual_window_has_days_before_it(
    changed: int, shorter: bool
) -> None:
    as_of = date(2026, 4, 1)
    usual, change = windows(as_of, 7, 7, 7), as_of - timedelta(days=changed)
    found = windows_after_change(change, usual, as_of, training(after_change=AFTER), 7)
    assert (found is not None) == shorter
    assert (as_of >= learnable_from(change, AFTER, 7)) == (changed > 14)
    if found is not None:
        assert (len(found.train), len(found.holdout), found.gap_days) == (7, 3, 1)
        assert found.holdout.end == usual.holdout.end
        assert len(Days(start=change, end=found.train.end)) >= AFTER.train_days


def test_without_a_known_change_or_without_the_section_nothing_is_shorter() -> None:
    as_of = date(2026, 4, 1)
    usual = windows(as_of, 14, 7, 7)
    assert windows_after_change(None, usual, as_of, training(after_change=AFTER), 7) is None
    assert windows_after_change(as_of - timedelta(days=20), usual, as_of, training(), 7) is None


def test_the_days_of_events_are_those_of_their_own_zone() -> None:
    times = pd.Series(pd.to_datetime(["2026-01-01T23:30Z", "2026-01-02T00:30Z"]))
    assert event_days(times).tolist() == [date(2026, 1, 1), date(2026, 1, 2)]
    assert event_days(times.dt.tz_convert("Asia/Tokyo")).tolist() == [date(2026, 1, 2)] * 2
