"""How well does the champion do on what it predicted, now that the labels are in?"""

from collections.abc import Mapping
from datetime import date, timedelta

import pandas as pd

from training.contract.base import Days
from training.contract.model_spec import LabelSpec, Metric


def matured_window(as_of: date, window_days: int, delay_days: int) -> Days:
    """The last `window_days` whose labels have all been reported before `as_of`."""
    return Days.ending(as_of - timedelta(days=delay_days), window_days)


def labelled(predictions: pd.DataFrame, labels: pd.DataFrame, label: LabelSpec) -> pd.DataFrame:
    """`predictions` (with `predicted_at`) whose label is in `labels`, with it; of several for one id the first made.

    The first is what was acted upon; one made again later may have seen features that know the label. Ties are broken
    by `prediction_id`, so the order of the rows does not matter.
    """
    first = predictions.sort_values(["predicted_at", "prediction_id"]).drop_duplicates(label.id_column, keep="first")
    return first.merge(labels[[label.id_column, label.column]], on=label.id_column, validate="one_to_one")


def has_degraded(
    current: Mapping[Metric, float], reference: Mapping[Metric, float], primary: Metric, maximum_drop: float
) -> bool:
    """Whether the primary metric fell more than `maximum_drop` (absolute) below the champion's own holdout."""
    return reference[primary] - current[primary] > maximum_drop
