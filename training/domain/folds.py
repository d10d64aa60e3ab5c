"""Folds in the order of time, for a search over the training window."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from training.contract.base import Days
from training.contract.errors import ConfigError
from training.contract.search_spec import SearchSpec


@dataclass(frozen=True)
class Fold:
    """Train on one span of days and validate on a later one, which begins a label delay after it."""

    train: Days
    validation: Days

    def __str__(self) -> str:
        return f"train {self.train}, validate {self.validation}"

    def rows(self, days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the rows to train on and to validate on. `days` (datetime64[D]) are those of all rows [n]."""
        return _within(days, self.train), _within(days, self.validation)


def time_folds(window: Days, search: SearchSpec, delay_days: int) -> list[Fold]:
    """The folds within the training window `window`, in the order of time.

    The validations are the last `folds` spans of `fold_days` days. A label is known `delay_days` after its event, so on
    the first day of a validation the labels of the days before the gap were known, and no later ones.

    Raises ConfigError when the window is too short.
    """
    needed = search.days_needed(delay_days)
    if len(window) < needed:
        problem = f"The training window {window} has {len(window)} days, but training.search needs {needed}:"
        problem += f" {search.folds} folds of {search.fold_days} days, the label delay of {delay_days} days,"
        problem += f" and {search.train_days or 1} to train on"
        raise ConfigError(problem, hint="Train on a longer window, or lower training.search.folds or fold_days.")
    starts = [window.end - timedelta(days=search.fold_days * back) for back in range(search.folds, 0, -1)]
    return [_fold(window, start, search, delay_days) for start in starts]


def _fold(window: Days, start: date, search: SearchSpec, delay_days: int) -> Fold:
    train_end = start - timedelta(days=delay_days)
    first = window.start
    if search.train_days is not None:
        first = max(first, train_end - timedelta(days=search.train_days))
    validation = Days(start=start, end=start + timedelta(days=search.fold_days))
    return Fold(train=Days(start=first, end=train_end), validation=validation)


def _within(days: np.ndarray, span: Days) -> np.ndarray:
    return np.flatnonzero((days >= np.datetime64(span.start)) & (days < np.datetime64(span.end)))
