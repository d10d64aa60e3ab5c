"""A multilayer perceptron (torch), on the GPU in bfloat16 mixed precision when there is one.

It standardises its inputs itself and has an embedding of each category, so the exported model takes raw features. The
rows are in time order, and the last part of them decides when to stop. A random part would have entities in common with
the training rows.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from training.contract.registries import ESTIMATORS
from training.estimators._mlp_network import graph_of, network_of
from training.estimators.base import NO_CHECKPOINT, Checkpoint, TrainingData
from training.estimators.base.network import POSITIVE_WEIGHT, TRAINING, NetworkFitted, fit_network
from training.estimators.base.preparation import Preparation

_DEFAULTS = {"hidden": [128, 64], "embedding_width": 8, "dropout": 0.2, **TRAINING}


@ESTIMATORS.register("mlp")
class Mlp:
    DEFAULTS = {
        "binary": {**_DEFAULTS, "positive_weight": POSITIVE_WEIGHT},
        "classes": _DEFAULTS,
        "number": _DEFAULTS,
    }
    DISTRIBUTED = True
    LIBRARIES = ("onnx", "torch")

    def fit(
        self, data: TrainingData, parameters: Mapping[str, Any], seed: int, checkpoint: Checkpoint = NO_CHECKPOINT
    ) -> NetworkFitted:
        def make(preparation: Preparation, prepared: np.ndarray, outputs: int) -> nn.Module:
            return network_of(preparation, prepared, outputs, parameters)

        return fit_network(make, graph_of, data, parameters, seed, checkpoint, one_hot=False)
