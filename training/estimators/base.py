"""The protocol of every estimator: a module named after it, with `DEFAULTS`, `DISTRIBUTED` and `fit`.

Rows come in time order, features are finite float32 [n, d], labels 0 and 1 [n]. What is fitted gives its scores in its
own way and as an ONNX graph (contract/artifact.py); the train step proves that both agree.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from training.contract.errors import ConfigError, DataContractError
from training.contract.model_spec import EstimatorName


class Fitted(Protocol):
    """A fitted model. `device` is where it was fitted: cpu or cuda."""

    device: str

    def scores(self, features: np.ndarray) -> np.ndarray:
        """The native model's probabilities of the positive class, [n], for features [n, d]."""
        ...

    def onnx(self) -> bytes:
        """The model as serialised ONNX; the same model gives the same bytes."""
        ...


class Checkpoint(Protocol):
    """Where a fit keeps its place, so that the next try of the same fit goes on from there."""

    def load(self) -> bytes | None:
        """What was saved last; None when nothing was."""
        ...

    def save(self, content: bytes) -> None:
        """Replace what was saved before, whole or not at all."""
        ...


class NoCheckpoint:
    """Keeps nothing."""

    def load(self) -> None:
        return None

    def save(self, content: bytes) -> None:
        pass


NO_CHECKPOINT = NoCheckpoint()


class Estimator(Protocol):
    """What a module of this package offers."""

    DEFAULTS: Mapping[str, Any]
    #: Whether several processes, joined by torch.distributed, may fit one model together.
    DISTRIBUTED: bool

    def fit(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        parameters: Mapping[str, Any],
        seed: int,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> Fitted:
        """Fit with all of `parameters` (the defaults' keys). The same arguments give the same model on one machine,
        whether or not the fit was resumed from `checkpoint`. One that takes seconds may leave the checkpoint alone.
        """
        ...


def load(name: EstimatorName) -> Estimator:
    """The estimator called `name`, its library imported only now."""
    return import_module(f"training.estimators.{name}")  # type: ignore[return-value]


def parameters_for(name: EstimatorName, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults` with what was `given` in their place. Raises ConfigError for a parameter that does not exist."""
    if unknown := sorted(set(given) - set(defaults)):
        problem = f"{name} has no parameter {', '.join(unknown)}"
        raise ConfigError(problem, hint=f"Its parameters: {', '.join(sorted(defaults))}.")
    return {**defaults, **given}


def check_training_data(features: np.ndarray, labels: np.ndarray, names: list[str]) -> None:
    """Raises DataContractError unless there are rows, their features are finite, one feature at least varies, and both
    labels occur. `names` are the columns'.
    """
    if not len(labels):
        raise DataContractError("There are no training rows", hint="Train on a longer window.")
    check_finite(features, names)
    found = np.unique(labels)
    if not np.array_equal(found, [0, 1]):
        values = ", ".join(f"{value:g}" for value in found[:5]) + (", …" if len(found) > 5 else "")
        problem = f"Labels must be 0 and 1 and both must occur; the {len(labels)} training rows have {values}"
        raise DataContractError(problem, hint="Train on a longer window, or mend the label column.")
    if (features == features[0]).all():
        problem = f"No feature varies over the {len(labels)} training rows: {', '.join(names)}"
        raise DataContractError(problem, hint="Look at how the features are made: all of them may be defaults.")


def check_finite(features: np.ndarray, names: list[str]) -> None:
    """Raises DataContractError that names the columns which are not finite. No estimator guesses at missing values:
    every feature has a defined default.
    """
    bad = ~np.isfinite(features)
    if bad.any():
        columns = ", ".join(
            f"{name} ({count} rows)" for name, count in zip(names, bad.sum(axis=0), strict=True) if count
        )
        raise DataContractError(f"Features are not finite: {columns}", hint="Give these features a default value.")
