"""A multilayer perceptron (torch), on the GPU in bfloat16 mixed precision when there is one.

It standardises its inputs itself, so what is exported takes the features as they come. The last part of the rows, which
are in time order, decides when to stop: a random part would share its cards with the rows trained on.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import helper, numpy_helper
from torch import nn

from training.contract.artifact import ONNX_INPUT, ONNX_OUTPUT
from training.estimators.graph import serialise

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
#: Rows scored at once, so that a long holdout does not fill the device.
_SCORING_ROWS = 65_536


@dataclass(frozen=True)
class MlpFitted:
    """`network` takes raw features [n, d] and gives logits [n]; it lies on the CPU."""

    network: nn.Sequential
    device: str

    @torch.inference_mode()
    def scores(self, features: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(features).split(_SCORING_ROWS)
        return torch.cat([torch.sigmoid(self.network(part)).squeeze(1) for part in parts]).numpy()

    def onnx(self) -> bytes:
        """Built node by node: torch's own exporter needs a further package, for a graph of a few Gemms."""
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
        factor = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        mean = features.mean(axis=0, dtype=np.float64)
        self.register_buffer("mean", torch.from_numpy(mean.astype(np.float32)))
        self.register_buffer("factor", torch.from_numpy(factor.astype(np.float32)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) * self.factor


def fit(features: np.ndarray, labels: np.ndarray, parameters: Mapping[str, Any], seed: int) -> MlpFitted:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Seeded without touching the caller's generators.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        split = len(features) - int(len(features) * parameters["validation_share"])
        network = _network(features[:split], parameters).to(device)
        x, y = (torch.from_numpy(np.asarray(part, dtype=np.float32)).to(device) for part in (features, labels))
        _train(network, (x[:split], y[:split]), (x[split:], y[split:]), parameters, device)
    return MlpFitted(network.cpu().eval(), device)


def _network(features: np.ndarray, parameters: Mapping[str, Any]) -> nn.Sequential:
    layers: list[nn.Module] = [Standardise(features)]
    width = features.shape[1]
    for hidden in parameters["hidden"]:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(parameters["dropout"])]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, 1))


Rows = tuple[torch.Tensor, torch.Tensor]


def _train(network: nn.Sequential, train: Rows, validation: Rows, parameters: Mapping[str, Any], device: str) -> None:
    """Leaves the weights of the epoch with the least validation loss in `network`."""
    x, y = train
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=parameters["learning_rate"], weight_decay=parameters["weight_decay"]
    )
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(parameters["positive_weight"], device=device))
    best, best_state, waited = float("inf"), copy.deepcopy(network.state_dict()), 0
    for _ in range(parameters["max_epochs"]):
        network.train()
        for rows in torch.randperm(len(x)).to(device).split(parameters["batch_size"]):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
                batch_loss = loss(network(x[rows]).squeeze(1), y[rows])
            batch_loss.backward()
            optimizer.step()
        found = _loss(network, validation, loss)
        if found < best:
            best, best_state, waited = found, copy.deepcopy(network.state_dict()), 0
        elif (waited := waited + 1) >= parameters["patience"]:
            break
    network.load_state_dict(best_state)


@torch.inference_mode()
def _loss(network: nn.Sequential, rows: Rows, loss: nn.Module) -> float:
    network.eval()
    return float(loss(network(rows[0]).squeeze(1), rows[1]))


def _constant(name: str, tensor: torch.Tensor):  # type: ignore[no-untyped-def]
    return numpy_helper.from_array(tensor.detach().cpu().numpy(), name)
