"""Gradient-boosted trees of LightGBM."""

import re
from collections.abc import Mapping
from typing import Any

import onnx
from lightgbm import Booster, LGBMClassifier, LGBMRegressor
from onnxmltools.convert import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from training.contract.registries import ESTIMATORS
from training.estimators.base import NO_CHECKPOINT, Checkpoint, TrainingData
from training.estimators.base.graph import ONNXMLTOOLS_OPSET, threshold_as_float32
from training.estimators.base.sklearn_fitted import SklearnFitted, fit_sklearn

_DEFAULTS = {
    "n_estimators": 200,
    "learning_rate": 0.05,
    "num_leaves": 31,
    "max_depth": -1,
    "min_child_samples": 20,
    "subsample": 1.0,
    "subsample_freq": 1,
    "colsample_bytree": 1.0,
    "reg_alpha": 0.0,
    "reg_lambda": 0.0,
    "max_bin": 255,
}


@ESTIMATORS.register("lightgbm")
class LightGBM:
    DEFAULTS = {
        # A positive row counts as this many negative rows.
        "binary": {**_DEFAULTS, "positive_weight": 1.0},
        "classes": _DEFAULTS,
        "number": {**_DEFAULTS, "objective": "regression"},
    }
    DISTRIBUTED = False
    LIBRARIES = ("lightgbm", "onnx", "onnxmltools")

    def fit(
        self, data: TrainingData, parameters: Mapping[str, Any], seed: int, checkpoint: Checkpoint = NO_CHECKPOINT
    ) -> SklearnFitted:
        given = {**parameters, "random_state": seed % 2**31, "deterministic": True, "force_row_wise": True}
        if data.target == "binary":
            given["scale_pos_weight"] = given.pop("positive_weight")
        kind = LGBMRegressor if data.target == "number" else LGBMClassifier
        return fit_sklearn(kind(**given, verbose=-1), data, convert=self.to_graph, keep_missing=True)

    @staticmethod
    def to_graph(model: Any, name: str, columns: int) -> onnx.GraphProto:
        """The graph of a fitted model (base/sklearn_fitted.py, Convert)."""
        # The converter rounds the thresholds (float64) to the nearest float32: some rows would take the other branch.
        text = re.sub(r"(?m)^threshold=(.*)$", _rounded, model.booster_.model_to_string())
        text = re.sub(r"(?m)^tree_sizes=.*\n", "", text)  # The lengths of the trees' texts, which are others now.
        types = [(name, FloatTensorType([None, columns]))]
        return convert_lightgbm(
            Booster(model_str=text), initial_types=types, target_opset=ONNXMLTOOLS_OPSET, zipmap=False
        ).graph


def _rounded(line: re.Match[str]) -> str:
    return "threshold=" + " ".join(repr(threshold_as_float32(float(each))) for each in line[1].split())
