"""Explains a score by sampled Shapley values, for any model.

Take a reference row and a random order of the features. Replace the features of the row by those of the event, one at a
time in this order. The change of the score at each step is the contribution of that feature in this order. The mean
over orders and reference rows is an unbiased estimate of the Shapley value (Štrumbelj and Kononenko, "Explaining
prediction models and individual predictions with feature contributions", 2014). Each order is also used backwards,
which halves the variance (Mitchell et al., "Sampling permutations for Shapley value estimation", 2022). The reference
rows are the golden rows of the model's artifact. Contributions and base score sum to the score exactly. The same event
always gets the same explanation.
"""

from collections.abc import Callable

import numpy as np

from training.contract.artifact import ArtifactMetadata
from training.contract.predictions import Explanation
from training.domain.task_kind import ServedTask

METHOD = "sampled Shapley values against the model's golden rows"
#: Random orders, each used forwards and backwards. One pass costs (features + 1) scores.
ORDERS = 32


def explain(
    score: Callable[[np.ndarray], np.ndarray], task: ServedTask, metadata: ArtifactMetadata, features: np.ndarray
) -> Explanation:
    """Explain the score of `features` [d], float32; of classes, the probability of the likeliest.

    `score`: from features [n, d] to the scores of the model, [n] or [n, k]. `task` says what they mean.
    """
    reference = np.asarray(metadata.golden.features, np.float32)
    d = len(features)
    rng = np.random.default_rng(0)
    orders = np.array([order[::step] for order in (rng.permutation(d) for _ in range(ORDERS)) for step in (1, -1)])
    # Both directions of an order share a reference row. All rows are used about equally often.
    start = reference[np.arange(len(orders)) // 2 % len(reference)]
    turned = np.argsort(orders, axis=1)[:, None, :] < np.arange(d + 1)[None, :, None]
    steps = np.where(turned, features, start[:, None, :])
    outputs = task.outputs(score(steps.reshape(-1, d)))
    place = task.explained(score(features[np.newaxis]))
    scores = outputs[:, place].reshape(len(orders), d + 1)
    changes = np.empty((len(orders), d))
    np.put_along_axis(changes, orders, np.diff(scores, axis=1), axis=1)
    contributions = dict(zip(metadata.feature_names, changes.mean(axis=0).tolist(), strict=True))
    base_score = float(scores[:, 0].mean())
    return {
        "method": METHOD,
        "output": task.output_names[place],
        "base_score": base_score,
        "contributions": contributions,
    }
