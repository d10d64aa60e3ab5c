"""Linear regression with a penalty on standardised features (scikit-learn). The scaling is part of the model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.contract.registries import ESTIMATORS
from training.estimators.base import NO_CHECKPOINT, Checkpoint, TrainingData
from training.estimators.base.sklearn_fitted import SklearnFitted, fit_sklearn


@ESTIMATORS.register("linear_regression")
class LinearRegression:
    # Without a penalty the columns of a category, which sum to 1, have no unique solution.
    DEFAULTS = {"number": {"alpha": 1.0}}
    DISTRIBUTED = False
    LIBRARIES = ("onnx", "scikit-learn", "skl2onnx")

    def fit(
        self, data: TrainingData, parameters: Mapping[str, Any], seed: int, checkpoint: Checkpoint = NO_CHECKPOINT
    ) -> SklearnFitted:
        model = make_pipeline(StandardScaler(), Ridge(**parameters, solver="cholesky"))
        return fit_sklearn(model, data, dtype=np.float64)
