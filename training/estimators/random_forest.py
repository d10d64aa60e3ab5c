"""A random forest (scikit-learn). The Fraud Detection Handbook uses 100 trees of depth 10."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from training.contract.registries import ESTIMATORS
from training.estimators.base import NO_CHECKPOINT, Checkpoint
from training.estimators.base.sklearn_fitted import SklearnFitted


@ESTIMATORS.register("random_forest")
class RandomForest:
    DEFAULTS: Mapping[str, Any] = {
        "n_estimators": 100,
        "max_depth": 10,
        # With one row per leaf, a tree predicts only 0 or 1. With 5, rows of low probability are ranked a little
        # better.
        "min_samples_leaf": 5,
        "max_features": "sqrt",
    }
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
        # Every tree has its own seed, so the forest does not depend on the number of jobs.
        model = RandomForestClassifier(**parameters, random_state=seed, n_jobs=-1)
        return SklearnFitted(model.fit(features, labels), features.shape[1])
