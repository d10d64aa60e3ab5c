"""MLflow goes away before each step, and answers get lost: steps end with 75 and do their work once when it is back."""

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from testing.gate import Gate
from testing.loop_steps import MODEL, run_loop, write_spec
from testing.serving_stack import mlflow_server
from testing.waiting import eventually
from training.adapters.ledger import Ledger
from training.adapters.registry import CHAMPION, Registry
from training.contract.errors import ExitCode
from training.contract.messages import StepReport
from training.runner import run_step

pytestmark = pytest.mark.long

#: The steps that need MLflow, in the order of the loop.
NEED = ["decide_retraining", "train", "evaluate", "register", "rollout", "score", "drift", "performance", "rollback"]


class World:
    """The steps of one model, in this process, and a gate before its MLflow."""

    def __init__(self, folder: Path, gate: Gate) -> None:
        self.folder, self.gate = folder, gate
        self._report = folder / "report.json"
        #: The steps that MLflow's absence has stopped.
        self.stopped: list[str] = []

    def run(self, name: str, **inputs: Any) -> tuple[int, StepReport]:
        self._report.unlink(missing_ok=True)
        code = run_step(name, json.dumps(inputs, default=str), str(self._report))
        return code, StepReport.model_validate_json(self._report.read_text())

    def step(self, name: str, **inputs: Any) -> dict[str, Any]:
        """Run the step while MLflow is away, then twice while it is there. Returns its result."""
        self.gate.close()
        code, report = self.run(name, **inputs)
        if code != ExitCode.OK:
            assert code == ExitCode.TRANSIENT, (name, report.error)
            assert report.error is not None
            assert report.error.retryable
            assert self.gate.url in report.error.message, name
            self.stopped.append(name)
        self.gate.open()
        results = []
        for _ in range(2):
            code, report = self.run(name, **inputs)
            assert code == ExitCode.OK, (name, report.error)
            results.append(report.result or {})
        return results[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Iterator[int]:
    """The port of an MLflow server."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(mlflow_database, folder)
    with mlflow_server(folder) as mlflow:
        eventually(mlflow.answers)
        yield int(mlflow.url.rpartition(":")[2])


@pytest.fixture
def world(server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    gate = Gate(server)
    models = write_spec(tmp_path / "models", serving=None)
    monkeypatch.setenv("CT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CT_MODELS_DIR", str(models))
    monkeypatch.setenv("CT_TRACKING_URI", gate.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    before = signal.getsignal(signal.SIGTERM)
    yield World(tmp_path, gate)
    signal.signal(signal.SIGTERM, before)
    gate.close()


def test_each_step_ends_with_75_while_mlflow_is_away_and_does_its_work_once_when_it_is_back(world: World) -> None:
    run_loop(world.step, world.folder / "home" / "landing")
    world.step("rollback", model=MODEL, version=1, reason="test", run="rollback")

    assert world.stopped == NEED

    registry, client = Registry(world.gate.url), MlflowClient(world.gate.url, world.gate.url)
    champion = registry.by_alias(MODEL, CHAMPION)
    assert champion is not None
    assert champion.version == 1
    assert [version.version for version in registry.versions(MODEL)] == [1]
    experiment = client.get_experiment_by_name(MODEL)
    assert experiment is not None
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FINISHED"]
    entries = [(entry.kind, entry.key) for entry in Ledger(str(world.folder / "home" / "ledger")).entries(MODEL)]
    assert len(entries) == len(set(entries))
    assert [kind for kind, _ in entries if kind == "rollout"] == ["rollout", "rollout"]
