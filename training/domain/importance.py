"""Which features a model leans on: permutation importance (Breiman, Random Forests, 2001, §10)."""

from collections.abc import Callable

import numpy as np

from training.contract.model_spec import Metric
from training.domain.metrics import EvaluationSet, Ranking

#: Enough for an order among features; scoring twenty times a whole holdout of a forest would take longer than fitting.
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
    """Feature → fall of `metric` when that column of `features` [n, d] is shuffled.

    On all positive rows, and as many others as make `MAXIMUM_ROWS` (at least as many as there are positives).
    """
    random = np.random.default_rng(seed)
    positive, others = np.flatnonzero(truth.labels == 1), np.flatnonzero(truth.labels == 0)
    others = random.permutation(others)[: max(MAXIMUM_ROWS - len(positive), len(positive))]
    rows = np.sort(np.concatenate([positive, others]))
    sample = EvaluationSet.of(truth.labels[rows], truth.entities[rows], truth.days[rows])

    def quality(values: np.ndarray) -> float:
        return Ranking(sample, score(values), k).value(metric)

    intact, falls = features[rows], {}
    reference = quality(intact)
    for i, name in enumerate(names):
        shuffled = intact.copy()
        shuffled[:, i] = random.permutation(shuffled[:, i])
        falls[name] = reference - quality(shuffled)
    return falls
