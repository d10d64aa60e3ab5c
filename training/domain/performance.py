"""The champion's performance on its logged predictions, once their labels are known."""

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import NamedTuple, TypeGuard

import numpy as np
import pandas as pd
from scipy.stats import norm

from training.contract.base import Days
from training.contract.messages import Degradation
from training.contract.model_spec import Metric
from training.contract.spec_sections import MonitoringSpec
from training.contract.tasks import MetricRule, Relative, allowed
from training.domain.frames import PREDICTED_AT, PREDICTION_ID
from training.domain.looks import chance_of_error

#: So many windows after the holdout are a reference together with it.
FIRST_WINDOWS = 8
#: How much worse the primary metric may be when the spec does not say it: this part of the reference, and of a metric
#: between 0 and 1 no more than LARGEST_ALLOWED. A tenth alone would allow an area under the ROC curve to fall from 0.95
#: to 0.86; 0.05 alone would allow a Brier score of 0.01 to become six times as large.
ALLOWED_BY_DEFAULT, LARGEST_ALLOWED = Relative(relative=0.1), 0.05


def matured_window(as_of: date, window_days: int, delay_days: int) -> Days:
    """The last `window_days` days whose label delay has passed before `as_of`."""
    return Days.ending(as_of - timedelta(days=delay_days), window_days)


