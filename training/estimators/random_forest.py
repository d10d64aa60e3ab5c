"""A random forest (scikit-learn). 100 trees of depth 10 are the Fraud Detection Handbook's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from training.estimators.base import NO_CHECKPOINT, Checkpoint
from training.estimators.sklearn_fitted import SklearnFitted

DEFAULTS: Mapping[str, Any] = {
    "n_estimators": 100,
    "max_depth": 10,
    # A leaf of one row says 0 or 1 and nothing between; 5 rank the many unlikely frauds a little better.
    "min_samples_leaf": 5,
    "max_features": "sqrt",
}
DISTRIBUTED = False


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    parameters: Mapping[str, Any],
    seed: int,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> SklearnFitted:
    # Every tree has its own seed, so the number of jobs does not change the forest.
    model = RandomForestClassifier(**parameters, random_state=seed, n_jobs=-1)
    return SklearnFitted(model.fit(features, labels), features.shape[1])
