"""Logistic regression on standardised features (scikit-learn); the scaling is part of the model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.contract.registries import ESTIMATORS
from training.estimators.base import NO_CHECKPOINT, Checkpoint
from training.estimators.base.sklearn_fitted import SklearnFitted


@ESTIMATORS.register("logistic_regression")
class LogisticRegressionEstimator:
    DEFAULTS: Mapping[str, Any] = {"C": 1.0, "max_iter": 1000}
    DISTRIBUTED = False
    LIBRARIES = ("onnx", "scikit-learn", "skl2onnx")

    def fit(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        parameters: Mapping[str, Any],
        seed: int,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> SklearnFitted:
        # In single precision the solver does not converge on columns of very different spread.
        model = make_pipeline(StandardScaler(), LogisticRegression(**parameters, random_state=seed))
        return SklearnFitted(model.fit(features.astype(np.float64), labels), features.shape[1])
