"""The primary metric on other windows of the champion's life, which the test of a window needs."""

import logging

from training.contract.base import Days
from training.domain.frames import LABEL, LOGGED_OUTPUTS, are_finite
from training.domain.metrics import standard_error
from training.domain.performance import Beside, Measured
from training.steps.performance.answers import Answers

log = logging.getLogger("perennial")


def measured_beside(answers: Answers, window: Days) -> Beside:
    """The primary metric on the champion's first windows and on the one before `window`, where there are enough labels.

    They are measured again at every look, from the log of predictions, so that nothing of earlier runs is needed.
    """

    def measure(each: Days) -> Measured | None:
        found = _measured(answers, each)
        if found is not None:
            log.info("  in %s it was %.4f ± %.4f", each, *found)
        return found

    return Beside.of(answers.metadata.holdout_days.end, window, measure)


def _measured(answers: Answers, window: Days) -> Measured | None:
    predictions, task, spec = answers.logged(window), answers.task, answers.spec
    if predictions.empty:
        return None
    rows = answers.counted(predictions, window)
    rows = rows[are_finite(rows[LOGGED_OUTPUTS])]
    if task.lacks_to_measure(task.truth(rows[LABEL].to_numpy()), spec.monitoring.minimum_class_rows):
        return None
    scored, primary = answers.scored(rows), spec.evaluation.primary
    error = standard_error(scored, primary, answers.clusterings(rows), spec.training.seed)
    return None if error is None else Measured(scored.value(primary), error)
