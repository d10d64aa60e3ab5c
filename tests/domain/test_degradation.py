"""Whether a champion's performance has become worse: with the uncertainty of both sides, over all looks."""

from datetime import date, timedelta

import numpy as np
import pytest
from scipy.stats import norm

from training.contract.base import Days
from training.contract.messages import Degradation
from training.contract.spec_sections import MonitoringSpec
from training.contract.tasks import BinaryTask, Margin, RegressionTask, Relative
from training.domain.evaluation_set import EvaluationSet, clusterings
from training.domain.looks import look_number
from training.domain.metrics import standard_error
from training.domain.performance import ALONE, Beside, Measured, degradation, first_windows
from training.domain.tasks.binary import ScoredBinary

PRECISION, RMSE = BinaryTask.METRICS["average_precision"], RegressionTask.METRICS["rmse"]


def compared(
    now: float,
    before: float,
    error: float = 0.0,
    look: int = 1,
    drop: Margin | None = None,
    error_before: float | None = None,
) -> Degradation:
    spec = MonitoringSpec(maximum_performance_drop=drop)
    reference = Measured(before, error if error_before is None else error_before)
    test = degradation(Measured(now, error), reference, "average_precision", PRECISION, look, spec)
    assert test is not None
    return test


def test_without_uncertainty_degraded_is_a_fall_of_more_than_the_allowed_drop() -> None:
    assert not compared(0.55, 0.60, drop=0.1).degraded
    assert compared(0.45, 0.60, drop=0.1).degraded
    assert not compared(0.99, 0.60, drop=0.0).degraded


@pytest.mark.parametrize(
    ("metric", "before", "fine", "worse"),
    [
        # A tenth of the reference, and never more than 0.05.
        ("average_precision", 0.60, 0.555, 0.545),
        ("average_precision", 0.20, 0.185, 0.175),
        ("roc_auc", 0.95, 0.905, 0.895),
        ("brier", 0.010, 0.0109, 0.0111),
    ],
)
def test_what_a_metric_between_0_and_1_may_lose_without_a_limit(
    metric: str, before: float, fine: float, worse: float
) -> None:
    def degraded(now: float) -> bool:
        rule, spec = BinaryTask.METRICS[metric], MonitoringSpec()
        test = degradation(Measured(now, 0.0), Measured(before, 0.0), metric, rule, 1, spec)
        assert test is not None
        return test.degraded

    assert (degraded(fine), degraded(worse)) == (False, True)


@pytest.mark.parametrize(
    ("now", "allowed", "degraded"),
    [
        # Lower is better. Without a limit a tenth of the holdout's 10 is allowed.
        (10.9, None, False),
        (11.1, None, True),
        (5.0, None, False),
        (11.1, Relative(relative=0.2), False),
        (12.1, Relative(relative=0.2), True),
        (11.9, 2.0, False),
        (12.1, 2.0, True),
    ],
)
def test_an_error_has_degraded_when_it_has_risen(now: float, allowed: Margin | None, degraded: bool) -> None:
    spec = MonitoringSpec(maximum_performance_drop=allowed)
    test = degradation(Measured(now, 0.0), Measured(10.0, 0.0), "rmse", RMSE, 1, spec)
    assert test is not None
    assert test.degraded is degraded


def test_a_fall_within_the_uncertainty_of_either_side_is_not_one() -> None:
    assert compared(0.35, 0.60, error=0.02).degraded
    assert not compared(0.35, 0.60, error=0.08).degraded
    assert not compared(0.35, 0.60, error=0.02, error_before=0.08).degraded


def test_the_numbers_of_one_look() -> None:
    """Against a table of the normal distribution: 0.05 · 6/π² / 2² / 7 is 0.10856 %, whose quantile is 3.066."""
    test = compared(0.2, 0.6, error=0.03, error_before=0.04, look=2)
    assert [test.drop, test.standard_error, test.allowed] == pytest.approx([0.4, 0.05, 0.05])
    assert test.confidence == pytest.approx(0.9989144, abs=1e-7)
    assert test.lowest_drop == pytest.approx(0.4 - 3.066 * 0.05, abs=1e-4)
    for number in ("0.400 ± 0.050", "99.891%", "window 2", "0.050 is allowed"):
        assert number in str(test)


