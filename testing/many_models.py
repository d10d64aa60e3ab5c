"""A real service of several models that learn from one source. The registry is an SQLite file."""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from testing.callers import calling
from testing.http_client import http
from testing.onnx_attacks import replace_model
from testing.serving_artifacts import EVENT, artifact
from testing.serving_stack import Service, changed, fill_online_store, registered, service_process
from testing.task_kinds import artifact_of, spec_of
from testing.waiting import eventually
from training.adapters.features import Features
from training.adapters.registry import Registry
from training.contract.messages import RolloutInputs
from training.contract.model_spec import load_model_spec
from training.contract.replicas import ReplicaModels, ServedModels
from training.contract.signals import Signals
from training.settings import Settings
from training.steps import rollout


@dataclass
class ManyModels:
    """`kinds`: model → its kind of task."""

    folder: Path
    settings: Settings
    service: Service
    kinds: dict[str, str] = field(default_factory=dict)
    versions: Counter[str] = field(default_factory=Counter)

    def write_spec(self, model: str, kind: str = "binary", **fields: Any) -> None:
        self.kinds[model] = kind
        plan = {"timeout_seconds": 60, "stages": [{"mode": "full"}]}
        spec = spec_of(kind, model) | {"title": f"Title of {model}", "rollout": plan} | fields
        (self.settings.models_dir / f"{model}.yaml").write_text(yaml.safe_dump(spec))

    def register(
        self, model: str, shift: float = 0.0, attack: Callable[[int], bytes] | None = None, **faults: Any
    ) -> int:
        """A new version of `model`. `faults`: of a binary model, those of `serving_artifacts.artifact`. `attack` makes
        its ONNX file, for so many features."""
        self.versions[model] += 1
        folder = self.folder / f"{model}-{self.versions[model]}"
        features = Features(self.settings, load_model_spec(model, self.settings.models_dir, self.settings.feature_repo))
        if self.kinds[model] == "binary":
            path = artifact(folder, features.names(), -1.0 + shift, features=features, model=model, **faults)
        else:
            path = artifact_of(folder, self.kinds[model], features, shift, model=model)
        if attack is not None:
            replace_model(path, attack(len(features.names())))
        return registered(self.settings, path).version

    def set_champion(self, model: str, version: int) -> None:
        """Does not wait until it serves."""
        Registry(self.settings.tracking_uri).set_alias(model, "champion", version)

    def promote(self, model: str, version: int) -> None:
        self.set_champion(model, version)
        eventually(lambda: self.champion(model) == version)

    def roll_out(self, model: str, version: int) -> None:
        settings = changed(self.settings, serving_urls=self.service.url)
        rollout.run(RolloutInputs(model=model, version=version, reason="test"), settings)

    def spool(self, model: str) -> Path:
        """The folder in which predictions wait for the lake."""
        return Path(self.settings.serving, "predictions", spec_of(self.kinds[model], model)["source"], model)

    def served(self) -> ServedModels:
        return ServedModels.model_validate_json(http.get(f"{self.service.url}/models", timeout=30).content)

    def of(self, model: str) -> ReplicaModels:
        answer = http.get(f"{self.service.url}/models/{model}", timeout=30)
        return ReplicaModels.model_validate_json(answer.content)

    def champion(self, model: str) -> int | None:
        found = self.of(model).champion
        return found.version if found else None

    def signals(self, model: str) -> Signals:
        answer = http.get(f"{self.service.url}/models/{model}/signals", timeout=30)
        return Signals.model_validate_json(answer.content)

    def predict(self, model: str, **changes: Any) -> httpx.Response:
        return http.post(f"{self.service.url}/models/{model}/predict", json=EVENT | changes, timeout=60)

    @contextmanager
    def calls(self, model: str) -> Iterator[Counter[int]]:
        """Requests to `model` one after another meanwhile. Yields how often each status came: one at least has."""
        statuses = Counter[int]()

        def call(number: int, stop: threading.Event) -> None:
            with httpx.Client(timeout=60) as client:
                while not stop.is_set():
                    statuses[client.post(f"{self.service.url}/models/{model}/predict", json=EVENT).status_code] += 1

        with calling(1, call):
            eventually(statuses.total)
            yield statuses


@contextmanager
def running_models(
    folder: Path,
    kinds: Mapping[str, str],
    environment: Mapping[str, str] | None = None,
    specs: Mapping[str, Mapping[str, Any]] | None = None,
    unborn: Collection[str] = (),
    **fields: Any,
) -> Iterator[ManyModels]:
    """A ready service of a model for each of `kinds` (model → kind of task), each with a champion.

    `unborn`: models without one. `environment`: more variables of the service. `specs`: model → more fields of its
    spec. `fields`: of the settings.
    """
    (folder / "models").mkdir(parents=True)
    settings = Settings(
        home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db", models_dir=folder / "models", **fields
    )
    made = ManyModels(folder, settings, service_process(settings))
    made.service.env |= environment or {}
    for model, kind in kinds.items():
        made.write_spec(model, kind, **(specs or {}).get(model, {}))
    fill_online_store(settings, load_model_spec(next(iter(kinds)), settings.models_dir))
    for model in kinds:
        if model not in unborn:
            made.set_champion(model, made.register(model))
    with made.service:
        eventually(made.service.ready)
        yield made
