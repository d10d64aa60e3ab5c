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

    with _tree_nodes_as_served():
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


def threshold_as_float32(threshold: float) -> float:
    """The largest float32 that is not above `threshold` (float64, not NaN): for every float32 x, `x <= threshold` and
    `x <= threshold_as_float32(threshold)` say the same.

    Trees are fitted with thresholds in float64, halfway between two values of a feature; an ONNX tree has float32.
    Rounded to the nearest, the threshold between two neighbouring float32 values becomes the upper one of them in half
    of the cases, and rows of that value go the other way.
    """
    with np.errstate(over="ignore"):  # beyond float32 it becomes infinite, and the step down is the largest finite one
        nearest = np.float32(threshold)
    # A float32 compared with a Python float would be rounded first: both are compared in double precision.
    return float(np.nextafter(nearest, np.float32(-np.inf)) if float(nearest) > threshold else nearest)


@contextmanager
def _tree_nodes_as_served() -> Iterator[None]:
    """Corrects the nodes of every tree that skl2onnx 1.20 converts, on their way into the graph.

    - Thresholds are rounded down to float32. skl2onnx does so for forests and leaves histogram trees to be rounded to
      the nearest (onnx/sklearn-onnx#1192).
    - It gives NumPy booleans (a histogram tree's `missing_go_to_left`) as integers to onnx 1.23, which refuses them
      ("Expected an int, got a boolean").
    """
    from skl2onnx.common import tree_ensemble

    original = tree_ensemble.add_node

    def add_node(
        pairs: Any, is_classifier: Any, tree: Any, tree_weight: Any, node: Any, feature: Any, mode: str, value: Any,
        *args: Any, nodes_missing_value_tracks_true: Any = 0, **kwargs: Any,
    ) -> None:  # fmt: skip
        if mode == "BRANCH_LEQ":
            value = threshold_as_float32(float(value))
        elif mode != "LEAF":
            raise NotImplementedError(f"A tree node of mode {mode}: its threshold may have to be rounded up")
        flag = int(nodes_missing_value_tracks_true)
        which = (pairs, is_classifier, tree, tree_weight, node, feature, mode, value)
        original(*which, *args, nodes_missing_value_tracks_true=flag, **kwargs)

    tree_ensemble.add_node = add_node
    try:
        yield
    finally:
        tree_ensemble.add_node = original
