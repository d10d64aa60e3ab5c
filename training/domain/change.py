"""The day since which a model's losses are above those on its holdout: when the data changed."""

from collections.abc import Mapping
from datetime import date
from itertools import takewhile

import numpy as np

from training.contract.messages import DailyLoss

#: Deviations that a day may be worse than the holdout without being counted. The mean of a holdout of a week is itself
#: uncertain by 0.4 deviations of a day.
SLACK = 1.0
#: A change is found when the counted deviations sum up to this. By chance they do once in 15,000 days (Siegmund,
#: Sequential Analysis, 1985, on the average run length), or more often where the holdout was lucky.
THRESHOLD = 4.0
#: The most deviations that one day counts for, so that no day alone is a change.
MOST = 4.0


def daily_losses(days: np.ndarray, losses: np.ndarray) -> dict[date, DailyLoss]:
    """Day → the losses of its rows. `days` (datetime64[D]) and `losses` are those of all rows, [n]."""
    distinct, numbers = np.unique(days.astype("datetime64[D]"), return_inverse=True)
    found = [losses[numbers == at] for at in range(len(distinct))]
    return {
        day.astype(object): DailyLoss(rows=len(each), mean=float(each.mean()), variance=float(each.var()))
        for day, each in zip(distinct, found, strict=True)
    }


def change_day(before: Mapping[date, DailyLoss], after: Mapping[date, DailyLoss]) -> date | None:
    """The first of the days `after` since which the losses have been higher than `before`, on the holdout.

    None when they are not, when they were and have come back, or when there are fewer than two days before to know by
    how much days differ.

    It is the one-sided cumulative sum of E. S. Page (Continuous Inspection Schemes, Biometrika 41, 1954):

        S(t) = max(0, S(t − 1) + min(z(t), MOST) − SLACK),   z(t) = (x(t) − m) / √(v / n(t) + w)

    x(t), n(t): the mean loss and the rows of day t; m, v: the mean and the variance of the losses of the rows before;
    w: the variance between those days that v does not explain. At the end S must exceed THRESHOLD. The change began
    after the last day on which S was 0, which is Page's estimate of it. It finds the first day of a change that grows,
    where the split into two levels that fits best would find the middle of its growth.
    """
    if len(before) < 2 or not after:
        return None
    rows, means, variances = (np.array([getattr(each, name) for each in before.values()]) for name in _FIELDS)
    mean = float(np.average(means, weights=rows))
    variance = float(np.average(variances + (means - mean) ** 2, weights=rows))
    between = max(0.0, float(means.var(ddof=1) - (variance / rows).mean()))
    total, days, sums = 0.0, sorted(after), []
    for day in days:
        error = float(np.sqrt(variance / after[day].rows + between)) or np.inf
        total = max(0.0, total + min((after[day].mean - mean) / error, MOST) - SLACK)
        sums.append(total)
    if total <= THRESHOLD:
        return None
    since = len(list(takewhile(lambda each: each > 0, reversed(sums))))
    return days[-since]


_FIELDS = ("rows", "mean", "variance")
