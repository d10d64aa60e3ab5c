"""A real service of several models that learn from one source. The registry is an SQLite file."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from testing.http_client import http
from testing.serving_stack import (
    EVENT,
    Service,
    artifact,
    eventually,
    fill_online_store,
    registered,
    service_process,
)
from testing.task_kinds import artifact_of, spec_of
from training.adapters.features import Features
from training.adapters.registry import Registry
from training.contract.model_spec import load_model_spec
from training.contract.replicas import ReplicaModels
from training.settings import Settings


@dataclass
class ManyModels:
    """`kinds`: model → its kind of task."""

    folder: Path
    settings: Settings
    service: Service
    kinds: Mapping[str, str]
    versions: Counter[str] = field(default_factory=Counter)

    def register(self, model: str, shift: float = 0.0, **faults: Any) -> int:
        """A new version of `model`. `faults`: of a binary model, those of `serving_stack.artifact`."""
        self.versions[model] += 1
        folder = self.folder / f"{model}-{self.versions[model]}"
        features = Features(self.settings, load_model_spec(model, self.settings.models_dir, self.settings.feature_repo))
        if self.kinds[model] == "binary":
            path = artifact(folder, features.names(), -1.0 + shift, features=features, model=model, **faults)
        else:
            path = artifact_of(folder, self.kinds[model], features, shift, model=model)
        return registered(self.settings, path).version

    def set_champion(self, model: str, version: int) -> None:
        """Does not wait until it serves."""
        Registry(self.settings.tracking_uri).set_alias(model, "champion", version)

    def promote(self, model: str, version: int) -> None:
        self.set_champion(model, version)
        eventually(lambda: self.champion(model) == version)

    def of(self, model: str) -> ReplicaModels:
        answer = http.get(f"{self.service.url}/models/{model}", timeout=30)
        return ReplicaModels.model_validate_json(answer.content)

    def champion(self, model: str) -> int | None:
        found = self.of(model).champion
        return found.version if found else None

    def predict(self, model: str, **changes: Any) -> httpx.Response:
        return http.post(f"{self.service.url}/models/{model}/predict", json=EVENT | changes, timeout=60)


@contextmanager
def running_models(
    folder: Path, kinds: Mapping[str, str], environment: Mapping[str, str] | None = None, **fields: Any
) -> Iterator[ManyModels]:
    """A ready service of a model for each of `kinds`, each with a champion.

    `environment`: more variables of the service. `fields`: of the settings.
    """
    (folder / "models").mkdir(parents=True)
    settings = Settings(
        home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db", models_dir=folder / "models", **fields
    )
    made = ManyModels(folder, settings, service_process(settings), kinds)
    made.service.env |= environment or {}
    for model, kind in kinds.items():
        plan = {"timeout_seconds": 60, "stages": [{"mode": "full"}]}
        spec = spec_of(kind, model) | {"title": f"Title of {model}", "rollout": plan}
        (settings.models_dir / f"{model}.yaml").write_text(yaml.safe_dump(spec))
    fill_online_store(settings, load_model_spec(next(iter(kinds)), settings.models_dir))
    for model in kinds:
        made.set_champion(model, made.register(model))
    made.service.start()
    try:
        eventually(made.service.ready)
        yield made
    finally:
        made.service.stop()
