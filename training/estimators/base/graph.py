"""ONNX graphs in the one form that is served: `features` float32 [rows, d] in, `scores` float32 [rows] out.

The bytes depend on the model alone: names are fixed, nothing tells time or producer version.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper

from training.contract.artifact import ONNX_INPUT, ONNX_OUTPUT

#: ONNX Runtime 1.31 reads more; these are the oldest that hold every operator used here.
OPSET, ML_OPSET, IR_VERSION = 17, 3, 8


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
