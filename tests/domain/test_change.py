"""The day since which a model loses more than on its holdout."""

from datetime import date, timedelta

import numpy as np
import pytest

from training.contract.messages import DailyLoss
from training.domain.change import change_day, daily_losses

FIRST = date(2026, 3, 2)
ROWS = 500


def days(random: np.random.Generator, means: list[float], start: date = FIRST) -> dict[date, DailyLoss]:
    """One day for each of `means`, of losses that differ between rows, and a little between days."""
    found = {}
    for at, mean in enumerate(means):
        losses = random.exponential(mean * random.normal(1, 0.02), ROWS)
        found[start + timedelta(days=at)] = DailyLoss(rows=ROWS, mean=losses.mean(), variance=losses.var())
    return found


def holdout(random: np.random.Generator) -> dict[date, DailyLoss]:
    return days(random, [1.0] * 7, FIRST - timedelta(days=14))


def test_rows_are_summed_up_by_day() -> None:
    found = daily_losses(np.array(["2026-03-03", "2026-03-02", "2026-03-03"], "datetime64[D]"), np.array([1.0, 5, 3]))
    assert found == {
        FIRST: DailyLoss(rows=1, mean=5.0, variance=0.0),
        FIRST + timedelta(days=1): DailyLoss(rows=2, mean=2.0, variance=1.0),
    }


@pytest.mark.parametrize("unchanged", [0, 1, 6, 20])
def test_a_change_that_stays_is_found_on_its_day(unchanged: int) -> None:
    """To the day or the one before it in four of five cases, where the holdout is a week. Never after it."""
    off = []
    for seed in range(100):
        random = np.random.default_rng(seed)
        found = change_day(holdout(random), days(random, [1.0] * unchanged + [1.5] * 7))
        assert found is not None
        off.append((found - FIRST).days - unchanged)
    assert np.mean(np.abs(off) <= 1) >= 0.8
    assert max(off) <= 0


def test_a_change_that_grows_is_found_where_it_begins() -> None:
    off = []
    for seed in range(100):
        random = np.random.default_rng(seed)
        found = change_day(holdout(random), days(random, [1.0] * 5 + [1 + 0.1 * day for day in range(1, 8)]))
        off.append(None if found is None else (found - FIRST).days - 5)
    assert sum(each is not None and -2 <= each <= 2 for each in off) >= 90


def test_without_a_change_there_is_none() -> None:
    found = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        found.append(change_day(holdout(random), days(random, [1.0] * 28)))
    # The holdout's seven days say roughly how much days differ. Who asks has found a degradation before.
    assert sum(each is not None for each in found) <= 10


def test_one_bad_day_or_a_change_that_is_over_is_none() -> None:
    found = []
    for seed in range(100):
        random = np.random.default_rng(seed)
        before = holdout(random)
        found.append(change_day(before, days(random, [1.0] * 5 + [9.0, 1.0, 1.0])))
        assert change_day(before, days(random, [2.0] * 3 + [0.8] * 25)) is None
    assert sum(each is not None for each in found) <= 5


def test_better_days_are_no_change() -> None:
    random = np.random.default_rng(6)
    assert change_day(holdout(random), days(random, [0.5] * 10)) is None


def test_what_cannot_be_compared_is_no_change() -> None:
    random = np.random.default_rng(7)
    before, after = holdout(random), days(random, [3.0] * 7)
    assert change_day({}, after) is None
    assert change_day(dict([*before.items()][:1]), after) is None
    assert change_day(before, {}) is None


def test_losses_without_any_spread_are_no_change() -> None:
    """A model that never erred gives no measure of chance."""
    perfect = {day: DailyLoss(rows=ROWS, mean=0.0, variance=0.0) for day in days(np.random.default_rng(1), [1.0] * 7)}
    assert change_day(perfect, days(np.random.default_rng(2), [1.0] * 7)) is None
