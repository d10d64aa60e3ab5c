"""Has the data moved away from what the champion learned from?"""

from collections.abc import Mapping
from datetime import date

import pandas as pd

from training.contract.base import Days
from training.contract.messages import ColumnDrift

#: The champion's scores, compared like a feature: prediction drift. No feature has this name.
SCORE = "_score"


def current_window(as_of: date, window_days: int) -> Days:
    """The days whose events are compared: the last `window_days` before `as_of`."""
    return Days.ending(as_of, window_days)


def sample(rows: pd.DataFrame, maximum: int, seed: int) -> pd.DataFrame:
    """At most `maximum` of the rows, in their order; the same rows for the same input and seed."""
    return rows if len(rows) <= maximum else rows.sample(maximum, random_state=seed).sort_index()


def has_drifted(columns: Mapping[str, ColumnDrift], maximum_share: float) -> tuple[bool, float]:
    """Whether the model's data drifted, and the share of its features (the score apart) that did.

    It did when that share reaches `maximum_share`: the rule of Evidently's dataset drift, whose own default is 0.5
    (docs.evidentlyai.com, "Data drift"). Or when the score did: while labels are late, a shift of the predictions is
    the nearest thing to a shift in performance (same source, "Prediction drift"), and one important feature can cause
    it without the share noticing.
    """
    features = [column.drifted for name, column in columns.items() if name != SCORE]
    share = sum(features) / len(features) if features else 0.0
    score = columns.get(SCORE)
    return (bool(features) and share >= maximum_share) or (score is not None and score.drifted), share
