"""The champion's performance on its logged predictions, once their labels are known."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import NamedTuple

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


def degradation(
    current: Measured,
    holdout: Measured,
    primary: Metric,
    rule: MetricRule,
    look: int,
    spec: MonitoringSpec,
    first: Sequence[Measured] = (),
) -> Degradation | None:
    """Test whether the primary metric on a window is worse than it was by more than is allowed.

    The metric has degraded when the lower end of the drop's interval is above `spec.maximum_performance_drop`. Without
    one that is a tenth of the reference, for a metric between 0 and 1 at most 0.05.

    The reference is the champion's holdout. It is short, so it may have been lucky or unlucky, and the standard errors
    of both sides count. With the `first` windows of the champion's life there is a second reference: the mean of all of
    these and the holdout, which is known more exactly. The world may have changed within them, which the first one
    finds. Each of the two has half of the chance of error, and the one that shows more counts.

    The champion is looked at again and again, so all looks share one chance of error (training/domain/looks.py). The
    test treats the drop as normally distributed, and tests/domain/test_degradation.py shows its rate of false alarms.

    `look`: the window's number in the champion's life, from 1. Champions of an earlier version have no standard error:
    it is taken to be as large as the window's. None when that cannot be estimated, or a value is not a number.
    """
    if current.standard_error is None or not np.isfinite([current.value, holdout.value]).all():
        return None
    references = [(holdout._replace(standard_error=holdout.standard_error or current.standard_error), 0)]
    if known := [each for each in first if each.standard_error is not None and np.isfinite(each.value)]:
        references.append((_mean([references[0][0], *known]), len(known)))
    tests = []
    for reference, windows in references:
        error = float(np.hypot(current.standard_error, reference.standard_error or 0.0))
        drop = rule.sign * (reference.value - current.value)
        test = judge_drop(drop, error, reference.value, primary, rule, look, spec, 1 / len(references))
        tests.append(test.model_copy(update={"windows": windows}))
    return max(tests, key=lambda test: test.lowest_drop - test.allowed)


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
