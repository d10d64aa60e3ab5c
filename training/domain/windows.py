"""The days that a model is trained and evaluated on, and the holdout rows to leave out."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from training.contract.base import Days


@dataclass(frozen=True)
class Windows:
    """The training window and the holdout. A gap of the label delay follows each of them."""

    train: Days
    holdout: Days


def windows(as_of: date, window_days: int, holdout_days: int, delay_days: int) -> Windows:
    """The windows of a training that knows what was known at `as_of`.

    The holdout ends `delay_days` before `as_of`, so that its labels are known. The training window ends `delay_days`
    before the holdout, as if the model had been trained on the holdout's first day. Source: Fraud Detection Handbook,
    chapter 5.
    """
    holdout = Days.ending(as_of - timedelta(days=delay_days), holdout_days)
    return Windows(train=Days.ending(holdout.start - timedelta(days=delay_days), window_days), holdout=holdout)


def thinly_labelled(
    times: pd.Series, labelled: np.ndarray, windows: Iterable[Days], minimum: float
) -> dict[date, float]:
    """Day → share of its events with a label, for the days in `windows` with a share below `minimum`.

    `times` (with time zone) are those of n events. `labelled` (bool [n]): which of them have a label. Days without
    events are left out.
    """
    shares = pd.Series(labelled).groupby(times.dt.date.to_numpy()).mean()
    inside = [any(days.start <= day < days.end for days in windows) for day in shares.index]
    return {day: float(share) for day, share in shares[inside].items() if share < minimum}


def known_entities(
    entities: pd.Series, times: pd.Series, positive_entities: pd.Series, positive_reported: pd.Series
) -> np.ndarray:
    """Bool [n]: whether a positive label of the row's entity was reported before the start (UTC) of the row's day.

    `entities` and `times` (with time zone) describe the n rows, `positive_entities` and `positive_reported` the
    positive labels. Such an entity has usually been dealt with, so a model gets no credit for finding it
    again. False for rows with a null as entity.
    """
    # Keep the type of `entities`, because map and to_numpy convert integers with nulls to floats.
    named = positive_entities.notna().to_numpy()
    keys = positive_entities[named].astype(entities.dtype)
    first_known = positive_reported[named].groupby(pd.Index(keys.array)).min()
    known = pd.to_datetime(first_known.reindex(pd.Index(entities.array)), utc=True)
    return known.to_numpy() < times.dt.floor("D").to_numpy()
