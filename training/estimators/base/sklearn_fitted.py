"""A fitted scikit-learn classifier behind the protocol."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper, numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType

from training.compat.skl2onnx import corrected_tree_nodes
from training.contract.artifact import ONNX_INPUT, ONNX_OUTPUT
from training.estimators.base.graph import ML_OPSET, OPSET, serialise, threshold_as_float32


@dataclass(frozen=True)
class SklearnFitted:
    """`model` computes class probabilities from `columns` features."""

    model: Any
    columns: int
    device: str = "cpu"

    def scores(self, features: np.ndarray) -> np.ndarray:
        return self.model.predict_proba(features)[:, 1]

    def onnx(self) -> bytes:
        return from_sklearn(self.model, self.columns)


def from_sklearn(model: Any, columns: int) -> bytes:
    """The graph of a fitted scikit-learn classifier of `columns` features, without the labels that skl2onnx adds."""
    with corrected_tree_nodes(threshold_as_float32):
        converted = convert_sklearn(
            model,
            initial_types=[(ONNX_INPUT, FloatTensorType([None, columns]))],
            options={id(model): {"zipmap": False}},
            target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
        )
    graph = converted.graph
    probabilities = graph.output[1].name
    tail = [
        helper.make_node("Gather", [probabilities, "positive"], ["positive_scores"], axis=1),
        helper.make_node("Squeeze", ["positive_scores", "column_axis"], [ONNX_OUTPUT]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1], dtype=np.int64), "positive"),
        numpy_helper.from_array(np.array([1], dtype=np.int64), "column_axis"),
    ]
    return serialise([*graph.node, *tail], [*graph.initializer, *constants], columns)
