"""Comparing two models on bootstrap samples of the same rows. The metrics are those of the task (domain/tasks)."""

import numpy as np

from training.contract.model_spec import Metric
from training.domain.task_kind import Scored


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
