"""What the tests of several steps share, made once: it takes a quarter of a minute."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.tiny_artifact import make_artifact
from tests.shared_folders import SharedFolders
from tests.steps.monitored_model import MonitoredModel, build
from tests.steps.replica_server import MODEL, Replica
from tests.steps.rollout_helpers import at_once
from training.adapters import plots
from training.adapters.registry import Registry
from training.domain.charts import Chart
from training.settings import Settings


@pytest.fixture(scope="module", autouse=True)
def without_charts() -> Iterator[None]:
    """Steps leave an empty file for each chart: to draw them takes half of the time of a training.

    tests/adapters/test_plots.py draws, and so do the first training of test_train.py and an evaluation with slices.
    """

    def name(folder: Path, charts: Iterable[Chart]) -> None:
        for chart in charts:
            (folder / f"{chart.name}.png").touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "draw", name)
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> MonitoredModel:
    """One for each worker process: tests write predictions and drift reports into it."""
    folder = tmp_path_factory.mktemp("watched")
    shutil.copy(mlflow_database, folder)
    return build(folder)


@pytest.fixture(scope="session")
def template(shared_folders: SharedFolders, mlflow_database: Path) -> Path:
    """A registry with four versions and no alias, to be copied."""

    def make(folder: Path) -> None:
        from mlflow import MlflowClient

        shutil.copy(mlflow_database, folder)
        uri = f"sqlite:///{folder}/mlflow.db"
        registry, client = Registry(uri), MlflowClient(uri, uri)
        experiment = client.create_experiment("tiny", artifact_location=str(folder / "artifacts"))
        digest = make_artifact(folder / "served", MODEL).digest
        for _ in range(4):
            run_id = client.create_run(experiment).info.run_id
            client.log_artifacts(run_id, str(folder / "served"), "served")
            registry.register(MODEL, run_id, digest, {})

    return shared_folders.folder("registry-of-four-versions", make) / "mlflow.db"


@pytest.fixture
def registry(template: Path, tmp_path: Path) -> Registry:
    shutil.copy(template, tmp_path / "mlflow.db")
    return Registry(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def fleet(registry: Registry, tmp_path: Path) -> Iterator[list[Replica]]:
    running = [Replica(registry, tmp_path / "mlflow.db", name) for name in ("r0", "r1")]
    yield running
    for replica in running:
        replica.close()


@pytest.fixture
def quick(settings: Settings, spec: Any, tmp_path: Path, fleet: list[Replica]) -> Settings:
    """The two replicas, and a spec without stages that waits one second for them."""
    return at_once(settings, tmp_path, fleet)
