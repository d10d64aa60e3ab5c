"""Torch networks behind the protocol: how they are fitted, what they compute, how they are exported.

A network takes prepared rows [n, width] (preparation.py) and gives [n, m]: a logit for the target `binary`, one per
class for `classes`, and (y − mean) / deviation of the training labels for `number`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from training.contract.artifact import ONNX_OUTPUT
from training.contract.names import Target
from training.estimators.base.checkpoint import Checkpoint
from training.estimators.base.data import TrainingData
from training.estimators.base.graph import serialise
from training.estimators.base.group import Group
from training.estimators.base.network_training import Loss, Training
from training.estimators.base.preparation import Preparation

#: Rows scored at once, to limit memory.
_SCORING_ROWS = 65_536
#: Makes the untrained network of prepared training rows [n, width], with a number of outputs.
Make = Callable[[Preparation, np.ndarray, int], nn.Module]
#: Makes the nodes of a network from the prepared matrix with a name, their constants, and the name of the outputs.
Graph = Callable[[Any, str], tuple[list[onnx.NodeProto], list[onnx.TensorProto], str]]


class Standardise(nn.Module):
    """(x − mean) · factor with the training rows' mean and 1 / standard deviation [d]; a constant column gives 0."""

    mean: torch.Tensor
    factor: torch.Tensor

    def __init__(self, columns: np.ndarray) -> None:
        super().__init__()
        deviation = columns.std(axis=0, dtype=np.float64)
        # The deviation of a constant column is a rounding error, which must not become a huge factor. A deviation below
        # the normal numbers of float32 would become an infinite factor.
        varies = (columns.max(axis=0) > columns.min(axis=0)) & (deviation > np.finfo(np.float32).tiny)
        factor = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        mean = columns.mean(axis=0, dtype=np.float64)
        self.register_buffer("mean", torch.from_numpy(mean.astype(np.float32)))
        self.register_buffer("factor", torch.from_numpy(factor.astype(np.float32)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) * self.factor


@dataclass(frozen=True)
class NetworkFitted:
    """A trained network on the CPU. `columns`: of the features. `classes`: of the target `classes`, else None."""

    network: nn.Module
    graph: Graph
    preparation: Preparation
    columns: int
    target: Target
    classes: int | None
    mean: float
    deviation: float
    device: str

    @torch.inference_mode()
    def outputs(self, features: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(self.preparation.apply(features)).split(_SCORING_ROWS)
        found = torch.cat([self.network(part) for part in parts])
        if self.target == "classes":
            return torch.softmax(found, 1).numpy()
        found = found.squeeze(1)
        return (torch.sigmoid(found) if self.target == "binary" else found * self.deviation + self.mean).numpy()

    def onnx(self) -> bytes:
        nodes, constants = self.preparation.graph()
        layers, weights, found = self.graph(self.network, self.preparation.output)
        nodes, constants = [*nodes, *layers], [*constants, *weights]
        if self.target == "classes":
            nodes.append(helper.make_node("Softmax", [found], [ONNX_OUTPUT], axis=1))
            return serialise(nodes, constants, self.columns, self.classes)
        constants.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "column_axis"))
        nodes.append(helper.make_node("Squeeze", [found, "column_axis"], ["logits"]))
        if self.target == "binary":
            nodes.append(helper.make_node("Sigmoid", ["logits"], [ONNX_OUTPUT]))
        else:
            for name, value in (("label_mean", self.mean), ("label_deviation", self.deviation)):
                constants.append(numpy_helper.from_array(np.array(value, np.float32), name))
            nodes.append(helper.make_node("Mul", ["logits", "label_deviation"], ["scaled"]))
            nodes.append(helper.make_node("Add", ["scaled", "label_mean"], [ONNX_OUTPUT]))
        return serialise(nodes, constants, self.columns)


def fit_network(
    make: Make,
    graph: Graph,
    data: TrainingData,
    parameters: Mapping[str, Any],
    seed: int,
    checkpoint: Checkpoint,
    *,
    one_hot: bool,
) -> NetworkFitted:
    """Fit the network that `make` makes. `parameters`: those of TRAINING, and `positive_weight` for `binary`.

    The last part of the rows decides when to stop. Saves a checkpoint after every epoch. In a group of processes, each
    process gets all rows and fits the same network (network_training.py).
    """
    group = Group.here()
    # At least one row: early stopping needs a validation loss.
    split = len(data.labels) - max(1, int(len(data.labels) * parameters["validation_share"]))
    preparation = Preparation.of(data.first(split), one_hot=one_hot)
    prepared = preparation.apply(data.features)
    mean, deviation, labels = 0.0, 1.0, data.labels
    if data.target == "number":
        mean, deviation = float(labels[:split].mean()), float(labels[:split].std()) or 1.0
        labels = (labels - mean) / deviation
    classes = data.classes if data.target == "classes" else None
    # The random generators of the caller are restored afterwards.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = make(preparation, prepared[:split], classes or 1).to(group.device)
        x = torch.from_numpy(np.asarray(prepared, np.float32)).to(group.device)
        y = torch.from_numpy(labels.astype(np.int64 if classes else np.float32)).to(group.device)
        training = Training(network, _loss(data.target, parameters, group), parameters, seed, group, checkpoint)
        training.run((x[:split], y[:split]), (x[split:], y[split:]))
    network, columns = network.cpu().eval(), data.features.shape[1]
    return NetworkFitted(network, graph, preparation, columns, data.target, classes, mean, deviation, group.device)


def _loss(target: Target, parameters: Mapping[str, Any], group: Group) -> Loss:
    """The sum over a batch of cross-entropies, or for a number of squared errors."""
    if target == "classes":
        return nn.CrossEntropyLoss(reduction="sum")
    if target == "number":
        squared = nn.MSELoss(reduction="sum")
        return lambda found, y: squared(found.squeeze(1), y)
    weight = torch.tensor(parameters["positive_weight"], device=group.device)
    entropy = nn.BCEWithLogitsLoss(pos_weight=weight, reduction="sum")
    return lambda found, y: entropy(found.squeeze(1), y)
