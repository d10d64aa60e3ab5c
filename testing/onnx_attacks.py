"""ONNX files that harm whoever loads them: each is a model of `columns` features that takes too much memory, or no
end."""

import json
from pathlib import Path

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from training.adapters.onnx_model import digest
from training.contract.artifact import METADATA_FILE, ONNX_FILE, ONNX_INPUT, ONNX_OUTPUT

#: float32 numbers of 24 GB.
GIANT = 6_000_000_000
AXIS = numpy_helper.from_array(np.array([1], np.int64), "axis")


def model(nodes: list[NodeProto], constants: list[TensorProto], columns: int) -> bytes:
    """The score of a row is the sum of its features and of `extra`, which `nodes` make. Nothing checks the model."""
    nodes = [
        *nodes,
        helper.make_node("ReduceSum", [ONNX_INPUT, "axis"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "extra"], [ONNX_OUTPUT]),
    ]
    graph = helper.make_graph(
        nodes,
        "attack",
        [helper.make_tensor_value_info(ONNX_INPUT, TensorProto.FLOAT, ["rows", columns])],
        [helper.make_tensor_value_info(ONNX_OUTPUT, TensorProto.FLOAT, ["rows"])],
        [AXIS, *constants],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content: bytes = proto.SerializeToString()
    return content


def giant_fill(columns: int) -> bytes:
    """A few hundred bytes that ask for 24 GB: ConstantOfShape, when the session is made."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["filled"]),
        helper.make_node("ReduceMax", ["filled"], ["extra"], keepdims=0),
    ]
    return model(nodes, [numpy_helper.from_array(np.array([GIANT], np.int64), "shape")], columns)


def hidden_fill(columns: int) -> bytes:
    """As `giant_fill`, but the graph computes the shape: nobody sees it in the file."""
    nodes = [
        helper.make_node("Mul", ["part", "part"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["filled"]),
        helper.make_node("ReduceMax", ["filled"], ["extra"], keepdims=0),
    ]
    return model(nodes, [numpy_helper.from_array(np.array([round(GIANT**0.5)], np.int64), "part")], columns)


def giant_initializer(columns: int) -> bytes:
    """An initializer that declares 24 GB, with no data."""
    declared = TensorProto(name="declared", data_type=TensorProto.FLOAT, dims=[GIANT])
    return model([helper.make_node("ReduceMax", ["declared"], ["extra"], keepdims=0)], [declared], columns)


def endless_loop(columns: int) -> bytes:
    """A Loop whose condition stays true."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["before"], ["after"])],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, []),
        ],
    )
    constants = [
        numpy_helper.from_array(np.array(True), "true"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
    ]
    return model([helper.make_node("Loop", ["", "true", "zero"], ["extra"], body=body)], constants, columns)


def replace_model(artifact: Path, content: bytes) -> Path:
    """Make `content` the model of the artifact in the folder `artifact`. Returns the folder."""
    (artifact / ONNX_FILE).write_bytes(content)
    metadata = json.loads((artifact / METADATA_FILE).read_text())
    (artifact / METADATA_FILE).write_text(json.dumps(metadata | {"digest": digest(content)}))
    return artifact
