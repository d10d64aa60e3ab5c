"""ONNX graphs in the one form that is served: `features` float32 [rows, d] in, `scores` float32 [rows] out.

The bytes depend on the model alone: names are fixed, nothing tells time or producer version.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.contract.artifact import ONNX_INPUT, ONNX_OUTPUT

#: ONNX Runtime 1.31 reads more; these are the oldest that hold every operator used here.
OPSET, ML_OPSET, IR_VERSION = 17, 3, 8


def from_sklearn(model: Any, columns: int) -> bytes:
    """The graph of a fitted scikit-learn classifier of `columns` features (skl2onnx, its labels dropped)."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    with _flags_as_integers():
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


def serialise(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], columns: int) -> bytes:
    """A checked model of these nodes, whose last one gives `scores`."""
    rows = "rows"
    graph = helper.make_graph(
        nodes,
        "perennial",
        [helper.make_tensor_value_info(ONNX_INPUT, TensorProto.FLOAT, [rows, columns])],
        [helper.make_tensor_value_info(ONNX_OUTPUT, TensorProto.FLOAT, [rows])],
        initializer=constants,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="perennial")
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


@contextmanager
def _flags_as_integers() -> Iterator[None]:
    """skl2onnx 1.20 hands NumPy booleans (a histogram tree's `missing_go_to_left`) to onnx as integers, which onnx 1.23
    refuses ("Expected an int, got a boolean"). Until skl2onnx converts them itself, they are converted on the way in.
    """
    from skl2onnx.common import tree_ensemble

    original = tree_ensemble.add_node

    def add_node(*args: Any, nodes_missing_value_tracks_true: Any = 0, **kwargs: Any) -> None:
        original(*args, nodes_missing_value_tracks_true=int(nodes_missing_value_tracks_true), **kwargs)

    tree_ensemble.add_node = add_node
    try:
        yield
    finally:
        tree_ensemble.add_node = original
