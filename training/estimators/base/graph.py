"""ONNX graphs in the form that is served: input `features` float32 [rows, d], output `scores` float32.

The output is [rows] for the targets `binary` and `number`, and [rows, classes] for the target `classes`.

The bytes depend on the model only. Names are fixed, and there is no time and no producer version in them.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper

from training.contract.artifact import ONNX_INPUT, ONNX_OUTPUT
from training.contract.errors import ConfigError

#: The oldest versions that have all operators used here. ONNX Runtime 1.31 also reads newer ones.
OPSET, ML_OPSET, IR_VERSION = 17, 3, 8
#: The newest that onnxmltools 1.16 converts to. The operators that it uses are the same in OPSET.
ONNXMLTOOLS_OPSET = 15


def serialise(
    nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], columns: int, classes: int | None = None
) -> bytes:
    """A checked model of these nodes. The output of the last node must be `scores`.

    `columns`: of the features. `classes`: of the output, for the target `classes`; else None.
    """
    rows = "rows"
    shape: list[str | int | None] = [rows] if classes is None else [rows, classes]
    graph = helper.make_graph(
        nodes,
        "perennial",
        [helper.make_tensor_value_info(ONNX_INPUT, TensorProto.FLOAT, [rows, columns])],
        [helper.make_tensor_value_info(ONNX_OUTPUT, TensorProto.FLOAT, shape)],
        initializer=constants,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="perennial")
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def not_exported(model: str, error: Exception) -> ConfigError:
    """The error for a `model` that a converter cannot convert. Converters name the operator or type in theirs."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return ConfigError(
        f"{model} cannot be exported to ONNX: {reason}",
        hint="Replace that part by one that the converter knows, or leave this estimator out.",
    )


def threshold_as_float32(threshold: float) -> float:
    """The largest float32 that is not above `threshold` (float64, not NaN).

    For every float32 x, `x <= threshold` and `x <= threshold_as_float32(threshold)` are equal. Trees are fitted with
    float64 thresholds, halfway between two values of a feature, but an ONNX tree has float32 thresholds. Rounding to
    the nearest float32 would move a threshold between two adjacent float32 values to the upper one in half of the
    cases. Rows with that value would then take the other branch.
    """
    with np.errstate(over="ignore"):  # Above the range it becomes infinite; nextafter then gives the largest float32.
        nearest = np.float32(threshold)
    # Compare in double precision, because NumPy would round the Python float to float32 first.
    return float(np.nextafter(nearest, np.float32(-np.inf)) if float(nearest) > threshold else nearest)
