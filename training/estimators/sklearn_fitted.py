"""A fitted scikit-learn classifier behind the protocol."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from training.estimators.graph import from_sklearn


@dataclass(frozen=True)
class SklearnFitted:
    """`model` gives class probabilities for `columns` features."""

    model: Any
    columns: int
    device: str = "cpu"

    def scores(self, features: np.ndarray) -> np.ndarray:
        return self.model.predict_proba(features)[:, 1]

    def onnx(self) -> bytes:
        return from_sklearn(self.model, self.columns)
