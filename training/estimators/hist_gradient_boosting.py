"""Gradient-boosted trees on binned features (scikit-learn's HistGradientBoostingClassifier)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from training.estimators.sklearn_fitted import SklearnFitted

DEFAULTS: Mapping[str, Any] = {
    "max_iter": 100,
    "learning_rate": 0.05,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 20,
    "l2_regularization": 1.0,
    "max_features": 1.0,
}


def fit(features: np.ndarray, labels: np.ndarray, parameters: Mapping[str, Any], seed: int) -> SklearnFitted:
    # No early stopping: it would hold out random rows, and rows of one card lie on both sides of such a split.
    model = HistGradientBoostingClassifier(**parameters, early_stopping=False, random_state=seed)
    return SklearnFitted(model.fit(features, labels), features.shape[1])
