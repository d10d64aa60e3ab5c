"""The network of the multilayer perceptron, and its ONNX nodes.

The nodes are built one by one, because torch's exporter needs another package and the graph has only a few nodes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from training.estimators.base.network import Standardise
from training.estimators.base.preparation import Preparation


class Inputs(nn.Module):
    """From prepared rows [n, plain + J] to the first layer's inputs [n, plain + J · embedding width].

    The numbers and indicators are standardised. The codes of the J category columns are replaced by their embeddings.
    An embedding begins as zeros and stays so for a code that no training row has.
    """

    def __init__(self, preparation: Preparation, prepared: np.ndarray, width: int) -> None:
        super().__init__()
        self.plain, self.categories = preparation.plain, len(preparation.categories)
        self.standardise = Standardise(prepared[:, : self.plain])
        self.embeddings = nn.Parameter(torch.zeros(preparation.codes, width)) if self.categories else None
        #: The number of inputs of the first layer.
        self.width = self.plain + self.categories * width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plain = self.standardise(x[:, : self.plain])
        if self.embeddings is None:
            return plain
        embedded = nn.functional.embedding(x[:, self.plain :].long(), self.embeddings)
        return torch.cat([plain, embedded.flatten(1)], 1)


def network_of(
    preparation: Preparation, prepared: np.ndarray, outputs: int, parameters: Mapping[str, Any]
) -> nn.Sequential:
    """The untrained network for the prepared training rows [n, width], with `outputs` outputs per row."""
    inputs = Inputs(preparation, prepared, parameters["embedding_width"])
    layers: list[nn.Module] = [inputs]
    width = inputs.width
    for hidden in parameters["hidden"]:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(parameters["dropout"])]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def graph_of(network: nn.Sequential, name: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], str]:
    """Nodes from the prepared matrix `name` to the network's outputs [n, m], their constants, and the outputs' name."""
    inputs = network[0]
    assert isinstance(inputs, Inputs)
    nodes, constants = _input_nodes(inputs, name)
    value = "x0"
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    for i, layer in enumerate(linear, start=1):
        constants += [constant(f"w{i}", layer.weight), constant(f"b{i}", layer.bias)]
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [f"h{i}"], transB=1))
        if i < len(linear):
            nodes.append(helper.make_node("Relu", [f"h{i}"], [f"x{i}"]))
        value = f"x{i}"
    return nodes, constants, f"h{len(linear)}"


def _input_nodes(inputs: Inputs, name: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    constants = [constant("mean", inputs.standardise.mean), constant("factor", inputs.standardise.factor)]
    standardise = [
        helper.make_node("Sub", ["plain", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "factor"], ["standardised"]),
    ]
    if inputs.embeddings is None:
        standardise[0].input[0], standardise[1].output[0] = name, "x0"
        return standardise, constants
    constants += [
        constant("embeddings", inputs.embeddings),
        numpy_helper.from_array(np.array([inputs.plain, inputs.categories], np.int64), "parts"),
        numpy_helper.from_array(np.array([0, inputs.width - inputs.plain], np.int64), "flat"),
    ]
    nodes = [
        helper.make_node("Split", [name, "parts"], ["plain", "codes"], axis=1),
        *standardise,
        helper.make_node("Cast", ["codes"], ["places"], to=TensorProto.INT64),
        helper.make_node("Gather", ["embeddings", "places"], ["embedded"]),
        helper.make_node("Reshape", ["embedded", "flat"], ["flattened"]),
        helper.make_node("Concat", ["standardised", "flattened"], ["x0"], axis=1),
    ]
    return nodes, constants


def constant(name: str, tensor: torch.Tensor) -> onnx.TensorProto:
    return numpy_helper.from_array(tensor.detach().cpu().numpy(), name)
