"""Logistic regression on standardised features (scikit-learn); the scaling is part of the model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.estimators.base import NO_CHECKPOINT, Checkpoint
from training.estimators.sklearn_fitted import SklearnFitted

DEFAULTS: Mapping[str, Any] = {"C": 1.0, "max_iter": 1000}
DISTRIBUTED = False


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    parameters: Mapping[str, Any],
    seed: int,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> SklearnFitted:
    # Fitted in double precision: single loses the solver's convergence on standardised columns of unlike spread.
    model = make_pipeline(StandardScaler(), LogisticRegression(**parameters, random_state=seed))
    return SklearnFitted(model.fit(features.astype(np.float64), labels), features.shape[1])
