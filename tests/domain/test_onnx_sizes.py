"""The memory of a graph's constants is known from the file alone, however the file says it."""

from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from testing.onnx_attacks import GIANT, endless_loop, giant_fill, giant_initializer, model
from training.domain.onnx_sizes import oversized_constants

MIB = 2**20


def shape(*sizes: int, name: str = "shape") -> TensorProto:
    return numpy_helper.from_array(np.array(sizes, np.int64), name)


def in_a_field(*sizes: int) -> TensorProto:
    """The same in int64_data."""
    return helper.make_tensor("shape", TensorProto.INT64, [len(sizes)], sizes)


def of_constant(**value: Any) -> NodeProto:
    return helper.make_node("Constant", [], ["shape"], **value)


FILL = helper.make_node("ConstantOfShape", ["shape"], ["extra"])
ONE = numpy_helper.from_array(np.ones(1, np.float32), "one")
SCALARS = [
    numpy_helper.from_array(np.array(each, np.float32), name) for name, each in (("a", 0), ("b", 1e10), ("c", 1))
]
DOUBLES = helper.make_tensor("zeros", TensorProto.DOUBLE, [1], [0.0])


def in_a_subgraph(node: NodeProto) -> NodeProto:
    output = [helper.make_tensor_value_info("extra", TensorProto.FLOAT, None)]
    branches = [helper.make_graph(nodes, "branch", [], output) for nodes in ([node], [])]
    return helper.make_node("If", ["yes"], ["chosen"], then_branch=branches[0], else_branch=branches[1])


@pytest.mark.parametrize(
    ("nodes", "constants", "said"),
    [
        ([FILL], [shape(GIANT)], "22,888 MiB, and the largest is extra, which ConstantOfShape makes"),
        ([FILL], [in_a_field(100_000, 60_000)], "22,888 MiB"),
        ([of_constant(value=shape(GIANT)), FILL], [], "22,888 MiB"),
        ([of_constant(value_ints=[GIANT]), FILL], [], "22,888 MiB"),
        ([helper.make_node("ConstantOfShape", ["shape"], ["x"], value=DOUBLES)], [shape(GIANT)], "45,776 MiB"),
        ([helper.make_node("Expand", ["one", "shape"], ["extra"])], [ONE, shape(GIANT)], "which Expand makes"),
        ([helper.make_node("Tile", ["one", "shape"], ["extra"])], [ONE, shape(GIANT)], "which Tile makes"),
        ([helper.make_node("Range", ["a", "b", "c"], ["extra"])], SCALARS, "which Range makes"),
        ([helper.make_node("RandomNormal", [], ["extra"], shape=[GIANT])], [], "which RandomNormal makes"),
        ([in_a_subgraph(FILL)], [shape(GIANT)], "which ConstantOfShape makes"),
        ([helper.make_node("ConstantOfShape", ["shape"], [f"x{i}"]) for i in range(9)], [shape(64 * MIB)], "2,304 MiB"),
    ],
)
def test_constants_that_are_too_large_are_named(
    nodes: list[NodeProto], constants: list[TensorProto], said: str
) -> None:
    assert said in (oversized_constants(model(nodes, constants, 2), 1024 * MIB) or "")


def test_declared_initializers_count() -> None:
    assert "the initializer declared" in (oversized_constants(giant_initializer(2), 1024 * MIB) or "")
    sparse = helper.make_sparse_tensor(ONE, shape(0, name="places"), [GIANT])
    proto = helper.make_graph([], "sparse", [], [], sparse_initializer=[sparse])
    assert "sparse initializer one" in (oversized_constants(helper.make_model(proto).SerializeToString(), MIB) or "")


def test_functions_count() -> None:
    proto = helper.make_model(helper.make_graph([], "empty", [], []))
    nodes = [of_constant(value_ints=[GIANT]), FILL]
    opsets = [helper.make_opsetid("", 17)]
    proto.functions.append(helper.make_function("ours", "fill", [], ["extra"], nodes, opsets))
    assert "which ConstantOfShape makes" in (oversized_constants(proto.SerializeToString(), MIB) or "")


def test_a_message_in_two_halves_is_one() -> None:
    """Readers of protobuf add the sizes of the second half to those of the first."""
    halves = [TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[100_000]).SerializeToString() for _ in range(2)]
    attribute = field(1, b"value") + b"".join(field(5, half) for half in halves)
    node = field(2, b"extra") + field(4, b"Constant") + field(5, attribute)
    content = field(7, field(1, node))
    assert "38,147 MiB" in (oversized_constants(content, MIB) or "")


def test_what_fits_is_allowed() -> None:
    assert oversized_constants(giant_fill(2), 4 * GIANT + MIB) is None
    assert oversized_constants(endless_loop(2), MIB) is None
    unknown = [helper.make_node("Shape", ["features"], ["shape"]), FILL]
    assert oversized_constants(model(unknown, [], 2), MIB) is None


def test_a_damaged_file_is_said_to_be_damaged() -> None:
    content = giant_fill(2)
    for damaged in (content[:-3], b"\xff" * 20, b"\x0b" + content, b"\x3a\xff\xff\xff\xff\x0f"):
        with pytest.raises(ValueError, match="damaged"):
            oversized_constants(damaged, MIB)


def test_subgraphs_that_contain_each_other_without_end_are_refused() -> None:
    node = b""
    for _ in range(40):
        graph = field(1, node)
        node = field(4, b"If") + field(5, field(1, b"then_branch") + field(6, graph))
    with pytest.raises(ValueError, match="subgraphs"):
        oversized_constants(field(7, field(1, node)), MIB)


def field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content
