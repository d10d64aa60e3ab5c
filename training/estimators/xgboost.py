"""Gradient-boosted trees of XGBoost."""

import math
from collections.abc import Mapping
from typing import Any

import onnx
from onnx import helper
from onnxmltools.convert import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from xgboost import XGBClassifier, XGBRegressor

from training.contract.registries import ESTIMATORS
from training.estimators.base import NO_CHECKPOINT, Checkpoint, TrainingData
from training.estimators.base.graph import ONNXMLTOOLS_OPSET
from training.estimators.base.sklearn_fitted import SklearnFitted, fit_sklearn

_DEFAULTS = {
    "n_estimators": 200,
    "learning_rate": 0.1,
    "max_depth": 6,
    "min_child_weight": 1.0,
    "subsample": 1.0,
    "colsample_bytree": 1.0,
    "reg_alpha": 0.0,
    "reg_lambda": 1.0,
    "gamma": 0.0,
    "tree_method": "hist",
    # None: XGBoost estimates it from the labels.
    "base_score": None,
}


@ESTIMATORS.register("xgboost")
class XGBoost:
    DEFAULTS = {
        # A positive row counts as this many negative rows.
        "binary": {**_DEFAULTS, "positive_weight": 1.0},
        "classes": _DEFAULTS,
        "number": _DEFAULTS,
    }
    DISTRIBUTED = False
    LIBRARIES = ("onnx", "onnxmltools", "xgboost-cpu")

    def fit(
        self, data: TrainingData, parameters: Mapping[str, Any], seed: int, checkpoint: Checkpoint = NO_CHECKPOINT
    ) -> SklearnFitted:
        given = {**parameters, "random_state": seed % 2**31}
        if data.target == "binary":
            given["scale_pos_weight"] = given.pop("positive_weight")
        kind = XGBRegressor if data.target == "number" else XGBClassifier
        return fit_sklearn(kind(**given), data, convert=self.to_graph, keep_missing=True)

    @staticmethod
    def to_graph(model: Any, name: str, columns: int) -> onnx.GraphProto:
        """The graph of a fitted model (base/sklearn_fitted.py, Convert)."""
        types = [(name, FloatTensorType([None, columns]))]
        graph: onnx.GraphProto = convert_xgboost(model, initial_types=types, target_opset=ONNXMLTOOLS_OPSET).graph
        if model.get_params()["objective"] == "binary:logistic":
            _correct_base(graph, model)
        return graph


def _correct_base(graph: onnx.GraphProto, model: Any) -> None:
    """Let the sums of the trees begin at the logit of the base score.

    The converter of onnxmltools 1.16 leaves a probability there when the first tree is a leaf of 0.
    """
    [trees] = [node for node in graph.node if node.op_type == "TreeEnsembleClassifier"]
    attributes = [each for each in trees.attribute if each.name != "base_values"]
    score = float(model.intercept_[0])
    attributes.append(helper.make_attribute("base_values", [math.log(score / (1 - score))]))
    del trees.attribute[:]
    trees.attribute.extend(attributes)
