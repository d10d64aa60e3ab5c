"""The days that a model is trained and evaluated on, and the holdout rows to leave out."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from training.contract.base import Days
from training.contract.spec_sections import AfterChangeSpec, TrainingSpec

#: The window of the days since a change.
SINCE_CHANGE = "since_change"
#: A window that is weighted by age reaches back so many half-lives. Rows before count less than a sixtieth.
HALF_LIVES = 6


@dataclass(frozen=True)
class Windows:
    """The training window and the holdout. The label delay follows the holdout; the gap before it is as long, or
    shorter after a change."""

    train: Days
    holdout: Days

    @property
    def gap_days(self) -> int:
        return (self.holdout.start - self.train.end).days

    def from_day(self, start: date) -> "Windows":
        """With a training window that begins on `start`."""
        return Windows(Days(start=start, end=self.train.end), self.holdout)


def windows(as_of: date, window_days: int, holdout_days: int, delay_days: int, gap_days: int | None = None) -> Windows:
    """The windows of a training that knows what was known at `as_of`.

    The holdout ends `delay_days` before `as_of`, so that its labels are known. The training window ends `gap_days`
    before the holdout: `delay_days` unless said otherwise, as if the model had been trained on the holdout's first day.
    Source: Fraud Detection Handbook, chapter 5.
    """
    holdout = Days.ending(as_of - timedelta(days=delay_days), holdout_days)
    gap = timedelta(days=delay_days if gap_days is None else gap_days)
    return Windows(train=Days.ending(holdout.start - gap, window_days), holdout=holdout)


def learnable_from(change: date, after: AfterChangeSpec, delay_days: int) -> date:
    """The first knowledge horizon at which a training can learn from the days since `change`."""
    return change + timedelta(days=after.train_days + min(after.gap_days, delay_days) + after.holdout_days + delay_days)


def windows_after_change(
    change: date | None, usual: Windows, as_of: date, training: TrainingSpec, delay_days: int
) -> Windows | None:
    """The windows with the shorter gap and holdout of `training.after_change`. `usual`: those without a change.

    None when the usual ones serve: no change is known, all days of the usual training window are after it, or too few
    days since it have their labels.
    """
    after = training.after_change
    if change is None or after is None or change <= usual.train.start:
        return None
    if as_of < learnable_from(change, after, delay_days):
        return None
    holdout = min(after.holdout_days, training.holdout_days)
    return windows(as_of, len(usual.train), holdout, delay_days, min(after.gap_days, delay_days))


def half_life(name: str) -> int | None:
    """The half-life, in days, of a window with weights by age; None for another one."""
    found = re.fullmatch(r"half_life_(\d+)d", name)
    return int(found[1]) if found else None


def named_windows(
    usual: Days, names: Sequence[str], first: date | None, change: date | None
) -> Iterator[tuple[str, Days]]:
    """The windows that end with `usual`, by their names; the usual one first, with an empty name.

    `first` is the day of the first event, which only `names` need. One that reaches back before it is left out, unless
    it is weighted by age, and so is one with the days of another. The days since `change`, if there was one, come last.
    """
    found = {"": usual}
    for name in names:
        if first is None:
            break
        days = half_life(name)
        if days:
            start = max(first, usual.end - timedelta(days=HALF_LIVES * days))
        else:
            start = first if name == "expanding" else usual.end - timedelta(days=int(name[:-1]))
        if first <= start < usual.end and (days or start not in [each.start for each in found.values()]):
            found[name] = Days(start=start, end=usual.end)
    if change is not None and change < usual.end and change != usual.start:
        found[SINCE_CHANGE] = Days(start=change, end=usual.end)
    yield from found.items()


def rows_of_window(name: str, window: Days, days: np.ndarray, seed: int) -> np.ndarray:
    """The numbers of the rows that a model is fitted on in this window. `days` (datetime64[D]) are those of all n rows.

    With weights by age a row that is a days older than the window's last day is kept with the probability
    2^(−a / half-life). The sample has the same expected loss as the weighted rows, for estimators that take no weights,
    too. Source: Aggarwal, On Biased Reservoir Sampling in the Presence of Stream Evolution, VLDB 2006.
    """
    rows = np.flatnonzero((days >= np.datetime64(window.start)) & (days < np.datetime64(window.end)))
    if (halved_in := half_life(name)) is None:
        return rows
    age = (np.datetime64(window.end) - days[rows]).astype(np.int64) - 1
    return rows[np.random.default_rng(seed).random(len(rows)) < np.exp2(-age / halved_in)]


def reference_rows(rows: np.ndarray, maximum: int, seed: int) -> np.ndarray:
    """At most `maximum` of these `rows` (numbers), in order: what drift is measured against."""
    return np.sort(rows[np.random.default_rng(seed).permutation(len(rows))[:maximum]])


def thinly_labelled(
    times: pd.Series, labelled: np.ndarray, windows: Sequence[Days], minimum: float
) -> dict[date, float]:
    """Day → share of its events with a label, for the days in `windows` with a share below `minimum`.

    `times` (with time zone) are those of n events. `labelled` (bool [n]): which of them have a label. Days without
    events are left out.
    """
    if times.empty:
        return {}
    days = event_days(times)
    numbers = (days - days.min()).astype(np.int64)
    events, with_label = np.bincount(numbers), np.bincount(numbers, labelled)
    found = {(days.min() + int(n)).item(): float(with_label[n] / events[n]) for n in np.flatnonzero(events)}
    inside = [day for day in found if any(window.start <= day < window.end for window in windows)]
    return {day: found[day] for day in inside if found[day] < minimum}


def event_days(times: pd.Series) -> np.ndarray:
    """The days of `times` (with time zone) as datetime64[D]. pandas would make a Python object of each."""
    return times.dt.tz_localize(None).to_numpy().astype("datetime64[D]")


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
    known = pd.DatetimeIndex(pd.to_datetime(first_known.reindex(pd.Index(entities.array)), utc=True))
    # As an index: NumPy would make an object of each time with a zone.
    return np.asarray(known < pd.DatetimeIndex(times.dt.floor("D")))
