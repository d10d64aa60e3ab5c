"""Search for an estimator's parameters on folds of the training rows."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from training.adapters.datasets import Rows
from training.adapters.parameter_search import Found, ParameterSearch, Store, TrialRecord
from training.contract.base import Days
from training.contract.errors import DataContractError
from training.contract.model_spec import ModelSpec
from training.domain.evaluation_set import EvaluationSet
from training.domain.folds import Fold, time_folds
from training.domain.task_kind import Fitting, TaskKind
from training.domain.windows import known_entities

log = logging.getLogger("perennial")

#: Fits the training rows with these numbers, and scores those with the others: (parameters, fitted, scored).
FitAndScore = Callable[[Mapping[str, Any], np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class LearnedRows:
    """The first n of the training rows `rows`, which are fitted: `labels` [n] as the estimator takes them, `classes`
    their names, and the first day of the training window."""

    rows: Rows
    labels: np.ndarray
    classes: tuple[str, ...]
    start: date

    @property
    def days(self) -> np.ndarray:
        return self.rows.days[: len(self.labels)]

    @property
    def window(self) -> Days:
        last: date = self.days[-1].astype(object)
        return Days(start=self.start, end=last + timedelta(days=1))


@dataclass(frozen=True)
class _Split:
    """The rows of one fold: those that are fitted, those that are measured, and what came true of the latter."""

    fitted: np.ndarray
    measured: np.ndarray
    truth: EvaluationSet


def best_parameters(
    spec: ModelSpec,
    task: TaskKind,
    estimator: str,
    learned: LearnedRows,
    fit_and_score: FitAndScore,
    start: Mapping[str, Any],
    seed: int,
    store: Store,
    on_trial: Callable[[TrialRecord], None],
) -> Found:
    """Run the search of `training.search` for `estimator`, or resume the one in `store`.

    `start`: the parameters that would be used without a search. Raises ConfigError for a training window that is too
    short for the folds, DataContractError for a fold that no model can be fitted or measured on.
    """
    search = spec.training.search
    assert search is not None
    folds = time_folds(learned.window, search, spec.label_spec.delay_days)
    splits = [_split(spec, task, learned, fold) for fold in folds]
    for fold, split in zip(folds, splits, strict=True):
        log.info("Fold: %s; %d and %d rows", fold, len(split.fitted), len(split.measured))
    metric = spec.evaluation.primary

    def measure(parameters: Mapping[str, Any], at: int) -> float:
        split = splits[at]
        scores = fit_and_score(parameters, split.fitted, split.measured)
        served = task.fit(Fitting(learned.classes, scores, (split.truth.labels, scores)))
        return task.scored(split.truth, scores, served).value(metric)

    space, higher = search.spaces[estimator], task.rules[metric].higher_is_better
    found = ParameterSearch(search, space, start, higher, seed, store, on_trial).run(measure)
    log.info("Search: %s; best is trial %d, %s %.4f", found.summary, found.best.number, metric, found.best.value)
    return found


def _split(spec: ModelSpec, task: TaskKind, learned: LearnedRows, fold: Fold) -> _Split:
    rows = learned.rows
    fitted, measured = fold.rows(learned.days)
    truth = task.truth(rows.labels)
    entities = rows.entities
    if spec.evaluation.exclude_known_entities and entities is not None:
        measured = measured[~_known(spec, truth, entities, rows.times, measured)]
    missing = len(learned.classes) - len(np.unique(learned.labels[fitted])) if learned.classes else 0
    lacks = f"no row of {missing} of the classes" if missing > 0 else task.lacks_to_fit(truth[fitted], 1)
    lacks = lacks or task.lacks_to_measure(truth[measured], 1)
    if lacks or not len(measured):
        problem = f"A fold of the search ({fold}) has {lacks or 'no rows to validate on'}"
        raise DataContractError(problem, hint="Train on a longer window, or choose other folds in training.search.")
    of_entities = None if entities is None else entities.iloc[measured]
    evaluation_set = task.evaluation_set(rows.labels[measured], of_entities, rows.days[measured], rows.times[measured])
    return _Split(fitted, measured, evaluation_set)


def _known(
    spec: ModelSpec, truth: np.ndarray, entities: pd.Series, times: np.ndarray, measured: np.ndarray
) -> np.ndarray:
    """Bool [m]: which of the rows `measured` are of an entity with a positive label that was known on their day.

    Datasets have no report times, so a label counts as known when the label delay has passed.
    """
    moments = pd.Series(pd.to_datetime(times, utc=True))
    positives = np.flatnonzero(truth == 1)
    reported = moments.iloc[positives] + timedelta(days=spec.label_spec.delay_days)
    return known_entities(
        entities.iloc[measured],
        moments.iloc[measured],
        entities.iloc[positives].reset_index(drop=True),
        reported.reset_index(drop=True),
    )
