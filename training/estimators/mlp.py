"""A multilayer perceptron (torch), on the GPU in bfloat16 mixed precision when there is one.

It standardises its inputs itself and has an embedding of each category, so the exported model takes raw features. The
rows are in time order, and the last part of them decides when to stop. A random part would have entities in common with
the training rows.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from training.contract.registries import ESTIMATORS
from training.estimators.base import NO_CHECKPOINT, Checkpoint, Fitted, TrainingData
from training.estimators.base.network_defaults import POSITIVE_WEIGHT, TRAINING

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
    ) -> Fitted:
        # Imported here, because torch takes two seconds, and a check of a spec only reads the defaults.
        from training.estimators._mlp_network import graph_of, network_of
        from training.estimators.base.network import fit_network

        make = partial(network_of, parameters=parameters)
        return fit_network(make, graph_of, data, parameters, seed, checkpoint, one_hot=False)
