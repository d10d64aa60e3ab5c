"""Metrics on bootstrap samples. The metrics are those of the task (domain/tasks)."""

from collections.abc import Sequence

import numpy as np

from training.contract.model_spec import Metric
from training.domain.resampling import Clusters
from training.domain.task_kind import Scored

#: Enough for a standard error: it is then known to about 5 % of itself (1 / √(2 · 200)).
STANDARD_ERROR_SAMPLES = 200


def paired_differences(challenger: Scored, champion: Scored, metric: Metric, samples: int, seed: int) -> np.ndarray:
    """Challenger minus champion in `metric` on bootstrap samples [≤ samples]. Each sample is used for both.

    Both have the same evaluation set. Its `clusters` are drawn with replacement: whole entities (the cluster bootstrap:
    Davison & Hinkley, Bootstrap Methods and their Application, §3.8) or blocks of time. Samples in which the metric is
    not defined are left out. The result is empty when nothing can be drawn.
    """
    clusters = challenger.truth.clusters
    if not clusters.count:
        return np.empty(0)
    random = np.random.default_rng(seed)
    differences = np.empty(samples)
    for i in range(samples):
        sample = clusters.draw(random)
        differences[i] = challenger.value(metric, sample) - champion.value(metric, sample)
    return differences[np.isfinite(differences)]


def standard_error(scored: Scored, metric: Metric, clusterings: Sequence[Clusters], seed: int) -> float | None:
    """The standard error of `metric`: its standard deviation on bootstrap samples of whole clusters.

    Rows may be alike in several ways at once, as sales to one customer and sales of one shop are. Drawing only one kind
    of entity makes the error too small when the rows of another are alike (Cameron, Gelbach & Miller, Robust Inference
    with Multiway Clustering, Journal of Business & Economic Statistics 29, 2011). So each of `clusterings` is drawn by
    itself and the largest result counts. None when none of them can be drawn.
    """
    found = [_deviation(scored, metric, clusters, seed) for clusters in clusterings if clusters.count]
    return max((each for each in found if each is not None), default=None)


def _deviation(scored: Scored, metric: Metric, clusters: Clusters, seed: int) -> float | None:
    random = np.random.default_rng(seed)
    values = np.array([scored.value(metric, clusters.draw(random)) for _ in range(STANDARD_ERROR_SAMPLES)])
    values = values[np.isfinite(values)]
    return float(values.std(ddof=1)) if len(values) > 1 else None
