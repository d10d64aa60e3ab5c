"""The champion's performance on its logged predictions, once their labels are known."""

from collections.abc import Mapping
from datetime import date, timedelta

import pandas as pd

from training.contract.base import Days
from training.contract.model_spec import Metric
from training.contract.tasks import Margin, MetricRule, Relative, allowed
from training.domain.frames import PREDICTED_AT, PREDICTION_ID


def matured_window(as_of: date, window_days: int, delay_days: int) -> Days:
    """The last `window_days` days whose label delay has passed before `as_of`."""
    return Days.ending(as_of - timedelta(days=delay_days), window_days)


def first_made(predictions: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Keep the first of several `predictions` with the same `keys`.

    The first one was acted upon. A later one may have used features that include the label. Ties are broken by the
    prediction's id, so the order of the rows does not matter.
    """
    return predictions.sort_values([PREDICTED_AT, PREDICTION_ID]).drop_duplicates(keys, keep="first")


def has_degraded(
    current: Mapping[Metric, float],
    reference: Mapping[Metric, float],
    primary: Metric,
    rule: MetricRule,
    maximum_drop: Margin | None,
) -> bool:
    """Whether the primary metric is worse than on the champion's holdout by more than `maximum_drop`.

    Without one it is 0.1 for a metric between 0 and 1, and a tenth of the holdout's value for others. A metric that
    cannot be compared, because one of the two is missing, has not degraded.
    """
    if primary not in current or primary not in reference:
        return False
    if maximum_drop is None:
        maximum_drop = 0.1 if rule.bounded else Relative(relative=0.1)
    drop = rule.sign * (reference[primary] - current[primary])
    return drop > allowed(maximum_drop, reference[primary])
