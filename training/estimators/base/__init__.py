"""The protocol of estimators, and how to load one by its name.

An estimator gets TrainingData (data.py): an encoded matrix of features, and labels for one target. A fitted model
computes its outputs itself and exports an ONNX graph (contract/artifact.py). The train step checks that both compute
the same outputs.
"""

import inspect
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from training.contract.errors import ConfigError
from training.contract.names import EstimatorName, Target
from training.contract.registries import ESTIMATORS
from training.estimators.base.checkpoint import NO_CHECKPOINT, Checkpoint
from training.estimators.base.data import TrainingData, check_features, number_columns

__all__ = [
    "NO_CHECKPOINT",
    "Checkpoint",
    "Estimator",
    "Fitted",
    "TrainingData",
    "check_features",
    "load",
    "number_columns",
    "outside_sources",
    "parameters_for",
]


class Fitted(Protocol):
    """A fitted model."""

    @property
    def device(self) -> str:
        """Where it was fitted: cpu or cuda."""
        ...

    def outputs(self, features: np.ndarray) -> np.ndarray:
        """What the native model computes from features [n, d].

        For the target `binary` the probabilities of 1, [n]. For `classes` the probabilities of all classes, [n, k]. For
        `number` the numbers, [n].
        """
        ...

    def onnx(self) -> bytes:
        """The model as serialised ONNX. The same model gives the same bytes."""
        ...


class Estimator(Protocol):
    """The protocol of what a member of ESTIMATORS returns."""

    #: Target → parameter → its default. It can learn these targets, and a spec may only set these parameters.
    DEFAULTS: Mapping[Target, Mapping[str, Any]]
    #: Whether several processes can fit one model together with torch.distributed.
    DISTRIBUTED: bool
    #: The Python distributions that fit and export. Another version of one of them requires a new fit.
    LIBRARIES: tuple[str, ...]

    def fit(
        self, data: TrainingData, parameters: Mapping[str, Any], seed: int, checkpoint: Checkpoint = NO_CHECKPOINT
    ) -> Fitted:
        """Fit with `parameters`, which has all keys of DEFAULTS[data.target].

        On one machine the same arguments give the same model, also when the fit resumes from `checkpoint`. A fit that
        takes seconds may ignore the checkpoint.
        """
        ...


def load(name: EstimatorName) -> Estimator:
    """The estimator `name`: a member of the registry, or what `package.module:factory` gives (own.py).

    Imports its library. Raises ConfigError when there is no such estimator, when it cannot be imported, or when it
    lacks a part of the protocol.
    """
    if name in ESTIMATORS.modules:
        estimator = ESTIMATORS.find(name)()
    else:
        from training.estimators.base.own import adapted

        estimator = adapted(_factory(name))
    if missing := [part for part in _PARTS if not hasattr(estimator, part)]:
        problem = f"The estimator {name!r} is a {type(estimator).__name__} without {', '.join(missing)}"
        raise ConfigError(problem, hint="docs/estimators.md says what a factory may return.")
    return estimator


_PARTS = ("DEFAULTS", "DISTRIBUTED", "LIBRARIES", "fit")


def _factory(name: EstimatorName) -> Any:
    return _imported(name) if ":" in name else ESTIMATORS.find(name)


def _imported(path: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        problem = f"The estimator {path!r} cannot be imported: {error}"
        raise ConfigError(
            problem, hint="Install its package where steps run, or correct training.estimators."
        ) from error


def outside_sources(name: EstimatorName) -> dict[str, Path]:
    """The source files of an estimator from another package, by their paths from where it is imported.

    They are all `.py` files of its top-level package; for a module without a package its own file, and not what that
    imports. None for an estimator of this package. Imports an estimator from another package. Raises ConfigError like
    `load`.
    """
    if (Path(__file__).parents[1] / f"{name}.py").is_file():
        return {}
    kind = type(load(name))
    made_by = _factory(name) if kind.__module__.startswith(__name__) else kind
    file, depth = Path(inspect.getfile(made_by)), made_by.__module__.count(".")
    if file.name == "__init__.py":
        depth += 1
    if not depth:
        return {file.name: file}
    package = file.parents[depth - 1]
    return {path.relative_to(package.parent).as_posix(): path for path in package.rglob("*.py")}


def parameters_for(
    name: EstimatorName, estimator: Estimator, target: Target, given: Mapping[str, Any]
) -> dict[str, Any]:
    """All parameters to learn `target` with: the defaults, overridden by `given`.

    Raises ConfigError when the estimator cannot learn `target`, and for a parameter that does not exist.
    """
    if target not in estimator.DEFAULTS:
        problem = f"{name} cannot learn {_TARGETS[target]}, only {' or '.join(_TARGETS[t] for t in estimator.DEFAULTS)}"
        raise ConfigError(problem, hint="Choose another estimator for this task.")
    defaults = estimator.DEFAULTS[target]
    if unknown := sorted(set(given) - set(defaults)):
        problem = f"{name} has no parameter {', '.join(unknown)}"
        raise ConfigError(problem, hint=f"Its parameters: {', '.join(sorted(defaults))}.")
    return {**defaults, **given}


_TARGETS: Mapping[Target, str] = {"binary": "a binary label", "classes": "classes", "number": "a number"}
