"""Estimators that a spec names by their path: what `package.module:factory` may be."""

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from typing import Any

from sklearn.base import clone, is_classifier, is_regressor

from training.contract.errors import ConfigError
from training.contract.names import Target
from training.contract.registries import ESTIMATORS
from training.estimators.base.checkpoint import NO_CHECKPOINT, Checkpoint
from training.estimators.base.data import TrainingData
from training.estimators.base.sklearn_fitted import Convert, SklearnFitted, fit_sklearn


class SklearnEstimator:
    """A classifier or regressor with scikit-learn's interface, or a Pipeline that ends in one, behind the protocol.

    It gets the prepared matrix (preparation.py), which has no missing values. Its parameters that are numbers, texts or
    booleans may be set in a spec; those of a Pipeline's steps are named `<step>__<parameter>`. Each `random_state` that
    is None becomes the seed of the fit.
    """

    DISTRIBUTED = False

    def __init__(self, prototype: Any) -> None:
        if not is_regressor(prototype) and not hasattr(prototype, "predict_proba"):
            problem = f"{type(prototype).__name__} has no predict_proba, and models need probabilities"
            raise ConfigError(problem, hint="Choose a classifier that has it, such as LogisticRegression.")
        self._prototype = prototype
        values = prototype.get_params(deep=True)
        settable = {
            name: value
            for name, value in values.items()
            if isinstance(value, int | float | str | None) and not name.endswith("random_state")
        }
        targets: list[Target] = ["number"] if is_regressor(prototype) else ["binary", "classes"]
        self.DEFAULTS: Mapping[Target, Mapping[str, Any]] = {target: settable for target in targets}
        self._seeded = [name for name, value in values.items() if name.endswith("random_state") and value is None]
        packages = {type(each).__module__.partition(".")[0] for each in (prototype, *values.values())}
        distributions = {name for package in packages for name in _distributions_of_packages().get(package, ())}
        self.LIBRARIES = tuple(sorted(distributions | {"onnx", "scikit-learn", "skl2onnx"}))

    def fit(
        self, data: TrainingData, parameters: Mapping[str, Any], seed: int, checkpoint: Checkpoint = NO_CHECKPOINT
    ) -> SklearnFitted:
        seeds = dict.fromkeys(self._seeded, seed % 2**32)
        model = clone(self._prototype).set_params(**{**seeds, **parameters})
        return fit_sklearn(model, data, convert=_converter_of(model))


def adapted(factory: Callable[..., Any]) -> Any:
    """What the spec named, behind the protocol where it is not that already.

    A function or class with the parameters `inputs` and `outputs` makes a torch module. Any other is called without
    arguments; a model with scikit-learn's interface is wrapped. Whatever else it returns is left as it is.
    """
    if {"inputs", "outputs"} <= inspect.signature(factory).parameters.keys():
        from training.estimators.base.torch_module import TorchEstimator

        return TorchEstimator(factory)
    made = factory()
    is_model = hasattr(made, "get_params") and (is_classifier(made) or is_regressor(made))
    return SklearnEstimator(made) if is_model else made


@cache
def _distributions_of_packages() -> Mapping[str, list[str]]:
    """Package → the distributions that it is from. This reads the metadata of everything that is installed, for half a
    second, and an estimator is loaded several times in one step."""
    return packages_distributions()


def _converter_of(model: Any) -> Convert | None:
    """The converter of the member with the name of the model's library, if there is one. None: skl2onnx."""
    library = type(model).__module__.partition(".")[0]
    return getattr(ESTIMATORS.find(library), "to_graph", None) if library in ESTIMATORS else None
