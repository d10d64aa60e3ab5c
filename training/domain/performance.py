"""The champion's performance on its logged predictions, once their labels are known."""

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


def degradation(
    current: Measured, reference: Measured, primary: Metric, rule: MetricRule, look: int, spec: MonitoringSpec
) -> Degradation | None:
    """Test whether the primary metric on a window is worse than on the champion's holdout by more than is allowed.

    The drop has degraded when the lower end of its interval is above `spec.maximum_performance_drop`. Without one that
    is 0.1 for a metric between 0 and 1, and a tenth of the holdout's value for others.

    The champion's holdout may have been lucky, so the standard errors of both count. It is looked at again and again,
    so all looks share one chance of error (training/domain/looks.py). The test treats the drop as normally distributed,
    and tests/domain/test_degradation.py shows its rate of false alarms.

    `look`: the window's number in the champion's life, from 1. Champions of an earlier version have no standard error:
    it is taken to be as large as the window's. None when that cannot be estimated, or a value is not a number.
    """
    if current.standard_error is None or not np.isfinite([current.value, reference.value]).all():
        return None
    error = float(np.hypot(current.standard_error, reference.standard_error or current.standard_error))
    drop = rule.sign * (reference.value - current.value)
    return judge_drop(drop, error, reference.value, primary, rule, look, spec)


def judge_drop(
    drop: float, error: float, reference: float, primary: Metric, rule: MetricRule, look: int, spec: MonitoringSpec
) -> Degradation:
    """The test of a `drop` of the primary metric from `reference`, with its standard error: see `degradation`."""
    chance = chance_of_error(spec.confidence, look, spec.window_days)
    margin = spec.maximum_performance_drop
    if margin is None:
        margin = 0.1 if rule.bounded else Relative(relative=0.1)
    return Degradation(
        metric=primary,
        drop=drop,
        standard_error=error,
        look=look,
        confidence=1 - chance,
        lowest_drop=float(drop - norm.isf(chance) * error),
        allowed=allowed(margin, reference),
    )
