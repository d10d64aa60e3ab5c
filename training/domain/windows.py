"""Which days a model learns from, which it is judged on, and which rows of the latter would be too easy."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from training.contract.base import Days


@dataclass(frozen=True)
class Windows:
    """Train, a gap in which labels were still out, holdout, and again a gap until `as_of`."""

    train: Days
    holdout: Days


def windows(as_of: date, window_days: int, holdout_days: int, delay_days: int) -> Windows:
    """The windows at knowledge horizon `as_of`.

    The holdout ends `delay_days` before `as_of`, so that its labels are in; the training window ends `delay_days`
    before the holdout, as it would have for a model trained on the holdout's first day (protocol of the Fraud
    Detection Handbook, chapter 5).
    """
    holdout = Days.ending(as_of - timedelta(days=delay_days), holdout_days)
    return Windows(train=Days.ending(holdout.start - timedelta(days=delay_days), window_days), holdout=holdout)


def thinly_labelled(
    times: pd.Series, labelled: np.ndarray, windows: Iterable[Days], minimum: float
) -> dict[date, float]:
    """The days of `windows` of whose events a smaller share than `minimum` has its label → that share.

    `times` (tz-aware) are n events, `labelled` (bool [n]) says which have their label. A day without events is fine.
    """
    shares = pd.Series(labelled).groupby(times.dt.date.to_numpy()).mean()
    inside = [any(days.start <= day < days.end for days in windows) for day in shares.index]
    return {day: float(share) for day, share in shares[inside].items() if share < minimum}


def known_entities(
    entities: pd.Series, times: pd.Series, positive_entities: pd.Series, positive_reported: pd.Series
) -> np.ndarray:
    """Bool [n]: was a positive label of the row's entity reported before the start (UTC) of the row's day?

    `entities` and `times` (tz-aware) are the n rows; `positive_entities` and `positive_reported` the positive labels
    that count. A card that is known to be compromised is blocked: to find it again is no merit. A null is no entity.
    """
    # All in the type of `entities`: of integers among which are nulls, map and to_numpy make floats.
    named = positive_entities.notna().to_numpy()
    keys = positive_entities[named].astype(entities.dtype)
    first_known = positive_reported[named].groupby(keys.array).min()
    known = pd.to_datetime(first_known.reindex(pd.Index(entities.array)), utc=True)
    return known.to_numpy() < times.dt.floor("D").to_numpy()
