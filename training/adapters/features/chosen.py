"""The features that a model takes of its source, and the Feast service of these features."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.adapters.features.definitions import Definitions
from training.contract.errors import ConfigError
from training.contract.model_spec import ModelSpec, NamedService
from training.contract.names import did_you_mean, more_than_once

if TYPE_CHECKING:
    from feast import FeatureService


@dataclass(frozen=True)
class ChosenFeatures:
    """`names`: the features in the order in which the model takes them."""

    names: list[str]
    service: "FeatureService"


def chosen_features(definitions: Definitions, spec: ModelSpec, folder: Path) -> ChosenFeatures:
    """The features that the spec's `features` names. Unless it names a service, the service is made here.

    Raises ConfigError when `<folder>/<source>.py` does not define what the spec names, or defines a service that has
    the name of the model.
    """
    path = folder / f"{spec.source.name}.py"
    if isinstance(spec.features, NamedService):
        return _of_service(definitions, spec.features.service, path)
    if spec.name in definitions.services:
        problem = f"{path} defines a feature service {spec.name!r}, but the service of model {spec.name} is generated"
        fix = f"Rename or remove the service, or write `features: {{service: {spec.name}}}` in the model spec."
        raise ConfigError(problem, hint=fix)
    names = definitions.names if spec.features == "all" else list(spec.features)
    if unknown := sorted(set(names) - set(definitions.names)):
        problem = f"The spec of model {spec.name} names the features {unknown}, which the source does not have"
        meant = did_you_mean(unknown[0], definitions.names)
        raise ConfigError(problem, hint=f"{meant}{spec.source.name} has {', '.join(definitions.names)}.")
    return ChosenFeatures(names, _service(definitions, spec, set(names)))


def _of_service(definitions: Definitions, name: str, path: Path) -> ChosenFeatures:
    if name not in definitions.services:
        problem = f"{path} defines no feature service {name!r}, only {sorted(definitions.services)}"
        raise ConfigError(problem, hint="Correct features.service in the model spec, or define the service.")
    service = definitions.services[name]
    names = [feature.name for view in service.feature_view_projections for feature in view.features]
    if repeated := sorted(more_than_once(names)):
        raise ConfigError(f"{path}: the feature service {name} has the features {repeated} twice", "Name them once.")
    return ChosenFeatures(names, service)


def _service(definitions: Definitions, spec: ModelSpec, names: set[str]) -> "FeatureService":
    from feast import FeatureService

    parts: list[Any] = []
    for view in (*definitions.views, *definitions.on_demand):
        if wanted := [feature.name for feature in view.features if feature.name in names]:
            parts.append(view if len(wanted) == len(view.features) else view[wanted])
    return FeatureService(name=spec.name, features=parts, description=f"The features of the model {spec.name}")
