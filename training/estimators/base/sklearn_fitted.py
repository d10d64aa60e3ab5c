"""A fitted model with scikit-learn's interface behind the protocol: prepared features, native outputs, ONNX."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType

from training.compat.skl2onnx import corrected_tree_nodes
from training.contract.artifact import ONNX_OUTPUT
from training.contract.names import Target
from training.estimators.base.data import TrainingData
from training.estimators.base.graph import ML_OPSET, OPSET, not_exported, serialise, threshold_as_float32
from training.estimators.base.preparation import Preparation

#: Makes the graph of a fitted model that takes a matrix with this name and this number of columns. The graph returns
#: numbers [n, 1], or labels and then probabilities [n, k].
Convert = Callable[[Any, str, int], onnx.GraphProto]


@dataclass(frozen=True)
class SklearnFitted:
    """`model` computes from the prepared matrix of `columns` features. `classes`: their number for that target."""

    model: Any
    preparation: Preparation
    columns: int
    target: Target
    classes: int | None
    convert: Convert
    device: str = "cpu"

    def outputs(self, features: np.ndarray) -> np.ndarray:
        prepared = self.preparation.apply(features)
        if self.target == "number":
            return np.asarray(self.model.predict(prepared)).reshape(len(features))
        probabilities = np.asarray(self.model.predict_proba(prepared))
        return probabilities[:, 1] if self.target == "binary" else probabilities

    def onnx(self) -> bytes:
        nodes, constants = self.preparation.graph()
        try:
            graph = self.convert(self.model, self.preparation.output, self.preparation.width)
        except Exception as error:
            raise not_exported(type(self.model).__name__, error) from error
        if not self.preparation.has_missing:
            _drop_missing_branches(graph)
        tail, tail_constants = _tail(graph, self.target)
        return serialise(
            [*nodes, *graph.node, *tail],
            [*constants, *graph.initializer, *tail_constants],
            self.columns,
            self.classes,
        )


def fit_sklearn(
    model: Any,
    data: TrainingData,
    *,
    convert: Convert | None = None,
    keep_missing: bool = False,
    dtype: type[np.floating[Any]] = np.float32,
) -> SklearnFitted:
    """Fit `model`, a classifier or a regressor, on the prepared matrix of `data` as `dtype`.

    `convert` is by default skl2onnx. `keep_missing`: the model takes NaN (preparation.py).
    """
    preparation = Preparation.of(data, keep_missing=keep_missing)
    model.fit(preparation.apply(data.features).astype(dtype, copy=False), data.labels)
    classes = data.classes if data.target == "classes" else None
    return SklearnFitted(model, preparation, data.features.shape[1], data.target, classes, convert or from_sklearn)


def from_sklearn(model: Any, name: str, columns: int) -> onnx.GraphProto:
    """The graph of a fitted scikit-learn model, as `Convert` says."""
    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else {}
    with corrected_tree_nodes(threshold_as_float32):
        converted = convert_sklearn(
            model,
            initial_types=[(name, FloatTensorType([None, columns]))],
            options=options,
            target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
        )
    return converted.graph


def _drop_missing_branches(graph: onnx.GraphProto) -> None:
    """Leave out which branch of a tree a NaN takes: without it, ONNX Runtime does not look for NaN at every node."""
    for node in graph.node:
        kept = [each for each in node.attribute if each.name != "nodes_missing_value_tracks_true"]
        if len(kept) < len(node.attribute):
            del node.attribute[:]
            node.attribute.extend(kept)


def _tail(graph: onnx.GraphProto, target: Target) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """From the graph's output to the one that is served."""
    axis = numpy_helper.from_array(np.array([1], dtype=np.int64), "column_axis")
    if target == "number":
        return [helper.make_node("Squeeze", [graph.output[0].name, "column_axis"], [ONNX_OUTPUT])], [axis]
    probabilities = graph.output[1].name
    if target == "classes":
        return [helper.make_node("Identity", [probabilities], [ONNX_OUTPUT])], []
    nodes = [
        helper.make_node("Gather", [probabilities, "positive"], ["positive_scores"], axis=1),
        helper.make_node("Squeeze", ["positive_scores", "column_axis"], [ONNX_OUTPUT]),
    ]
    return nodes, [numpy_helper.from_array(np.array([1], dtype=np.int64), "positive"), axis]