def test_later_looks_need_more_evidence() -> None:
    lowest = [compared(0.25, 0.6, error=0.05, look=look).lowest_drop for look in (1, 2, 10, 52)]
    assert lowest == sorted(lowest, reverse=True)
    assert lowest[-1] > 0, "a fall of five standard errors must be found after a year, too"


def test_what_cannot_be_measured_is_not_judged() -> None:
    spec = MonitoringSpec()
    for now, before in ((Measured(0.1, None), Measured(0.9, 0.1)), (Measured(np.nan, 0.1), Measured(0.9, 0.1))):
        assert degradation(now, before, "average_precision", PRECISION, 1, spec) is None


def test_a_champion_of_an_earlier_version_gets_the_windows_standard_error() -> None:
    spec, now = MonitoringSpec(), Measured(0.3, 0.05)
    unknown = degradation(now, Measured(0.6, None), "average_precision", PRECISION, 1, spec)
    assert unknown == degradation(now, Measured(0.6, 0.05), "average_precision", PRECISION, 1, spec)


def test_the_windows_of_a_champion_are_numbered_from_its_holdout() -> None:
    holdout = Days.ending(date(2026, 3, 1), 7)

    def number(days: int) -> int:
        return look_number(Days.ending(holdout.end + timedelta(days=days), 7), holdout, 7)

    assert [number(days) for days in (-7, 0, 1, 7, 8, 14, 364)] == [1, 1, 1, 1, 2, 2, 52]


def test_false_alarms_of_a_year_of_daily_looks_stay_below_the_spec() -> None:
    """2,000 champions that never change, each with one holdout, and a window of 7 days that moves by a day.

    The limit is the spec's 5 % even when nothing may get worse; with the default drop there are fewer. Two point
    estimates and that drop call nearly all of them degraded.
    """
    random, champions, days, error = np.random.default_rng(0), 2_000, 364, 0.08
    daily = random.normal(0, error * np.sqrt(7), (champions, days))
    windows = np.apply_along_axis(lambda row: np.convolve(row, np.ones(7) / 7, "valid"), 1, daily)
    holdouts = random.normal(0, error, champions)
    alarmed, by_default, naive = (np.zeros(champions, dtype=bool) for _ in range(3))
    allowed = np.array([compared(0.0, 0.6 + holdout).allowed for holdout in holdouts])
    for day in range(windows.shape[1]):
        look, drops = 1 + day // 7, holdouts - windows[:, day]
        one = compared(0.0, 0.0, error=error, look=look, drop=0.0)
        needed = -one.lowest_drop  # the same for all: value and reference only move the drop
        alarmed |= drops > needed
        by_default |= drops > needed + allowed
        naive |= drops > allowed
    assert alarmed.mean() <= 0.05
    assert by_default.mean() <= 0.01
    assert naive.mean() > 0.9


HOLDOUT, GOOD = Measured(0.45, 0.09), Measured(0.62, 0.09)


def judged(
    now: float, first: list[Measured], holdout: Measured = HOLDOUT, before: Measured | None = None
) -> Degradation:
    beside = Beside(first, before, len(first))
    test = degradation(Measured(now, 0.06), holdout, "average_precision", PRECISION, 9, MonitoringSpec(), beside)
    assert test is not None
    return test


def test_the_first_windows_make_up_for_an_unlucky_holdout() -> None:
    """The holdout had .45 where the champion is worth .6. A fall to .15 is below it, but not beyond chance."""
    assert not judged(0.15, []).degraded
    found = judged(0.15, [GOOD] * 8)
    assert found.degraded
    assert found.windows == 8
    assert found.drop == pytest.approx((0.45 + 8 * 0.62) / 9 - 0.15)
    assert found.standard_error == pytest.approx(np.hypot(0.06, 0.09 / 3))
    assert "than on the holdout and the 8 windows after it by" in str(found)
    assert "than on the holdout by" in str(judged(0.15, []))


def test_a_change_in_the_first_windows_is_found_by_the_holdout() -> None:
    bad = Measured(0.1, 0.05)
    assert judged(0.1, [bad] * 8, Measured(0.7, 0.08)).degraded


