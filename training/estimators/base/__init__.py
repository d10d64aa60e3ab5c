"""The protocol of estimators, and how to load one by its name.

Rows are in time order, features are finite float32 [n, d], labels are 0 and 1 [n]. A fitted model computes scores
itself and exports an ONNX graph (contract/artifact.py). The train step checks that both compute the same scores.
"""

import inspect
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from training.contract.errors import ConfigError, DataContractError
from training.contract.names import EstimatorName
from training.contract.registries import ESTIMATORS


class Fitted(Protocol):
    """A fitted model. `device` is where it was fitted: cpu or cuda."""

    device: str

    def scores(self, features: np.ndarray) -> np.ndarray:
        """The native model's probabilities of the positive class, [n], for features [n, d]."""
        ...

    def onnx(self) -> bytes:
        """The model as serialised ONNX. The same model gives the same bytes."""
        ...


class Checkpoint(Protocol):
    """Where a fit saves its progress, so that a retry of the same fit continues from there."""

    def load(self) -> bytes | None:
        """The content that was saved last; None when there is none."""
        ...

    def save(self, content: bytes) -> None:
        """Replace the saved content atomically."""
        ...


class NoCheckpoint:
    """Saves nothing."""

    def load(self) -> None:
        return None

    def save(self, content: bytes) -> None:
        pass


NO_CHECKPOINT = NoCheckpoint()


class Estimator(Protocol):
    """The protocol of what a member of ESTIMATORS returns."""

    #: Parameter → its default. A spec may only set these parameters.
    DEFAULTS: Mapping[str, Any]
    #: Whether several processes can fit one model together with torch.distributed.
    DISTRIBUTED: bool
    #: The Python distributions that fit and export. Another version of one of them requires a new fit.
    LIBRARIES: tuple[str, ...]

    def fit(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        parameters: Mapping[str, Any],
        seed: int,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> Fitted:
        """Fit with `parameters`, which has all keys of DEFAULTS.

        On one machine the same arguments give the same model, also when the fit resumes from `checkpoint`. A fit that
        takes seconds may ignore the checkpoint.
        """
        ...


def load(name: EstimatorName) -> Estimator:
    """The estimator `name`: a member of the registry, or what `package.module:factory` returns.

    Imports its library. Raises ConfigError when there is no such estimator, when it cannot be imported, or when it
    lacks a part of the protocol.
    """
    factory = _imported(name) if ":" in name else ESTIMATORS.find(name)
    estimator = factory()
    if missing := [part for part in _PARTS if not hasattr(estimator, part)]:
        problem = f"The estimator {name!r} is a {type(estimator).__name__} without {', '.join(missing)}"
        raise ConfigError(problem, hint="See the protocol Estimator in training/estimators/base/__init__.py.")
    return estimator


_PARTS = ("DEFAULTS", "DISTRIBUTED", "LIBRARIES", "fit")


def _imported(path: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        problem = f"The estimator {path!r} cannot be imported: {error}"
        raise ConfigError(
            problem, hint="Install its package where steps run, or correct training.estimators."
        ) from error


def outside_source(name: EstimatorName) -> Path | None:
    """The file of an estimator from another package; None for an estimator of this package.

    Loads an estimator from another package. Raises ConfigError like `load`.
    """
    if (Path(__file__).parents[1] / f"{name}.py").is_file():
        return None
    return Path(inspect.getfile(type(load(name))))


def parameters_for(name: EstimatorName, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults`, overridden by `given`. Raises ConfigError for a parameter that does not exist."""
    if unknown := sorted(set(given) - set(defaults)):
        problem = f"{name} has no parameter {', '.join(unknown)}"
        raise ConfigError(problem, hint=f"Its parameters: {', '.join(sorted(defaults))}.")
    return {**defaults, **given}


def check_training_data(features: np.ndarray, labels: np.ndarray, names: list[str]) -> None:
    """Raises DataContractError for training data that no model can be fitted on.

    There must be rows, finite features, at least one feature that varies, and both labels. `names`: of the features.
    """
    if not len(labels):
        raise DataContractError("There are no training rows", hint="Train on a longer window.")
    check_finite(features, names)
    found = np.unique(labels)
    if not np.array_equal(found, [0, 1]):
        values = ", ".join(f"{value:g}" for value in found[:5]) + (", …" if len(found) > 5 else "")
        problem = f"Labels must be 0 and 1 and both must occur; the {len(labels)} training rows have {values}"
        raise DataContractError(problem, hint="Train on a longer window, or correct the label column.")
    if (features == features[0]).all():
        problem = f"No feature varies over the {len(labels)} training rows: {', '.join(names)}"
        raise DataContractError(problem, hint="Check the features step: all values may be defaults.")


def check_finite(features: np.ndarray, names: list[str]) -> None:
    """Raises DataContractError with the names of the columns that have values that are not finite.

    Estimators do not impute missing values, because every feature has a default.
    """
    bad = ~np.isfinite(features)
    if bad.any():
        columns = ", ".join(
            f"{name} ({count} rows)" for name, count in zip(names, bad.sum(axis=0), strict=True) if count
        )
        raise DataContractError(f"Features are not finite: {columns}", hint="Give these features a default value.")
