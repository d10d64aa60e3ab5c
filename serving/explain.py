"""Why a score is what it is: sampled Shapley values, for any scorer.

Along a random order of the features a reference row is turned into the payment, one feature at a time; what the score
changes at a feature's turn is that feature's contribution along this order. The mean over orders and reference rows is
an unbiased estimate of the Shapley value (Štrumbelj and Kononenko, "Explaining prediction models and individual
predictions with feature contributions", 2014); each order is also gone backwards, which halves the noise (Mitchell et
al., "Sampling permutations for Shapley value estimation", 2022). The reference rows are the golden rows of the model's
artifact. Contributions and the base score sum to the score exactly; the same payment gets the same explanation.
"""

from typing import Any

import numpy as np

from training.adapters.onnx_model import OnnxModel

METHOD = "sampled Shapley values against the model's golden rows"
#: Orders, each gone forwards and backwards: every one costs features + 1 scores.
ORDERS = 32


def explain(model: OnnxModel, features: np.ndarray) -> dict[str, Any]:
    """The fields of schema.Explanation for `features` [d], float32."""
    reference = np.asarray(model.metadata.golden.features, np.float32)
    d = len(features)
    rng = np.random.default_rng(0)
    orders = np.array([order[::step] for order in (rng.permutation(d) for _ in range(ORDERS)) for step in (1, -1)])
    # A pair shares its reference row, and all rows are used equally often, as far as that goes.
    start = reference[np.arange(len(orders)) // 2 % len(reference)]
    turned = np.argsort(orders, axis=1)[:, None, :] < np.arange(d + 1)[None, :, None]
    steps = np.where(turned, features, start[:, None, :])
    scores = model.score(steps.reshape(-1, d)).reshape(len(orders), d + 1).astype(float)
    changes = np.empty((len(orders), d))
    np.put_along_axis(changes, orders, np.diff(scores, axis=1), axis=1)
    contributions = dict(zip(model.metadata.feature_names, changes.mean(axis=0).tolist(), strict=True))
    return {"method": METHOD, "base_score": float(scores[:, 0].mean()), "contributions": contributions}
