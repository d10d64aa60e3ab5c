"""Logistic regression on standardised features (scikit-learn); the scaling is part of the model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.contract.registries import ESTIMATORS
from training.estimators.base import NO_CHECKPOINT, Checkpoint, TrainingData
from training.estimators.base.sklearn_fitted import SklearnFitted, fit_sklearn

_DEFAULTS = {"C": 1.0, "max_iter": 1000}


@ESTIMATORS.register("logistic_regression")
class LogisticRegressionEstimator:
    DEFAULTS = {"binary": _DEFAULTS, "classes": _DEFAULTS}
    DISTRIBUTED = False
    LIBRARIES = ("onnx", "scikit-learn", "skl2onnx")

    def fit(
        self, data: TrainingData, parameters: Mapping[str, Any], seed: int, checkpoint: Checkpoint = NO_CHECKPOINT
    ) -> SklearnFitted:
        model = make_pipeline(StandardScaler(), LogisticRegression(**parameters, random_state=seed))
        # In single precision the solver does not converge on columns of very different spread.
        return fit_sklearn(model, data, dtype=np.float64)
