"""Gradient-boosted trees on binned features (scikit-learn's HistGradientBoosting…)."""

from collections.abc import Mapping
from typing import Any

from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from training.contract.registries import ESTIMATORS
from training.estimators.base import NO_CHECKPOINT, Checkpoint, TrainingData
from training.estimators.base.sklearn_fitted import SklearnFitted, fit_sklearn

_DEFAULTS = {
    "max_iter": 200,
    "learning_rate": 0.05,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 20,
    "l2_regularization": 1.0,
    "max_features": 1.0,
}


@ESTIMATORS.register("hist_gradient_boosting")
class HistGradientBoosting:
    DEFAULTS = {
        # A positive row counts as this many negative rows. On three weeks of the handbook's events before the test
        # weeks of the benchmark, 5 raised average precision from .66 to .70, and 20 did not raise it further.
        "binary": {**_DEFAULTS, "positive_weight": 5.0},
        "classes": _DEFAULTS,
        "number": {**_DEFAULTS, "loss": "squared_error"},
    }
    DISTRIBUTED = False
    LIBRARIES = ("onnx", "scikit-learn", "skl2onnx")

    def fit(
        self, data: TrainingData, parameters: Mapping[str, Any], seed: int, checkpoint: Checkpoint = NO_CHECKPOINT
    ) -> SklearnFitted:
        # No early stopping, because it holds out random rows, and rows of one entity would be on both sides of the
        # split.
        given = {**parameters, "early_stopping": False, "random_state": seed}
        if data.target == "binary":
            given["class_weight"] = {0: 1.0, 1: given.pop("positive_weight")}
        kind = HistGradientBoostingRegressor if data.target == "number" else HistGradientBoostingClassifier
        return fit_sklearn(kind(**given), data, keep_missing=True)
