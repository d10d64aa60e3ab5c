"""A model with a search for parameters, and its dataset and MLflow, for the tests of the steps search and train."""

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from testing.step_process import StepProcess
from training.adapters.registry import Registry
from training.contract.messages import FailedPart, SearchInputs, SearchResult, TrainInputs, TrainResult
from training.contract.model_spec import MODELS_DIR
from training.contract.source_spec import SOURCES_DIR
from training.contract.steps import step_command
from training.settings import ROOT, Settings
from training.steps import search, train

MODEL = "card_fraud"
#: The dataset has seven training days.
SEARCH = {
    "trials": 4,
    "folds": 2,
    "fold_days": 2,
    "spaces": {
        "hist_gradient_boosting": {
            "max_iter": {"low": 2, "high": 20, "step": 2},
            "learning_rate": {"low": 0.01, "high": 0.5, "log": True},
        }
    },
}


class Place:
    """A home with a dataset and a spec that asks for a search."""

    def __init__(self, folder: Path, dataset: str, database: Path, asked: dict[str, Any] = SEARCH) -> None:
        # Steps that run as processes take datasets of their own work folder only.
        self.folder, self.dataset = folder, str(shutil.copytree(dataset, folder / "home" / "work" / "dataset"))
        shutil.copy(database, folder / "mlflow.db")
        self.settings = Settings(
            home=folder / "home",
            tracking_uri=f"sqlite:///{folder}/mlflow.db",
            models_dir=folder / "models",
            feature_repo=folder / "sources",
        )
        shutil.copytree(SOURCES_DIR, folder / "sources", ignore=shutil.ignore_patterns("__pycache__"))
        source = folder / "sources" / "card_payments.yaml"
        source.write_text(source.read_text().replace("delay_days: 7", "delay_days: 1"))
        (folder / "models").mkdir()
        self.write_spec(asked)

    def write_spec(self, asked: dict[str, Any]) -> None:
        spec = yaml.safe_load((MODELS_DIR / f"{MODEL}.yaml").read_text())
        spec["training"]["search"] = asked
        (self.settings.models_dir / f"{MODEL}.yaml").write_text(yaml.safe_dump(spec))

    def inputs(self, estimator: str = "hist_gradient_boosting", **parameters: Any) -> dict[str, Any]:
        given = {"model": MODEL, "estimator": estimator, "parameters": parameters}
        return {**given, "dataset_uri": self.dataset, "seed": 1, "reason": "test"}

    def train(self, estimator: str = "hist_gradient_boosting", **parameters: Any) -> TrainResult:
        return train.run(TrainInputs.model_validate(self.inputs(estimator, **parameters)), self.settings)

    def train_with(self, *found: SearchResult, failed: Sequence[FailedPart] = ()) -> TrainResult:
        """Train with what the parts of the search found."""
        inputs = TrainInputs.model_validate({**self.inputs(), "searched": found, "search_failures": failed})
        return train.run(inputs, self.settings)

    def search(self, part: int, estimator: str = "hist_gradient_boosting", **parameters: Any) -> SearchResult:
        inputs = {**self.inputs(estimator, **parameters), "part": part}
        return search.run(SearchInputs.model_validate(inputs), self.settings)

    def start(self, result: Path, log: Path, part: int | None = None) -> StepProcess:
        """A process of the step `train`, or of the step `search` for a part."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CT_")}
        environment = clean | {
            "CT_HOME": str(self.settings.home), "CT_TRACKING_URI": self.settings.tracking_uri,
            "CT_MODELS_DIR": str(self.settings.models_dir), "CT_FEATURE_REPO": str(self.settings.feature_repo),
            "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        step, more = ("train", {}) if part is None else ("search", {"part": part})
        return StepProcess(step_command(step, {**self.inputs(), **more}, str(result)), environment, log)

    def kill_and_go_on(self, seen: str, trials: int, part: int | None = None) -> dict[str, Any]:
        """Kill the process when its log has `seen`, and run it again: its result. Each of the `trials` is done once."""
        result, logs = self.folder / "report.json", [self.folder / "log.txt", self.folder / "again.txt"]
        process = self.start(result, logs[0], part)
        while not logs[0].exists() or seen not in logs[0].read_text():
            assert process.poll() is None, logs[0].read_text()
            time.sleep(0.01)
        process.kill()
        process.wait(500)
        assert not result.exists()
        process = self.start(result, logs[1], part)
        assert process.wait(500) == 0, logs[1].read_text()
        assert "Resumed the search after " in logs[1].read_text()
        done, then = ([line for line in log.read_text().splitlines() if "Trial " in line] for log in logs)
        assert len(done) < trials, "it was killed too late"
        assert len(done) + len(then) == trials
        found: dict[str, Any] = json.loads(result.read_text())["result"]
        return found

    def children(self, run_id: str) -> list[Any]:
        client = Registry(self.settings.tracking_uri)._client
        experiment = client.get_experiment_by_name(MODEL)
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
        return sorted(found, key=lambda run: run.info.run_name)

    def run(self, run_id: str) -> Any:
        return Registry(self.settings.tracking_uri)._client.get_run(run_id)

    def journals(self) -> list[Path]:
        return list(self.settings.home.glob(f"work/{MODEL}/searches/*/trials"))
