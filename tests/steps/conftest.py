"""What the tests of several steps share, made once: it takes a quarter of a minute."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.steps.fleet import MODEL, Replica
from tests.steps.watched import World, build
from training.adapters.registry import Registry


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("watched"))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with four versions and no alias; making the database takes seconds, copying it none."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder}/mlflow.db"
    registry, client = Registry(uri), MlflowClient(uri, uri)
    experiment = client.create_experiment("tiny", artifact_location=str(folder / "artifacts"))
    for _ in range(4):
        registry.register(MODEL, client.create_run(experiment).info.run_id, "digest", {})
    return folder / "mlflow.db"


@pytest.fixture
def registry(template: Path, tmp_path: Path) -> Registry:
    shutil.copy(template, tmp_path / "mlflow.db")
    return Registry(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def fleet(registry: Registry) -> Iterator[list[Replica]]:
    running = [Replica(registry), Replica(registry)]
    yield running
    for replica in running:
        replica.server.shutdown()
        replica.server.server_close()
