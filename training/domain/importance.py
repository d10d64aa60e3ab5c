"""Permutation importance: how much a metric drops when a feature is shuffled (Breiman, Random Forests, 2001, §10)."""

from collections.abc import Callable

import numpy as np

from training.contract.model_spec import Metric
from training.domain.metrics import EvaluationSet, Ranking

#: Enough to rank features. Scoring a whole holdout once per feature can take a forest longer than fitting.
MAXIMUM_ROWS = 10_000


def permutation_importance(
    score: Callable[[np.ndarray], np.ndarray],
    features: np.ndarray,
    truth: EvaluationSet,
    names: list[str],
    metric: Metric,
    k: int,
    seed: int,
) -> dict[str, float]:
    """Feature → drop of `metric` when that column of `features` [n, d] is shuffled.

    Uses all positive rows, and negative rows up to `MAXIMUM_ROWS` in total (but at least as many as there are positive
    rows).
    """
    random = np.random.default_rng(seed)
    positive, negative = np.flatnonzero(truth.labels == 1), np.flatnonzero(truth.labels == 0)
    negative = random.permutation(negative)[: max(MAXIMUM_ROWS - len(positive), len(positive))]
    rows = np.sort(np.concatenate([positive, negative]))
    sample = EvaluationSet.of(truth.labels[rows], truth.entities[rows], truth.days[rows])

    def quality(values: np.ndarray) -> float:
        return Ranking(sample, score(values), k).value(metric)

    original, drops = features[rows], {}
    reference = quality(original)
    for i, name in enumerate(names):
        shuffled = original.copy()
        shuffled[:, i] = random.permutation(shuffled[:, i])
        drops[name] = reference - quality(shuffled)
    return drops
