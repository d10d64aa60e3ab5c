"""A multilayer perceptron (torch), on the GPU in bfloat16 mixed precision when there is one.

It standardises its inputs itself and has an embedding of each category, so the exported model takes raw features. The
rows are in time order, and the last part of them decides when to stop. A random part would have entities in common with
the training rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import helper, numpy_helper
from torch import nn

from training.contract.artifact import ONNX_OUTPUT
from training.contract.names import Target
from training.contract.registries import ESTIMATORS
from training.estimators._mlp_network import graph_of, network_of
from training.estimators._mlp_training import Loss, Training
from training.estimators.base import NO_CHECKPOINT, Checkpoint, TrainingData
from training.estimators.base.graph import serialise
from training.estimators.base.group import Group
from training.estimators.base.preparation import Preparation

#: Rows scored at once, to limit memory.
_SCORING_ROWS = 65_536
_DEFAULTS = {
    "hidden": [128, 64],
    "embedding_width": 8,
    "dropout": 0.2,
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "batch_size": 512,
    "max_epochs": 30,
    "patience": 4,
    "validation_share": 0.15,
}


@dataclass(frozen=True)
class MlpFitted:
    """`network` takes prepared rows [n, width] and gives [n, m]: logits, or for a number (y − mean) / deviation.

    It is on the CPU. `columns`: of the features.
    """

    network: nn.Sequential
    preparation: Preparation
    columns: int
    target: Target
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
        layers, weights, found = graph_of(self.network, self.preparation.output)
        nodes, constants = [*nodes, *layers], [*constants, *weights]
        if self.target == "classes":
            nodes.append(helper.make_node("Softmax", [found], [ONNX_OUTPUT], axis=1))
            return serialise(nodes, constants, self.columns, self.network[-1].out_features)
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


@ESTIMATORS.register("mlp")
class Mlp:
    DEFAULTS = {
        "binary": {**_DEFAULTS, "positive_weight": 5.0},
        "classes": _DEFAULTS,
        "number": _DEFAULTS,
    }
    DISTRIBUTED = True
    LIBRARIES = ("onnx", "torch")

    def fit(
        self, data: TrainingData, parameters: Mapping[str, Any], seed: int, checkpoint: Checkpoint = NO_CHECKPOINT
    ) -> MlpFitted:
        """As in the protocol. Saves a checkpoint after every epoch. In a group of processes, each process gets all rows
        and fits the same network (_mlp_training.py).
        """
        group = Group.here()
        # At least one row: early stopping needs a validation loss.
        split = len(data.labels) - max(1, int(len(data.labels) * parameters["validation_share"]))
        preparation = Preparation.of(data.first(split), one_hot=False)
        prepared = preparation.apply(data.features)
        mean, deviation, labels = 0.0, 1.0, data.labels
        if data.target == "number":
            mean, deviation = float(labels[:split].mean()), float(labels[:split].std()) or 1.0
            labels = (labels - mean) / deviation
        # The random generators of the caller are restored afterwards.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            outputs = data.classes if data.target == "classes" else 1
            network = network_of(preparation, prepared[:split], outputs, parameters).to(group.device)
            x = torch.from_numpy(np.asarray(prepared, np.float32)).to(group.device)
            y = torch.from_numpy(labels.astype(np.int64 if data.target == "classes" else np.float32)).to(group.device)
            training = Training(network, _loss(data.target, parameters, group), parameters, seed, group, checkpoint)
            training.run((x[:split], y[:split]), (x[split:], y[split:]))
        columns = data.features.shape[1]
        return MlpFitted(network.cpu().eval(), preparation, columns, data.target, mean, deviation, group.device)


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
