"""The champion's first windows, which are a reference beside its holdout."""

import logging

from training.contract.base import Days
from training.domain.frames import LABEL, LOGGED_OUTPUTS, are_finite
from training.domain.metrics import standard_error
from training.domain.performance import Measured, first_windows
from training.steps.performance.answers import Answers

log = logging.getLogger("perennial")


def early(answers: Answers, window: Days) -> list[Measured]:
    """The primary metric on each of the champion's first windows before `window` that has enough labels.

    They are measured again at every look, from the log of predictions, so that nothing of earlier runs is needed.
    """
    found = [(each, _measured(answers, each)) for each in first_windows(answers.metadata.holdout_days.end, window)]
    known = [(each, measured) for each, measured in found if measured is not None]
    for each, measured in known:
        log.info("  in %s it was %.4f ± %.4f", each, *measured)
    return [measured for _, measured in known]


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