def test_a_fall_that_lasts_is_surer_on_two_windows() -> None:
    """From .60 to .30 in both: 0.30 - 4.04 · 0.067 of one window is less than the 0.05 that is allowed."""
    assert not judged(0.30, [GOOD] * 8).degraded
    found = judged(0.30, [GOOD] * 8, before=Measured(0.30, 0.06))
    assert (found.degraded, found.together, found.windows) == (True, 2, 8)
    assert found.drop == pytest.approx((0.45 + 8 * 0.62) / 9 - 0.30)
    assert found.standard_error == pytest.approx(np.hypot(0.06 / np.sqrt(2), 0.09 / 3))
    assert str(found).startswith("average_precision over 2 windows is worse than on the holdout and the 8 windows")
    assert "over 2 windows" not in str(judged(0.30, [GOOD] * 8))


def test_a_sudden_fall_is_found_on_the_window_alone() -> None:
    found = judged(0.1, [GOOD] * 8, before=GOOD)
    assert (found.degraded, found.together) == (True, 1)


def test_a_fall_that_has_ended_is_none() -> None:
    """The window before lost nearly all; the newest is as good as ever."""
    found = judged(0.62, [GOOD] * 8, before=Measured(0.02, 0.06))
    assert (found.degraded, found.together) == (False, 1)
    assert found.drop < 0.0
    assert judged(0.50, [GOOD] * 8, before=Measured(0.02, 0.06)).degraded, "it still loses more than is allowed"


def test_the_tests_share_the_chance_of_error() -> None:
    one, two, three = judged(0.15, []), judged(0.15, [GOOD]), judged(0.15, [GOOD], before=GOOD)
    for tests, found in ((2, two), (3, three)):
        assert 1 - found.confidence == pytest.approx((1 - one.confidence) / tests)


SINCE = date(2026, 3, 2)


def after(days: int) -> Days:
    """The window of seven days that begins so many days after the holdout."""
    return Days(start=SINCE + timedelta(days=days), end=SINCE + timedelta(days=days + 7))


@pytest.mark.parametrize(
    ("days", "first", "before", "first_before"),
    [
        (-3, [], None, 0),
        (6, [], None, 0),
        (7, [0], 0, 0),
        (10, [0], 3, 0),
        (14, [0, 7], 7, 1),
        (17, [0, 7], 10, 1),
        (56, [0, 7, 14, 21, 28, 35, 42, 49], 49, 7),
        (63, [0, 7, 14, 21, 28, 35, 42, 49], 56, 8),
    ],
)
def test_what_a_window_is_compared_with(days: int, first: list[int], before: int | None, first_before: int) -> None:
    asked: list[Days] = []

    def measure(window: Days) -> Measured:
        asked.append(window)
        return Measured(float((window.start - SINCE).days), 0.1)

    found = Beside.of(SINCE, after(days), measure)
    assert [each.value for each in found.first] == first
    assert (None if found.before is None else found.before.value) == before
    assert found.first_before == first_before
    assert len(asked) == len(set(asked)), "no window is measured twice"


@pytest.mark.parametrize("unknown", [None, Measured(0.6, None), Measured(np.nan, 0.1)])
def test_windows_that_cannot_be_measured_do_not_count(unknown: Measured | None) -> None:
    assert Beside.of(SINCE, after(63), lambda _: unknown) == ALONE
    found = Beside.of(SINCE, after(63), lambda each: unknown if each in (after(7), after(56)) else GOOD)
    assert (found.before, len(found.first), found.first_before) == (None, 7, 7)


def test_the_first_windows_end_before_the_window_that_is_judged() -> None:
    since = date(2026, 3, 2)

    def number(days: int) -> int:
        found = first_windows(since, Days(start=since + timedelta(days=days), end=since + timedelta(days=days + 7)))
        assert [each.start for each in found] == [since + timedelta(days=7 * at) for at in range(len(found))]
        assert all(len(each) == 7 for each in found)
        return len(found)

    assert [number(days) for days in (-7, 0, 6, 7, 13, 14, 56, 300)] == [0, 0, 0, 1, 1, 2, 8, 8]