def first_made(predictions: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Keep the first of several `predictions` with the same `keys`.

    The first one was acted upon. A later one may have used features that include the label. Ties are broken by the
    prediction's id, so the order of the rows does not matter.
    """
    return predictions.sort_values([PREDICTED_AT, PREDICTION_ID]).drop_duplicates(keys, keep="first")


class Measured(NamedTuple):
    """A metric, and its standard error where it can be estimated."""

    value: float
    standard_error: float | None


def first_windows(since: date, window: Days) -> list[Days]:
    """The first windows from `since`, the holdout's end, on that are as long as `window` and end before it begins.

    In the first of them a champion has made few predictions or none, as it was trained when they had ended.
    """
    length = timedelta(days=len(window))
    fitting = max(0, (window.start - since).days // len(window))
    return [Days(start=since + at * length, end=since + (at + 1) * length) for at in range(min(FIRST_WINDOWS, fitting))]


class Beside(NamedTuple):
    """What the primary metric was on other windows of a champion's life, as long as the one that is judged."""

    first: Sequence[Measured] = ()
    """On its first windows, those that end before the one that is judged begins."""
    before: Measured | None = None
    """On the window right before that one, if it is after the holdout."""
    first_before: int = 0
    """How many of `first` end before the window of `before` begins."""

    @classmethod
    def of(cls, since: date, window: Days, measure: Callable[[Days], Measured | None]) -> "Beside":
        """`since`: the holdout's end. `measure` gives the metric on a window, None when it cannot be measured there."""
        first = first_windows(since, window)
        before = Days(start=window.start - timedelta(days=len(window)), end=window.start)
        wanted = [*first, before] if before.start >= since else first
        found = {each: measured for each in dict.fromkeys(wanted) if _is_known(measured := measure(each))}
        known = [each for each in first if each in found]
        first_before = sum(each.end <= before.start for each in known)
        return cls(tuple(found[each] for each in known), found.get(before), first_before)


#: A champion of which no other window can be measured.
ALONE = Beside()


def _is_known(measured: Measured | None) -> TypeGuard[Measured]:
    return measured is not None and measured.standard_error is not None and bool(np.isfinite(measured.value))


def degradation(
    current: Measured,
    holdout: Measured,
    primary: Metric,
    rule: MetricRule,
    look: int,
    spec: MonitoringSpec,
    beside: Beside = ALONE,
) -> Degradation | None:
    """Test whether the primary metric on a window is worse than it was by more than is allowed.

    The metric has degraded when the lower end of the drop's interval is above `spec.maximum_performance_drop`. Without
    one that is a tenth of the reference, for a metric between 0 and 1 at most 0.05.

    The reference is the champion's holdout. It is short, so it may have been lucky or unlucky, and the standard errors
    of both sides count. With the first windows of the champion's life there is a second reference: the mean of all of
    these and the holdout, which is known more exactly. The data may have changed within them, which the first one
    finds. The reference that shows more counts. When neither shows enough, the mean of the window and the one before it
    is compared with the mean of the holdout and the first windows that end before both: a fall that lasts is surer on
    two windows. The newest window must be worse by more than is allowed, too, as a fall that has ended is none. The
    tests have equal parts of the chance of error.

    The champion is looked at again and again, so all looks share one chance of error (training/domain/looks.py). The
    test treats the drop as normally distributed, and tests/domain/test_degradation.py shows its rate of false alarms.

    `look`: the window's number in the champion's life, from 1. Champions of an earlier version have no standard error:
    it is taken to be as large as the window's. None when that cannot be estimated, or a value is not a number.
    """
    if not _is_known(current) or not np.isfinite(holdout.value):
        return None
    sure = holdout._replace(standard_error=holdout.standard_error or current.standard_error)
    sides = [_Sides(current, sure)]
    if beside.first:
        sides.append(_Sides(current, _mean([sure, *beside.first]), windows=len(beside.first)))
    share = 1 / (len(sides) + (beside.before is not None))
    tests = [each.tested(primary, rule, look, spec, share) for each in sides]
    found = max(tests, key=lambda test: test.lowest_drop - test.allowed)
    if found.degraded or beside.before is None:
        return found
    reference = _mean([sure, *beside.first[: beside.first_before]])
    both = _Sides(_mean([beside.before, current]), reference, beside.first_before, together=2)
    lasting = both.tested(primary, rule, look, spec, share)
    goes_on = rule.sign * (reference.value - current.value) > lasting.allowed
    return lasting if lasting.degraded and goes_on else found


class _Sides(NamedTuple):
    """What is compared. `windows` and `together` say of how many windows the two means are: see `Degradation`."""

    current: Measured
    reference: Measured
    windows: int = 0
    together: int = 1

    def tested(self, primary: Metric, rule: MetricRule, look: int, spec: MonitoringSpec, share: float) -> Degradation:
        error = float(np.hypot(self.current.standard_error or 0.0, self.reference.standard_error or 0.0))
        drop = rule.sign * (self.reference.value - self.current.value)
        test = judge_drop(drop, error, self.reference.value, primary, rule, look, spec, share)
        return test.model_copy(update={"windows": self.windows, "together": self.together})


def _mean(measured: Sequence[Measured]) -> Measured:
    """Of windows that do not overlap. Weights by the errors would favour small values of metrics whose errors grow with
    them, such as a loss."""
    errors = np.array([each.standard_error for each in measured], float)
    value = np.mean([each.value for each in measured])
    return Measured(float(value), float(np.sqrt((errors**2).sum()) / len(errors)))


def judge_drop(
    drop: float,
    error: float,
    reference: float,
    primary: Metric,
    rule: MetricRule,
    look: int,
    spec: MonitoringSpec,
    share: float = 1.0,
) -> Degradation:
    """The test of a `drop` of the primary metric from `reference`, with its standard error: see `degradation`.

    `share`: of the look's chance of error, that this test may use.
    """
    chance = share * chance_of_error(spec.confidence, look, spec.window_days)
    return Degradation(
        metric=primary,
        drop=drop,
        standard_error=error,
        look=look,
        confidence=1 - chance,
        lowest_drop=float(drop - norm.isf(chance) * error),
        allowed=_allowed(reference, rule, spec),
    )


def _allowed(reference: float, rule: MetricRule, spec: MonitoringSpec) -> float:
    """By how much the metric may be worse than `reference`, in its own units."""
    if spec.maximum_performance_drop is not None:
        return allowed(spec.maximum_performance_drop, reference)
    part = allowed(ALLOWED_BY_DEFAULT, reference)
    return min(part, LARGEST_ALLOWED) if rule.bounded else part
