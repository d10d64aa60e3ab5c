"""What the tests of serving and of rollouts use: tiny real models, real servers, a real online store."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import httpx
import pyarrow as pa
import yaml

from testing.compat.mlflow import SERVER_APP, server_environment
from testing.http_client import http
from testing.onnx_attacks import replace_model
from testing.ports import free_port
from testing.serving_artifacts import EVENT, MODEL, artifact
from testing.waiting import eventually
from training.adapters.features import Features, OnlineRows
from training.adapters.lake import Lake
from training.adapters.registry import ModelVersion, Registry
from training.contract.artifact import METADATA_FILE, ArtifactMetadata
from training.contract.model_spec import ModelSpec, load_model_spec
from training.contract.replicas import Refusal, ReplicaModels
from training.contract.signals import Signals
from training.settings import ROOT, Settings

MIDNIGHT = datetime(2026, 1, 5, tzinfo=UTC)


def registered(settings: Settings, artifact: Path) -> ModelVersion:
    """The artifact as a new version; without a server its files stay beside it."""
    from mlflow import MlflowClient

    client = MlflowClient(settings.tracking_uri, settings.tracking_uri)
    where = None if settings.tracking_uri.startswith("http") else str(artifact.with_name("runs"))
    run = client.create_run(client.create_experiment(artifact.name, where)).info.run_id
    client.log_artifacts(run, str(artifact), "served")
    # Not as the code under test reads it: it refuses the artifacts of some tests.
    metadata = ArtifactMetadata.model_validate_json((artifact / METADATA_FILE).read_text())
    return Registry(settings.tracking_uri).register(metadata.model, run, metadata.digest, {})


@dataclass
class Process:
    """A server process in a session of its own, so that all of it can be ended.

    As a context it is started, and stopped at the end.
    """

    command: list[str]
    env: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.env, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
            )

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)
        self.process.wait(300)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGTERM)


@dataclass
class MlflowServer(Process):
    url: str = ""

    def answers(self) -> bool:
        try:
            return http.get(f"{self.url}/health", timeout=1).status_code == 200
        except httpx.HTTPError:
            return False


def mlflow_server(folder: Path) -> MlflowServer:
    """A server that has not started yet, on a free port, with its database and its artifacts in `folder`.

    It is the process that `mlflow server` starts. The command itself takes more CPU than the server before it does so,
    and then waits.
    """
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port)]
    command += [SERVER_APP]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = os.environ | quiet | server_environment(f"sqlite:///{folder}/mlflow.db", folder / "art")
    return MlflowServer(command, environment, folder / "mlflow.log", url=f"http://127.0.0.1:{port}")


@dataclass
class Service(Process):
    """`model`: the one that the methods are about."""

    url: str = ""
    model: str = MODEL

    def models(self) -> ReplicaModels | None:
        """None when the service does not answer."""
        try:
            return ReplicaModels.model_validate_json(http.get(f"{self.url}/models/{self.model}", timeout=5).content)
        except httpx.HTTPError:
            return None

    def ready(self) -> bool:
        try:
            return http.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def refused(self, version: int) -> Refusal | None:
        models = self.models()
        return models.refused.get(version) if models else None

    def problem(self) -> str:
        """Empty when there is none, or no answer."""
        models = self.models()
        return (models.problem if models else None) or ""

    def mode(self) -> str | None:
        """Of its traffic."""
        models = self.models()
        return models.traffic.mode if models else None

    def signals(self) -> Signals:
        return Signals.model_validate_json(http.get(f"{self.url}/models/{self.model}/signals", timeout=5).content)

    def serves(self, version: int) -> bool:
        models = self.models()
        return models is not None and models.champion is not None and models.champion.version == version

    def kill(self) -> None:
        """End it at once. The worker, which has a session of its own, first: else it would stop in good order."""
        worker = self.worker()
        os.kill(worker, signal.SIGKILL)
        self.signal(signal.SIGKILL)
        eventually(lambda: not Path(f"/proc/{worker}").exists())

    def worker(self) -> int:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])


def changed(settings: Settings, **fields: Any) -> Settings:
    """`settings` with other fields, which are validated."""
    return Settings(**{**settings.model_dump(), **fields})


def serving_environment(settings: Settings) -> dict[str, str]:
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("CT_", "BENTOML_", "MLFLOW_"))}
    policy = ["store_down", "lookup_seconds", "deadline_seconds", "explain", "pinning"]
    policy += [
        "maximum_lag_seconds",
        "maximum_in_flight",
        "maximum_models",
        "management_port",
        "load_mib",
        "load_seconds",
    ]
    return keep | {
        **{f"CT_SERVING_{name.upper()}": str(getattr(settings, f"serving_{name}")) for name in policy},
        "CT_HOME": str(settings.home),
        "CT_MODELS_DIR": str(settings.models_dir),
        "CT_FEATURE_REPO": str(settings.feature_repo),
        "CT_TRACKING_URI": settings.tracking_uri,
        "CT_SERVING_MODELS": settings.serving_models,
        "CT_SERVING_NAME": settings.serving_name,
        "CT_SERVING_STATE": settings.serving,
        "CT_ONLINE_STORE": settings.online_store,
        "CT_SERVING_POLL_SECONDS": "0.2",
        "CT_SERVING_SHIP_SECONDS": "2",
        "BENTOML_HOME": str(settings.home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
    }


def service_process(settings: Settings) -> Service:
    port = free_port()
    settings.home.mkdir(parents=True, exist_ok=True)
    command = [f"{Path(sys.executable).parent}/bentoml", "serve", "serving.service:Service"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    log = settings.home / f"serving-{port}.log"
    return Service(command, serving_environment(settings), log, url=f"http://127.0.0.1:{port}")


@dataclass
class Stack:
    """A registry, the online store with one customer and one terminal, and a running service without a champion."""

    settings: Settings
    spec: ModelSpec
    registry: Registry
    service: Service
    names: list[str]
    folder: Path
    count: int = 0

    def register(
        self,
        bias: float,
        names: list[str] | None = None,
        golden_error: float = 0.0,
        features: Features | None = None,
        attack: Callable[[int], bytes] | None = None,
        **faults: Any,
    ) -> ModelVersion:
        """A new version whose scores depend on `bias`, with the `faults` of `_nodes`.

        It takes the `names` of `features`: by default all that the feature repo has. An artifact with other names is
        one from before features were part of one. `attack` makes its ONNX file, for so many features.
        """
        self.count += 1
        if features is None and names is None:
            features = Features(self.settings, self.spec)
        names = names or (features.names() if features else [])
        folder = self.folder / f"artifact{self.count}"
        artifact(folder, names, bias, golden_error, features, **faults)
        if attack is not None:
            replace_model(folder, attack(len(names)))
        return registered(self.settings, folder)

    def predict(self, **changes: Any) -> httpx.Response:
        return http.post(f"{self.service.url}/predict", json=EVENT | changes, timeout=30)

    def planned(
        self, stages: list[dict[str, Any]], guards: dict[str, Any] | None = None, urls: str = "", timeout: int = 30
    ) -> Settings:
        """Settings of a model spec with this rollout plan. `timeout`: in seconds."""
        spec = yaml.safe_load((self.settings.models_dir / "card_fraud.yaml").read_text())
        spec["rollout"] = {"timeout_seconds": timeout, "stages": stages, "guards": guards or {}}
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        (folder / "card_fraud.yaml").write_text(yaml.safe_dump(spec))
        return changed(self.settings, serving_urls=urls or self.service.url, models_dir=folder)

    def promote(self, version: ModelVersion) -> None:
        self.registry.set_alias("card_fraud", "champion", version.version)
        eventually(lambda: self.service.serves(version.version))


@contextmanager
def running_stack(folder: Path, **fields: Any) -> Iterator[Stack]:
    """The service of card_fraud, up; the online store is still empty and nothing is registered.

    `fields`: of the settings. Without a `tracking_uri` among them the registry is a database without a server, which
    costs 6 s of CPU less.
    """
    from mlflow import MlflowClient

    places = {"tracking_uri": f"sqlite:///{folder}/mlflow.db", "serving_models": MODEL}
    settings = Settings(home=folder / "home", **{**places, **fields})
    # Makes the tables before the service looks for them.
    MlflowClient(settings.tracking_uri, settings.tracking_uri).search_experiments()
    with service_process(settings) as service:
        spec = load_model_spec("card_fraud", settings.models_dir, settings.feature_repo)
        names = Features(settings, spec).names()
        eventually(service.models)
        yield Stack(settings, spec, Registry(settings.tracking_uri), service, names, folder)


@contextmanager
def running_mlflow(folder: Path) -> Iterator[MlflowServer]:
    """A server that answers."""
    with mlflow_server(folder) as server:
        eventually(server.answers)
        yield server


def fill_online_store(settings: Settings, spec: ModelSpec) -> None:
    """One row in each view of the feature repo, all of its columns 0.5."""
    lake, features = Lake(settings.lake, spec.source.name), Features(settings, spec)
    for view in features.definitions.views:
        row: dict[str, Any] = {
            view.entity: [EVENT[view.entity]],
            "feature_timestamp": pa.array([MIDNIGHT], pa.timestamp("us", "UTC")),
        }
        row |= {column.name: pa.array([0.5], pa.float32()) for column in view.columns}
        lake.overwrite(view.name, pa.table(row | {"day": [MIDNIGHT.date()]}), ["day"])
    OnlineRows(settings, spec.source).materialize(lake.versions(*spec.source.entities))
