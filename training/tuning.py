"""Search for an estimator's parameters on folds of the training rows, at once or in parts."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from training import storage
from training.adapters.checkpoints import StoredCheckpoint
from training.adapters.datasets import Rows
from training.adapters.parameter_search import Found, ParameterSearch, TrialRecord, derived_seed
from training.adapters.registry import Run, Runs
from training.contract.base import Days
from training.contract.errors import ConfigError, DataContractError, InputError
from training.contract.messages import FailedPart, SearchResult, TrainInputs
from training.contract.model_spec import ModelSpec
from training.domain.evaluation_set import EvaluationSet
from training.domain.folds import Fold, time_folds
from training.domain.identity import part_id
from training.domain.task_kind import Fitting, TaskKind
from training.domain.windows import known_entities
from training.estimators import base
from training.fit_job import SEARCH, FitJob, Spent, TrainingRows, cost_tags
from training.settings import StateSettings

log = logging.getLogger("perennial")

#: Why a part dropped out that left no message.
_NOT_KNOWN = "it left no message; see the log of its task"


@dataclass(frozen=True)
class _LearnedRows:
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
    job: FitJob, rows: TrainingRows, store: StoredCheckpoint, runs: Runs, run: Run, settings: StateSettings
) -> Mapping[str, Any]:
    """The best parameters that the search of `job` finds, whose run is `run`. `rows` are those of the first window.

    A search in one part is run here, or resumed from `store`. Of a search in parts the results are those of the inputs,
    or the parts are run here, one after the other. Raises as `run_part`; DataContractError when no part found any.
    """
    _require_one_process(job)
    assert job.search is not None
    if job.search.parallel == 1 and job.searched is None:
        found = _search(job, rows, 0, store, runs, run)
        runs.tag(run.run_id, {"search": found.summary, "search_best": _trial_name(found.best.number)})
        return found.best.parameters
    assert isinstance(job.inputs, TrainInputs)
    parts, failed = job.searched, job.inputs.search_failures
    if parts is None:
        parts, failed = _run_parts(job, rows, settings)
    why = {each.part: each.why for each in failed if each.estimator == job.inputs.estimator}
    best = _best_part(job, parts, why)
    for part in parts:
        runs.nest(run, part.run_id)
    told = {part.part: part.summary for part in parts}
    dropped_out = {part: f"dropped out: {why.get(part, _NOT_KNOWN)}" for part in range(job.search.parallel)}
    summary = "; ".join(f"part {part}: {said}" for part, said in sorted({**dropped_out, **told}.items()))
    log.info("Search: %s; best is trial %d of part %d: %.4f", summary, best.trial, best.part, best.value)
    runs.tag(run.run_id, {"search": summary, "search_best": f"part {best.part}, {_trial_name(best.trial)}"})
    return best.parameters


def run_part(job: FitJob, part: int, settings: StateSettings, rows: TrainingRows | None = None) -> SearchResult:
    """Run part number `part` of the search of `job`, or resume it from its journal. `rows`: unless they must be read.

    The part has a run of its own in MLflow. Raises InputError for a part that the search does not have, ConfigError for
    a search by several processes or a training window that is too short for the folds, DataContractError for a fold
    that no model can be fitted or measured on, or when no trial is complete.
    """
    _require_one_process(job)
    estimator, search = job.inputs.estimator, job.search
    if search is None or part >= search.parallel:
        has = f"{search.parallel} parts" if search else "no space"
        problem = f"There is no part {part} of the search for {estimator}: in training.search it has {has}"
        raise InputError(problem, hint="Start the training anew, so that all of its steps follow the same spec.")
    fingerprint = part_id(job.fingerprint, part)
    store = _journal(job, settings, fingerprint)
    runs = Runs(settings.tracking_uri, job.spec.name, str(settings.home / "mlflow"))
    run = runs.begin(f"{estimator}-part-{part}", fingerprint, {**job.tags(settings), "search_part": str(part)})
    if run.result is not None:
        log.info("This part was searched before, in run %s", run.run_id)
        store.remove()
        return SearchResult.model_validate(run.result)
    began = Spent.now()
    try:
        found = _search(job, rows or TrainingRows.of(job), part, store, runs, run)
    except BaseException:
        runs.fail(run)
        raise
    best = found.best
    assert best.value is not None
    # Which device it used, the training knows.
    spent = Spent.now().since(began).tags(SEARCH, 1, "cpu")
    runs.tag(run.run_id, {"search": found.summary, "search_best": _trial_name(best.number), **spent})
    result = SearchResult(
        estimator=estimator,
        part=part,
        run_id=run.run_id,
        trial=best.number,
        parameters=dict(best.parameters),
        value=best.value,
        summary=found.summary,
    )
    runs.finish(run, result.model_dump(mode="json"))
    store.remove()
    return result


def spent_elsewhere(job: FitJob, runs: Runs) -> Spent:
    """What the parts of the search took that ran as steps of their own, one after the other. Parts that dropped out and
    parts of an earlier version are not counted."""
    total, (seconds, cpu_seconds, _) = Spent(0, 0), cost_tags(SEARCH)
    for part in job.searched or ():
        tags = runs.tags(part.run_id)
        total += Spent(float(tags.get(seconds, 0)), float(tags.get(cpu_seconds, 0)))
    return total


def _run_parts(job: FitJob, rows: TrainingRows, settings: StateSettings) -> tuple[list[SearchResult], list[FailedPart]]:
    assert job.search is not None
    found, failed = [], []
    for part in range(job.search.parallel):
        try:
            found.append(run_part(job, part, settings, rows))
        except DataContractError as error:
            log.warning("Part %d of the search dropped out: %s", part, error)
            failed.append(FailedPart(estimator=job.inputs.estimator, part=part, why=error.message))
    return found, failed


def _best_part(job: FitJob, parts: Sequence[SearchResult], why: Mapping[int, str]) -> SearchResult:
    """The part with the best trial; the first of several."""
    assert job.search is not None
    estimator, parallel = job.inputs.estimator, job.search.parallel
    if unknown := [part.part for part in parts if part.part >= parallel]:
        problem = f"There is a result of part {unknown[0]} of the search for {estimator}, which has {parallel} parts"
        raise InputError(problem, hint="Start the training anew, so that all of its steps follow the same spec.")
    if not parts:
        reasons = "; ".join(f"part {part}: {why.get(part, _NOT_KNOWN)}" for part in range(parallel))
        problem = f"No part of the search for parameters of {estimator} found any: {reasons}"
        raise DataContractError(problem, hint="See the logs of the task search.")
    sign = 1 if job.task.rules[job.spec.evaluation.primary].higher_is_better else -1
    return max(parts, key=lambda part: sign * part.value)


def _search(job: FitJob, rows: TrainingRows, part: int, store: StoredCheckpoint, runs: Runs, run: Run) -> Found:
    """Run part number `part` of the search of `job`, or resume the one in `store`. The trials are child runs of `run`.

    The first part begins with the parameters that would be used without a search. The seed of each part is its own.
    """
    search, spec, task, estimator = job.search, job.spec, job.task, job.inputs.estimator
    assert search is not None
    space = search.spaces[estimator]
    base.parameters_for(estimator, job.estimator, task.target, dict.fromkeys(space))
    learned_on = job.dataset.train_on(job.inputs.window)
    learned = _LearnedRows(learned_on, rows.data.labels, rows.classes, job.window.days.start)
    folds = time_folds(learned.window, search, spec.label_spec.delay_days)
    splits = [_split(spec, task, learned, fold) for fold in folds]
    for fold, split in zip(folds, splits, strict=True):
        log.info("Fold: %s; %d and %d rows", fold, len(split.fitted), len(split.measured))
    metric = spec.evaluation.primary

    def measure(parameters: Mapping[str, Any], at: int) -> float:
        split = splits[at]
        fitted = job.estimator.fit(rows.data.some(split.fitted), {**job.parameters, **parameters}, job.inputs.seed)
        scores = fitted.outputs(rows.data.features[split.measured])
        served = task.fit(Fitting(learned.classes, scores, (split.truth.labels, scores)))
        return task.scored(split.truth, scores, served).value(metric)

    def log_trial(trial: TrialRecord) -> None:
        values = {f"{metric}_of_fold": trial.values} | ({} if trial.value is None else {metric: [trial.value]})
        runs.log_child(run, _trial_name(trial.number), trial.parameters, values, trial.state)

    whole, higher = search.parallel == 1, task.rules[metric].higher_is_better
    seed = job.inputs.seed if whole else derived_seed(job.inputs.seed, part)
    start = job.parameters if part == 0 else {}
    budget = search.model_copy(update={"trials": search.trials_of(part)})
    found = ParameterSearch(budget, space, start, higher, seed, store, log_trial).run(measure)
    log.info("Search: %s; best is trial %d, %s %.4f", found.summary, found.best.number, metric, found.best.value)
    return found


def _require_one_process(job: FitJob) -> None:
    if (size := job.processes.size) > 1:
        problem = f"{size} processes cannot search for parameters of {job.inputs.estimator} together"
        raise ConfigError(problem, hint="Give the estimator one node and one GPU, or remove its space.")


def _journal(job: FitJob, settings: StateSettings, fingerprint: str) -> StoredCheckpoint:
    return StoredCheckpoint(storage.join(settings.work, job.spec.name, "searches", fingerprint), "trials")


def _trial_name(number: int) -> str:
    return f"trial-{number:04d}"


def _split(spec: ModelSpec, task: TaskKind, learned: _LearnedRows, fold: Fold) -> _Split:
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
