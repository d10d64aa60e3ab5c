"""Training as processes: told to stop, killed, resumed, and by two processes under torchrun."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from testing.step_process import StepProcess
from tests.steps.training_rows import NAMES, write_dataset
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import Registry
from training.contract.messages import StepReport
from training.contract.steps import distributed_command, step_command
from training.settings import ROOT

# Some tests start processes that import torch and MLflow.

#: Long enough to be interrupted, and dropout 0, so that any number of processes fits the same model.
SLOW = {"hidden": [64, 64], "max_epochs": 60, "patience": 60, "batch_size": 128, "dropout": 0.0}
#: Seconds that no process takes unless it hangs, on a loaded machine either.
NEVER = 500
TWO = {"nodes": 1, "processes": 2, "rendezvous": "127.0.0.1:25000"}


class Place:
    """A home of its own with a dataset; runs the train step there as a process."""

    def __init__(self, folder: Path, dataset: str, database: Path) -> None:
        self.home = folder / "home"
        dataset = str(shutil.copytree(dataset, self.home / "work" / "dataset"))
        shutil.copy(database, folder / "mlflow.db")
        self.tracking_uri = f"sqlite:///{folder}/mlflow.db"
        self.result, self.log = folder / "out" / "report.json", folder / "log.txt"
        self.inputs: dict[str, Any] = {
            "model": "card_fraud", "dataset_uri": dataset, "estimator": "mlp", "parameters": SLOW, "seed": 1,
            "reason": "test",
        }  # fmt: skip

    def start(self) -> StepProcess:
        return StepProcess(step_command("train", self.inputs, str(self.result)), self._environment(), self.log)

    def start_distributed(self) -> subprocess.Popen[bytes]:
        argv = distributed_command("train", self.inputs, str(self.result), **TWO)
        with self.log.open("wb") as log:
            command = [sys.executable, *argv]
            return subprocess.Popen(command, env=self._environment(), stdout=log, stderr=subprocess.STDOUT)

    def _environment(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CT_")}
        return clean | {
            "CT_HOME": str(self.home), "CT_TRACKING_URI": self.tracking_uri, "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }  # fmt: skip

    def run(self, distributed: bool = False) -> dict[str, Any]:
        process = self.start_distributed() if distributed else self.start()
        assert process.wait(NEVER) == 0, self.log.read_text()
        report = self.report()
        assert report.result is not None
        return report.result

    def report(self) -> StepReport:
        return StepReport.model_validate_json(self.result.read_text())

    def checkpoints(self) -> list[Path]:
        return list(self.home.glob("work/card_fraud/checkpoints/*/fit"))

    def await_checkpoint(self, process: StepProcess | subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + NEVER
        while not self.checkpoints():
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def runs(self) -> list[Any]:
        client = Registry(self.tracking_uri)._client
        return list(client.search_runs([client.get_experiment_by_name("card_fraud").experiment_id]))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dataset(tmp_path_factory.mktemp("processes") / "dataset")


@pytest.fixture
def place(tmp_path: Path, dataset: str, mlflow_database: Path) -> Place:
    return Place(tmp_path, dataset, mlflow_database)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, dataset: str, mlflow_database: Path) -> dict[str, Any]:
    """What training gives that nobody interrupts."""
    place = Place(tmp_path_factory.mktemp("whole"), dataset, mlflow_database)
    result = place.run()
    assert place.checkpoints() == []
    return result


@pytest.mark.long
def test_told_to_stop_it_ends_with_75_and_the_next_try_resumes(place: Place, whole: dict[str, Any]) -> None:
    process = place.start()
    place.await_checkpoint(process)
    process.terminate()
    assert process.wait(NEVER) == 75
    error = place.report().error
    assert error is not None
    assert (error.type, error.retryable) == ("Stopped", True)
    assert place.checkpoints()
    result = place.run()
    assert "Resumed after epoch" in place.log.read_text()
    assert result["digest"] == whole["digest"]
    assert place.checkpoints() == []
    assert len(place.runs()) == 1


@pytest.mark.long
def test_killed_outright_the_next_try_resumes(place: Place, whole: dict[str, Any]) -> None:
    process = place.start()
    place.await_checkpoint(process)
    process.kill()
    assert process.wait(NEVER) == -signal.SIGKILL
    assert not place.result.exists()
    assert place.run()["digest"] == whole["digest"]
    assert "Resumed after epoch" in place.log.read_text()


def scores(result: dict[str, Any], dataset: str) -> np.ndarray:
    holdout = pq.read_table(f"{dataset}/holdout.parquet")
    features = np.column_stack([holdout[name].to_numpy() for name in NAMES])
    return OnnxModel.load(Path(result["artifact_uri"])).score(features)


@pytest.mark.long
def test_two_processes_fit_what_one_fits(place: Place, whole: dict[str, Any], dataset: str) -> None:
    result = place.run(distributed=True)
    log = place.log.read_text()
    assert log.count("Fitting mlp") == 2
    assert log.count("Artifact written") == 1
    np.testing.assert_allclose(scores(result, dataset), scores(whole, dataset), atol=1e-4)
    assert [run.info.status for run in place.runs()] == ["FINISHED"]
    # The same inputs again: the other process is told that there is nothing to fit.
    assert place.run(distributed=True) == result
    assert place.log.read_text().count("Fitting mlp") == 0
    assert len(place.runs()) == 1


@pytest.mark.long
def test_two_processes_told_to_stop_resume(place: Place, dataset: str, whole: dict[str, Any]) -> None:
    process = place.start_distributed()
    place.await_checkpoint(process)
    process.terminate()
    assert process.wait(NEVER) == 75
    error = place.report().error
    assert error is not None
    assert (error.type, error.retryable) == ("Stopped", True)
    assert place.checkpoints()
    # One process goes on where two were.
    result = place.run()
    assert "Resumed after epoch" in place.log.read_text()
    np.testing.assert_allclose(scores(result, dataset), scores(whole, dataset), atol=1e-4)
    assert len(place.runs()) == 1


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the processes in /proc: Linux only")
@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_two_killed_ends_all_and_can_be_tried_again(place: Place, rank: int) -> None:
    process = place.start_distributed()
    place.await_checkpoint(process)
    (victim,) = (pid for pid in workers_of(process.pid) if environment_of(pid).get("RANK") == str(rank))
    os.kill(victim, signal.SIGKILL)
    assert process.wait(NEVER) == 75
    error = place.report().error
    assert error is not None
    assert error.retryable
    assert not list(place.home.glob("work/card_fraud/artifacts/*"))
    assert [run.info.status for run in place.runs()] != ["FINISHED"]
    assert place.checkpoints()


def workers_of(parent: int) -> list[int]:
    """The processes that torchrun, the child of `parent`, has started."""
    return [worker for torchrun in children_of(parent) for worker in children_of(torchrun)]


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def environment_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


@pytest.mark.long
def test_a_contract_error_keeps_its_exit_code(place: Place) -> None:
    place.inputs["parameters"] = {"leaves": 3}
    assert place.start_distributed().wait(NEVER) == 78
    error = place.report().error
    assert error is not None
    assert (error.type, error.retryable) == ("ConfigError", False)
