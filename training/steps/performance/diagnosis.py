"""Say where the champion's performance fell."""

import logging
from collections.abc import Collection

import numpy as np
import pandas as pd

from training.contract.base import Days
from training.contract.feature_definitions import FeatureColumn
from training.contract.messages import Diagnosis
from training.domain.diagnosis import Losses, diagnose
from training.domain.evaluation_set import EvaluationSet
from training.domain.frames import LOGGED_OUTPUTS, are_finite
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
    time = spec.source.events.time_column
    before = Losses(
        np.column_stack([known.features, known.scores]),
        scored.losses,
        _numbers(known.entities[entity] if entity else pd.Series(known.times.astype("datetime64[h]"))),
    )
    now = Losses(
        np.column_stack([answers.features(rows), now_scored.values]),
        now_scored.losses,
        _numbers(rows[entity] if entity else rows[time].dt.floor("h")),
    )
    columns = [*answers.metadata.columns, *_outputs(answers, now.values.shape[1])]
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


def _outputs(answers: Answers, columns: int) -> list[FeatureColumn]:
    """The columns of the scores: their names begin with `output`, as no feature's does."""
    names = answers.metadata.outputs[: columns - len(answers.metadata.columns)]
    return [FeatureColumn(name=f"output {name}") for name in names]


def _show(found: Diagnosis) -> None:
    log.info("Mean %s: %.4g in the window, %.4g on the holdout", found.loss, found.now, found.before)
    for segment in found.segments:
        log.info("  It rose where %s", segment)
    if not found.segments:
        log.info("  It rose in no segment more surely than by chance")
    for name, shift in found.moved.items():
        log.info(
            "  Moved: %s: %.1f%% of the rows are %s, %.1f%% on the holdout",
            name,
            100 * shift.current,
            shift.part,
            100 * shift.reference,
        )
