"""Folds of a search: in the order of time, with the label delay between, within the training window."""

from datetime import date

import numpy as np
import pytest

from training.contract.base import Days
from training.contract.errors import ConfigError
from training.contract.search_spec import SearchSpec
from training.domain.folds import time_folds

SPACES = {"logistic_regression": {"C": {"low": 0.1, "high": 10.0}}}
WINDOW = Days(start=date(2026, 1, 1), end=date(2026, 1, 31))


def search(**fields: int) -> SearchSpec:
    return SearchSpec.model_validate({"spaces": SPACES, **fields})


def test_validations_are_the_last_days_and_training_ends_a_label_delay_before_each() -> None:
    assert [str(fold) for fold in time_folds(WINDOW, search(folds=2, fold_days=5), delay_days=3)] == [
        "train 2026-01-01 … 2026-01-17, validate 2026-01-21 … 2026-01-25",
        "train 2026-01-01 … 2026-01-22, validate 2026-01-26 … 2026-01-30",
    ]


def test_training_days_may_be_limited() -> None:
    folds = time_folds(WINDOW, search(folds=2, fold_days=5, train_days=7), delay_days=3)
    assert [str(fold.train) for fold in folds] == ["2026-01-11 … 2026-01-17", "2026-01-16 … 2026-01-22"]


@pytest.mark.parametrize(("folds", "fold_days", "delay"), [(1, 7, 0), (3, 7, 7), (4, 1, 14), (29, 1, 0)])
def test_nothing_that_was_not_known_is_trained_on(folds: int, fold_days: int, delay: int) -> None:
    found = time_folds(WINDOW, search(folds=folds, fold_days=fold_days), delay)
    assert len(found) == folds
    assert found[-1].validation.end == WINDOW.end
    for fold in found:
        assert (fold.validation.start - fold.train.end).days == delay
        assert len(fold.validation) == fold_days
        assert fold.train.start >= WINDOW.start
    assert found == sorted(found, key=lambda fold: fold.validation.start)


def test_a_window_that_is_too_short_is_refused_with_what_is_needed() -> None:
    time_folds(WINDOW, search(folds=3, fold_days=7, train_days=2), delay_days=7)
    with pytest.raises(ConfigError, match=r"has 30 days, but training.search needs 31: 3 folds of 7 days.*and 3 to"):
        time_folds(WINDOW, search(folds=3, fold_days=7, train_days=3), delay_days=7)


def test_the_rows_of_a_fold_are_those_of_its_days() -> None:
    days = np.repeat(np.arange("2026-01-01", "2026-01-31", dtype="datetime64[D]"), 2)
    (fold,) = time_folds(WINDOW, search(folds=1, fold_days=2, train_days=3), delay_days=4)
    train, validation = fold.rows(days)
    assert [str(day) for day in days[train]] == [f"2026-01-{day}" for day in (22, 22, 23, 23, 24, 24)]
    assert [str(day) for day in days[validation]] == [f"2026-01-{day}" for day in (29, 29, 30, 30)]