def test_false_alarms_with_the_first_windows_stay_below_the_spec() -> None:
    """20,000 champions that never change, looked at weekly for a year, when nothing may get worse."""
    random, error, spec = np.random.default_rng(1), 0.08, MonitoringSpec(maximum_performance_drop=0.0)
    values = random.normal(0.5, error, (20_000, 53))  # The holdout, and 52 windows.
    alarmed = np.zeros(len(values), dtype=bool)
    for look in range(1, 53):
        known, before = min(look - 1, 8), min(look - 2, 8)  # Of the first windows: before this one, and the one before.
        same = Measured(0.5, error)
        beside = Beside([same] * known, same if look > 1 else None, max(0, before))
        test = degradation(same, same, "average_precision", PRECISION, look, spec, beside)
        assert test is not None
        quantile = norm.isf(1 - test.confidence)
        sides = {(reference, 1) for reference in {0, known}} | ({(before, 2)} if look > 1 else set())
        for reference, together in sides:
            current = values[:, look - together + 1 : look + 1].mean(axis=1)
            drop = values[:, : reference + 1].mean(axis=1) - current
            alarmed |= drop > quantile * error * np.sqrt(1 / together + 1 / (reference + 1))
    # Daily looks get a seventh of the chance each, so weekly ones use a seventh of it.
    assert alarmed.mean() <= 0.05 / 7


def payments(random: np.random.Generator, at_terminals: bool) -> tuple[EvaluationSet, np.ndarray, list[np.ndarray]]:
    """A week in which frauds come by terminal (20 at each of five terminals), or each at another one."""
    rows, frauds = 4_000, 100
    labels = np.zeros(rows, dtype=int)
    labels[:frauds] = 1
    customers, terminals = random.integers(1_000, size=rows), random.integers(2_000, size=rows)
    found = random.random(frauds) < 0.6
    if at_terminals:
        terminals[:frauds] = np.repeat(np.arange(5), frauds // 5)
        found = np.repeat(random.random(5) < 0.6, frauds // 5)
    scores = random.random(rows) * 0.5
    scores[:frauds] += 0.5 * found
    days = np.arange(rows) % 7
    return EvaluationSet.of(labels, customers, days), scores, [customers, terminals]


@pytest.mark.long
def test_the_standard_error_is_that_of_the_entity_whose_rows_resemble_each_other_most() -> None:
    """The spread over 200 weeks of the same world is the truth."""
    for at_terminals in (False, True):
        random = np.random.default_rng(3)
        values, errors, by_customer = [], [], []
        for week in range(200):
            truth, scores, entities = payments(random, at_terminals)
            scored = ScoredBinary(truth, scores, ("average_precision",), 10, np.zeros(len(scores)))
            values.append(scored.value("average_precision"))
            if week < 20:
                drawn = clusterings(entities, truth.days, None)
                errors.append(standard_error(scored, "average_precision", drawn, 0))
                by_customer.append(standard_error(scored, "average_precision", drawn[:1], 0))
        spread = float(np.std(values))
        assert np.median(np.array(errors, float)) == pytest.approx(spread, rel=0.35)
        if at_terminals:
            assert np.median(np.array(by_customer, float)) < 0.5 * spread, "customers alone would hide it"


def test_nothing_can_be_drawn_of_a_few_days_of_one_entity() -> None:
    rows = np.arange(200)
    truth = EvaluationSet.of(rows % 2, np.zeros(200), rows % 3)
    scored = ScoredBinary(truth, rows / 200, ("roc_auc",), 10, np.zeros(200))
    assert standard_error(scored, "roc_auc", clusterings([np.zeros(200)], rows % 3, None), 0) is None


@pytest.mark.parametrize(
    ("now", "windows", "said"),
    [
        (0.6, 0, "average_precision is better than on the holdout by 0.150 ± "),
        (0.4, 1, "average_precision is worse than on the holdout and the window after it by 0."),
        (0.05, 8, "average_precision is worse than on the holdout and the 8 windows after it by 0."),
    ],
)
def test_a_test_says_whether_the_metric_is_better_or_worse_and_whether_that_may_be_chance(
    now: float, windows: int, said: str
) -> None:
    found = judged(now, [GOOD] * windows)
    assert found.windows == windows
    text = str(found)
    assert text.startswith(said)
    assert "-" not in text
    assert ("may be chance" in text) == (found.drop > 0 >= found.lowest_drop)
    assert ("by at least" in text) == (found.lowest_drop > 0)
