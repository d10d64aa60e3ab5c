"""Say where the champion's performance fell."""

import logging
from collections.abc import Collection

import numpy as np
import pandas as pd

from training.adapters.holdout_rows import HoldoutRows
from training.adapters.lake import EVENTS
from training.contract.base import Days
from training.contract.feature_definitions import FeatureColumn
from training.contract.messages import Diagnosis
from training.domain.diagnosis import Losses, diagnose
from training.domain.entity_age import age_feature, complete
from training.domain.evaluation_set import EvaluationSet
from training.domain.frames import LOGGED_OUTPUTS, are_finite
from training.entity_ages import entity_ages
from training.settings import StateSettings
from training.steps.performance.answers import Answers
from training.steps.performance.kept_rows import kept_rows

log = logging.getLogger("perennial")


def diagnosis(answers: Answers, window: Days, settings: StateSettings) -> Diagnosis | None:
    """The segments of the labelled answers to `window` whose loss is higher than on the holdout. None when the kind of
    task has no loss of a single row, or the champion's run does not hold its holdout's rows."""
    spec, task, known = answers.spec, answers.task, kept_rows(answers, settings)
    if known is None:
        return None
    truth = EvaluationSet.of(known.labels, None, known.times.astype("datetime64[D]"), known.times)
    scored = task.scored(truth, known.scores, answers.served)
    rows = answers.counted(answers.logged(window, features=True), window)
    rows = answers.sampled(rows[are_finite(rows[LOGGED_OUTPUTS])])
    now_scored = answers.scored(rows)
    if scored.losses is None or now_scored.losses is None:
        log.info("No diagnosis: a task of kind %s has no loss of a single row", spec.task.kind)
        return None
    entity = _entity(answers, known.entities)
    time, of_entities = spec.source.events.time_column, _ages(answers, known, rows, window)
    before = Losses(
        np.column_stack([known.features, known.scores, *(then for then, _ in of_entities.values())]),
        scored.losses,
        _numbers(known.entities[entity] if entity else pd.Series(known.times.astype("datetime64[h]"))),
    )
    now = Losses(
        np.column_stack([answers.features(rows), now_scored.values, *(now for _, now in of_entities.values())]),
        now_scored.losses,
        _numbers(rows[entity] if entity else rows[time].dt.floor("h")),
    )
    outputs = _outputs(answers, now_scored.values.reshape(len(rows), -1).shape[1])
    columns = [*answers.metadata.columns, *outputs, *map(age_feature, of_entities)]
    found = diagnose(before, now, columns, scored.loss, spec.monitoring.confidence, spec.training.seed)
    _show(found)
    return found


def _entity(answers: Answers, known: Collection[str]) -> str | None:
    """The column of entities that are halved: that of evaluation, or the first that the holdout's rows have. None:
    hours are."""
    kinds, evaluated = [name for name in answers.spec.entity_columns if name in known], answers.spec.evaluation.entity
    return evaluated if evaluated in kinds else next(iter(kinds), None)


def _numbers(values: pd.Series) -> np.ndarray:
    """A number for each value; each null gets one of its own."""
    numbers = pd.factorize(values)[0]
    missing = numbers < 0
    return np.where(missing, numbers.max(initial=0) + np.cumsum(missing), numbers)


def _ages(
    answers: Answers, known: HoldoutRows, rows: pd.DataFrame, window: Days
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Column of entities → how long they were known, of the holdout's rows and of `rows`, those of `window`."""
    if not known.ages:
        return {}
    now = entity_ages(answers.lake, answers.spec, answers.versions[EVENTS], rows, window)
    return {name: (known.ages[name], each) for name, each in complete(now, rows).items() if name in known.ages}


def _outputs(answers: Answers, count: int) -> list[FeatureColumn]:
    """The columns of the scores: their names begin with `output`, as no feature's does."""
    return [FeatureColumn(name=f"output {name}") for name in answers.metadata.outputs[:count]]


def _show(found: Diagnosis) -> None:
    log.info("Mean %s: %.4g in the window, %.4g on the holdout", found.loss, found.now, found.before)
    for segment in found.segments:
        log.info("  It rose where %s", segment)
    if not found.segments:
        log.info("  It rose in no segment beyond chance")
    for name, shift in found.moved.items():
        log.info(
            "  Moved: %s: %.1f%% of the rows are %s, %.1f%% on the holdout",
            name,
            100 * shift.current,
            shift.part,
            100 * shift.reference,
        )
