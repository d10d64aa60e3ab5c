"""Estimate the champion's performance on the newest days, and compare earlier estimates with what labels have shown."""

import logging
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from training.adapters.registry.watch import record
from training.contract.base import Days
from training.contract.messages import ComparedEstimate, EstimatedPerformance
from training.domain.drift import current_window
from training.domain.estimated_performance import (
    COMPARED,
    Estimate,
    Estimator,
    Known,
    Unlabelled,
    compared,
    estimated_performance,
)
from training.domain.evaluation_set import EvaluationSet, clusterings
from training.domain.frames import LOGGED_OUTPUTS, are_finite
from training.domain.looks import look_number
from training.domain.performance import judge_drop
from training.settings import StateSettings
from training.steps.performance.answers import Answers
from training.steps.performance.kept_rows import kept_rows

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("perennial")


def estimated(answers: Answers, matured: Days, settings: StateSettings) -> EstimatedPerformance | None:
    """The estimate for the newest window, beside those for up to COMPARED windows that end with `matured`, whose labels
    have come. All are made of logged predictions, so nothing of earlier runs is needed. None, with the reason in the
    log, when there is no estimate."""
    spec, primary = answers.spec, answers.task.evaluation.primary
    window = current_window(answers.as_of, spec.monitoring.window_days)
    if window.end <= matured.end or window.start < answers.metadata.holdout_days.end:
        return None
    rows = _answered(answers, window)
    if rows is None:
        return None
    estimator = _estimator(_Champion(answers.champion.run_id, spec.config_hash, answers, settings))
    estimate = None if estimator is None else _estimate(answers, estimator, window, rows)
    if estimator is None or estimate is None:
        return None
    earlier = list(_earlier(answers, estimator, matured))
    rule, monitoring, days = answers.task.rules[primary], spec.monitoring, answers.metadata.holdout_days
    reference = answers.metadata.holdout_metrics[primary]
    look = look_number(window, days, monitoring.window_days)
    test = judge_drop(estimate.drop, estimate.drop_error, reference, primary, rule, look, monitoring)
    found = estimated_performance(estimate, window, len(rows), test, rule, earlier, monitoring)
    _show(found, primary)
    numbers = {f"estimated/{name}": value for name, value in found.metrics.items()}
    numbers |= {f"estimated/{primary}/low": found.low, f"estimated/{primary}/high": found.high}
    if earlier and earlier[0].window == matured:
        numbers[f"estimated/{primary}/error"] = earlier[0].error
    record(settings.tracking_uri, answers.champion, numbers, answers.as_of)
    return found


@dataclass(frozen=True)
class _Champion:
    """What an estimator depends on: the champion's run, and the spec."""

    run_id: str
    config_hash: str
    answers: Answers = field(compare=False)
    settings: StateSettings = field(compare=False)


@lru_cache(maxsize=2)
def _estimator(champion: _Champion) -> Estimator | None:
    """Kept: a replay looks at one champion many times, and fitting takes longer than all else of a look."""
    answers, task = champion.answers, champion.answers.task
    primary, rows = task.evaluation.primary, kept_rows(answers, champion.settings)
    if rows is None:
        return None
    error = answers.metadata.holdout_standard_errors.get(primary)
    if error is None or primary not in answers.metadata.holdout_metrics:
        log.info("No estimate: the standard error of %s on the holdout is not known", primary)
        return None
    days = rows.times.astype("datetime64[D]")
    truth = EvaluationSet.of(rows.labels, None, days, rows.times)
    drawn = clusterings(list(rows.entities.values()), days, rows.times)
    known = Known(rows.features, task.scored(truth, rows.scores, answers.served), answers.served, drawn, error)
    try:
        return Estimator(known, task, answers.spec.training.seed)
    except KeyError:
        log.info("No estimate: %s cannot be estimated without labels", primary)
        return None


def _answered(answers: Answers, window: Days) -> "pd.DataFrame | None":
    """The answers to `window` that an estimate is made of; None when they are too few."""
    rows = answers.logged(window, features=answers.task.estimated_from == "features")
    rows = answers.counted(rows, window, labelled=False)
    rows = rows[are_finite(rows[LOGGED_OUTPUTS])]
    if len(rows) < answers.spec.monitoring.minimum_rows:
        log.info("No estimate for %s: %d predictions are fewer than monitoring.minimum_rows", window, len(rows))
        return None
    return rows


def _estimate(answers: Answers, estimator: Estimator, window: Days, rows: "pd.DataFrame") -> Estimate | None:
    used = answers.sampled(rows)
    scores = answers.scores(used)
    from_features = answers.task.estimated_from == "features"
    features = answers.features(used) if from_features else scores.reshape(len(scores), -1)
    found = estimator(Unlabelled(features, scores, answers.clusterings(used)))
    if found is None:
        log.info("No estimate for %s: chance, or the primary metric, cannot be estimated from its rows", window)
    return found


def _earlier(answers: Answers, estimator: Estimator, matured: Days) -> "list[ComparedEstimate]":
    """Estimates for windows whose labels have come, newest first, as far back as the champion has served."""
    spec, primary = answers.spec, answers.task.evaluation.primary
    length, found = timedelta(days=spec.monitoring.window_days), []
    for number in range(COMPARED):
        window = Days(start=matured.start - number * length, end=matured.end - number * length)
        if window.start < answers.metadata.holdout_days.end:
            break
        rows = answers.counted(answers.logged(window), window)
        rows = rows[are_finite(rows[LOGGED_OUTPUTS])]
        if rows.empty:
            break
        truth = answers.truth(rows).labels
        if answers.task.lacks_to_measure(truth, spec.monitoring.minimum_class_rows):
            continue
        used = _answered(answers, window)
        estimate = None if used is None else _estimate(answers, estimator, window, used)
        if estimate is not None:
            realised = answers.scored(rows).value(primary)
            found.append(compared(estimate, window, primary, realised, spec.monitoring))
    return found


def _show(found: EstimatedPerformance, primary: str) -> None:
    log.info(
        "%s estimated for %s, whose labels have not come: %.4f; they are expected to show %.4f to %.4f",
        primary,
        found.window,
        found.metrics[primary],
        found.low,
        found.high,
    )
    for each in found.compared:
        log.info(
            "  %s: %.4f estimated, %.4f realised, error %+.4f, %s the interval",
            each.window,
            each.estimated,
            each.realised,
            each.error,
            "inside" if each.inside else "OUTSIDE",
        )
    error = "none" if found.mean_absolute_error is None else f"{found.mean_absolute_error:.4f}"
    trust = "trusted" if found.trusted else "not trusted"
    log.info("%d estimates compared, mean absolute error %s: %s", len(found.compared), error, trust)
    log.info("Estimate: %s: %s", "DEGRADED" if found.degraded else "not degraded", found.test)
