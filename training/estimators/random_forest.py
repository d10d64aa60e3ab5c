"""A random forest (scikit-learn). The Fraud Detection Handbook uses 100 trees of depth 10."""

from collections.abc import Mapping
from typing import Any

from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from training.contract.registries import ESTIMATORS
from training.estimators.base import NO_CHECKPOINT, Checkpoint, TrainingData
from training.estimators.base.sklearn_fitted import SklearnFitted, fit_sklearn

_DEFAULTS = {
    "n_estimators": 100,
    "max_depth": 10,
    # With one row per leaf, a tree predicts only 0 or 1. With 5, rows of low probability are ranked a little better.
    "min_samples_leaf": 5,
    "max_features": "sqrt",
}


@ESTIMATORS.register("random_forest")
class RandomForest:
    # Scikit-learn's own default for a number is all features. A third is Breiman's.
    DEFAULTS = {"binary": _DEFAULTS, "classes": _DEFAULTS, "number": {**_DEFAULTS, "max_features": 0.33}}
    DISTRIBUTED = False
    LIBRARIES = ("onnx", "scikit-learn", "skl2onnx")

    def fit(
        self, data: TrainingData, parameters: Mapping[str, Any], seed: int, checkpoint: Checkpoint = NO_CHECKPOINT
    ) -> SklearnFitted:
        kind = RandomForestRegressor if data.target == "number" else RandomForestClassifier
        # Every tree has its own seed, so the forest does not depend on the number of jobs.
        return fit_sklearn(kind(**parameters, random_state=seed, n_jobs=-1), data)
