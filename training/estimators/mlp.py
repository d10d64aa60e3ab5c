"""A multilayer perceptron (torch), on the GPU in bfloat16 mixed precision when there is one.

It standardises its inputs itself, so the exported model takes raw features. The rows are in time order, and the last
part of them decides when to stop. A random part would have entities in common with the training rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import helper, numpy_helper
from torch import nn

from training.contract.artifact import ONNX_INPUT, ONNX_OUTPUT
from training.contract.registries import ESTIMATORS
from training.estimators._mlp_training import Training
from training.estimators.base import NO_CHECKPOINT, Checkpoint
from training.estimators.base.graph import serialise
from training.estimators.base.group import Group

#: Rows scored at once, to limit memory.
_SCORING_ROWS = 65_536


@dataclass(frozen=True)
class MlpFitted:
    """`network` takes raw features [n, d] and gives logits [n]. It is on the CPU."""

    network: nn.Sequential
    device: str

    @torch.inference_mode()
    def scores(self, features: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(features).split(_SCORING_ROWS)
        return torch.cat([torch.sigmoid(self.network(part)).squeeze(1) for part in parts]).numpy()

    def onnx(self) -> bytes:
        """Built node by node, because torch's exporter needs another package and the graph has only a few nodes."""
        scale = self.network[0]
        assert isinstance(scale, Standardise)
        constants = [_constant("mean", scale.mean), _constant("factor", scale.factor)]
        nodes = [
            helper.make_node("Sub", [ONNX_INPUT, "mean"], ["centred"]),
            helper.make_node("Mul", ["centred", "factor"], ["x0"]),
        ]
        value = "x0"
        linear = [layer for layer in self.network if isinstance(layer, nn.Linear)]
        for i, layer in enumerate(linear, start=1):
            constants += [_constant(f"w{i}", layer.weight), _constant(f"b{i}", layer.bias)]
            nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [f"h{i}"], transB=1))
            if i < len(linear):
                nodes.append(helper.make_node("Relu", [f"h{i}"], [f"x{i}"]))
            value = f"x{i}"
        constants.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "column_axis"))
        nodes.append(helper.make_node("Squeeze", [f"h{len(linear)}", "column_axis"], ["logits"]))
        nodes.append(helper.make_node("Sigmoid", ["logits"], [ONNX_OUTPUT]))
        return serialise(nodes, constants, len(scale.mean))


class Standardise(nn.Module):
    """(x − mean) · factor with the training rows' mean and 1 / standard deviation [d]; a constant column gives 0."""

    mean: torch.Tensor
    factor: torch.Tensor

    def __init__(self, features: np.ndarray) -> None:
        super().__init__()
        deviation = features.std(axis=0, dtype=np.float64)
        # The deviation of a constant column is a rounding error, which must not become a huge factor. A deviation below
        # the normal numbers of float32 would become an infinite factor.
        varies = (features.max(axis=0) > features.min(axis=0)) & (deviation > np.finfo(np.float32).tiny)
        factor = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        mean = features.mean(axis=0, dtype=np.float64)
        self.register_buffer("mean", torch.from_numpy(mean.astype(np.float32)))
        self.register_buffer("factor", torch.from_numpy(factor.astype(np.float32)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) * self.factor


@ESTIMATORS.register("mlp")
class Mlp:
    DEFAULTS: Mapping[str, Any] = {
        "hidden": [128, 64],
        "dropout": 0.2,
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "batch_size": 512,
        "max_epochs": 30,
        "patience": 4,
        "validation_share": 0.15,
        "positive_weight": 5.0,
    }
    DISTRIBUTED = True
    LIBRARIES = ("onnx", "torch")

    def fit(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        parameters: Mapping[str, Any],
        seed: int,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> MlpFitted:
        """As in the protocol. Saves a checkpoint after every epoch. In a group of processes, each process gets all rows
        and fits the same network (_mlp_training.py).
        """
        group = Group.here()
        # The random generators of the caller are restored afterwards.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            # At least one row: early stopping needs a validation loss.
            split = len(features) - max(1, int(len(features) * parameters["validation_share"]))
            network = _network(features[:split], parameters).to(group.device)
            x, y = (
                torch.from_numpy(np.asarray(part, dtype=np.float32)).to(group.device) for part in (features, labels)
            )
            Training(network, parameters, seed, group, checkpoint).run((x[:split], y[:split]), (x[split:], y[split:]))
        return MlpFitted(network.cpu().eval(), group.device)


def _network(features: np.ndarray, parameters: Mapping[str, Any]) -> nn.Sequential:
    layers: list[nn.Module] = [Standardise(features)]
    width = features.shape[1]
    for hidden in parameters["hidden"]:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(parameters["dropout"])]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, 1))


def _constant(name: str, tensor: torch.Tensor):  # type: ignore[no-untyped-def]
    return numpy_helper.from_array(tensor.detach().cpu().numpy(), name)
