"""Permutation importance: how much worse a metric gets when a feature is shuffled (Breiman, Random Forests, 2001,
§10)."""

from collections.abc import Callable, Mapping

import numpy as np

from training.domain.charts import Bars, Chart
from training.domain.evaluation_set import EvaluationSet
from training.domain.task_kind import ServedTask, TaskKind

#: Enough to rank features. Scoring a whole holdout once per feature can take a forest longer than fitting.
MAXIMUM_ROWS = 10_000


def permutation_importance(
    score: Callable[[np.ndarray], np.ndarray],
    features: np.ndarray,
    truth: EvaluationSet,
    names: list[str],
    task: TaskKind,
    served: ServedTask,
    seed: int,
) -> dict[str, float]:
    """Feature → by how much the task's primary metric gets worse when that column of `features` [n, d] is shuffled.

    On a sample of the rows that the task chooses, of about MAXIMUM_ROWS.
    """
    random = np.random.default_rng(seed)
    rows = task.sample(truth.labels, random, MAXIMUM_ROWS)
    sample, metric = truth.some(rows), task.evaluation.primary
    sign = task.rules[metric].sign

    def quality(values: np.ndarray) -> float:
        return sign * task.scored(sample, score(values), served).value(metric)

    original, drops = features[rows], {}
    reference = quality(original)
    for i, name in enumerate(names):
        shuffled = original.copy()
        shuffled[:, i] = random.permutation(shuffled[:, i])
        drops[name] = reference - quality(shuffled)
    return drops


def importance_chart(importance: Mapping[str, float], metric: str) -> Chart:
    bars = Bars(tuple(importance), np.array(list(importance.values())))
    title = f"how much worse {metric} is when shuffled"
    return Chart("feature_importance", "Feature importance", title, "", (bars,))
