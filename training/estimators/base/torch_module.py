"""A torch module that a factory makes, behind the protocol."""

import inspect
import io
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from training.contract.names import Target
from training.estimators.base.checkpoint import NO_CHECKPOINT, Checkpoint
from training.estimators.base.data import TrainingData
from training.estimators.base.graph import OPSET, not_exported
from training.estimators.base.network import NetworkFitted, Standardise, fit_network
from training.estimators.base.network_defaults import POSITIVE_WEIGHT, TRAINING
from training.estimators.base.preparation import Preparation

_OUTPUT = "network_outputs"


class TorchEstimator:
    """`factory(inputs, outputs, **parameters)` makes a torch module from [n, inputs] to [n, outputs], untrained.

    The module gets the prepared matrix (preparation.py), standardised. It gives one logit for the target `binary`, one
    per class for `classes`, and one number for `number`, where the labels are standardised. The further parameters of
    `factory` need defaults; a spec may set them, and the parameters of training.
    """

    DISTRIBUTED = True
    LIBRARIES = ("onnx", "torch")

    def __init__(self, factory: Callable[..., nn.Module]) -> None:
        self._factory = factory
        signature = inspect.signature(factory).parameters
        self._own = {name: each.default for name, each in signature.items() if name not in ("inputs", "outputs")}
        shared = {**TRAINING, **self._own}
        self.DEFAULTS: Mapping[Target, Mapping[str, Any]] = {
            "binary": {**shared, "positive_weight": POSITIVE_WEIGHT},
            "classes": shared,
            "number": shared,
        }

    def fit(
        self, data: TrainingData, parameters: Mapping[str, Any], seed: int, checkpoint: Checkpoint = NO_CHECKPOINT
    ) -> NetworkFitted:
        own = {name: parameters[name] for name in self._own}

        def make(preparation: Preparation, prepared: np.ndarray, outputs: int) -> nn.Module:
            module = self._factory(inputs=preparation.width, outputs=outputs, **own)
            return nn.Sequential(Standardise(prepared), module)

        graph = partial(_exported, type(self._factory(inputs=1, outputs=1, **own)).__name__)
        return fit_network(make, graph, data, parameters, seed, checkpoint, one_hot=True)


def _exported(model: str, network: nn.Sequential, name: str) -> tuple[list[Any], list[Any], str]:
    """The network's nodes by torch's exporter. Raises ConfigError that names the operator it cannot export."""
    standardise = network[0]
    assert isinstance(standardise, Standardise)
    file: Any = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(
                network,
                (torch.zeros(2, len(standardise.mean)),),
                file,
                input_names=[name],
                output_names=[_OUTPUT],
                dynamic_axes={name: {0: "rows"}, _OUTPUT: {0: "rows"}},
                opset_version=OPSET,
                dynamo=False,  # The newer exporter needs another package.
                verbose=False,
            )
    except Exception as error:
        raise not_exported(model, error) from error
    graph = onnx.load_from_string(file.getvalue()).graph
    return list(graph.node), list(graph.initializer), _OUTPUT
