"""A search for parameters as part of the train step."""

import json
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from tests.steps.step_process import StepProcess
from tests.steps.training_rows import write_dataset
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import Registry
from training.contract.errors import ConfigError, DataContractError
from training.contract.messages import TrainInputs, TrainResult
from training.contract.model_spec import MODELS_DIR, load_model_spec
from training.contract.source_spec import SOURCES_DIR
from training.contract.steps import step_command
from training.settings import ROOT, Settings
from training.steps import train
from training.steps.check.estimators import check_estimators

# Some tests start processes that import MLflow.
pytestmark = pytest.mark.slow

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

    def __init__(self, folder: Path, dataset: str, database: Path, search: dict[str, Any] = SEARCH) -> None:
        self.folder, self.dataset = folder, dataset
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
        self.write_spec(search)

    def write_spec(self, search: dict[str, Any]) -> None:
        spec = yaml.safe_load((MODELS_DIR / f"{MODEL}.yaml").read_text())
        spec["training"]["search"] = search
        (self.settings.models_dir / f"{MODEL}.yaml").write_text(yaml.safe_dump(spec))

    def inputs(self, estimator: str = "hist_gradient_boosting", **parameters: Any) -> dict[str, Any]:
        given = {"model": MODEL, "estimator": estimator, "parameters": parameters}
        return {**given, "dataset_uri": self.dataset, "seed": 1, "reason": "test"}

    def train(self, estimator: str = "hist_gradient_boosting", **parameters: Any) -> TrainResult:
        return train.run(TrainInputs.model_validate(self.inputs(estimator, **parameters)), self.settings)

    def start(self, result: Path, log: Path) -> StepProcess:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CT_")}
        environment = clean | {
            "CT_HOME": str(self.settings.home), "CT_TRACKING_URI": self.settings.tracking_uri,
            "CT_MODELS_DIR": str(self.settings.models_dir), "CT_FEATURE_REPO": str(self.settings.feature_repo),
            "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        return StepProcess(step_command("train", self.inputs(), str(result)), environment, log)

    def children(self, run_id: str) -> list[Any]:
        client = Registry(self.settings.tracking_uri)._client
        experiment = client.get_experiment_by_name(MODEL).experiment_id
        found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
        return sorted(found, key=lambda run: run.info.run_name)

    def run(self, run_id: str) -> Any:
        return Registry(self.settings.tracking_uri)._client.get_run(run_id)

    def journals(self) -> list[Path]:
        return list(self.settings.home.glob(f"work/{MODEL}/searches/*/trials"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dataset(tmp_path_factory.mktemp("search") / "dataset")


@pytest.fixture
def place(tmp_path: Path, dataset: str, mlflow_database: Path) -> Place:
    return Place(tmp_path, dataset, mlflow_database)


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory, dataset: str, mlflow_database: Path
) -> tuple[Place, TrainResult]:
    place = Place(tmp_path_factory.mktemp("whole"), dataset, mlflow_database)
    return place, place.train()


def test_the_winner_is_fitted_and_every_trial_is_a_child_run(searched: tuple[Place, TrainResult]) -> None:
    place, result = searched
    children = place.children(result.run_id)
    assert [child.info.run_name for child in children] == [f"trial-{number:04d}" for number in range(4)]
    assert {child.info.status for child in children} == {"FINISHED"}
    assert all(set(child.data.params) == {"max_iter", "learning_rate"} for child in children)
    best = max(children, key=lambda child: child.data.metrics.get("average_precision", 0))
    assert best.data.metrics["average_precision_of_fold"] > 0
    parent = place.run(result.run_id)
    assert parent.data.tags["search_best"] == best.info.run_name
    assert parent.data.tags["search"].startswith("4 trials, ")
    parameters = OnnxModel.load(Path(result.artifact_uri)).metadata.parameters
    for name, value in best.data.params.items():
        assert str(parameters[name]) == parent.data.params[name] == value
    # What the search left behind is in MLflow; its own file is gone.
    assert place.journals() == []


def test_the_same_search_again_gives_the_same_model(searched: tuple[Place, TrainResult], place: Place) -> None:
    assert place.train().digest == searched[1].digest


def test_a_finished_run_is_not_searched_again(searched: tuple[Place, TrainResult]) -> None:
    place, result = searched
    assert place.train() == result
    assert len(place.children(result.run_id)) == 4


def test_another_space_or_budget_is_another_fit_and_an_estimator_without_a_space_is_not_searched(place: Place) -> None:
    spec = load_model_spec(MODEL, place.settings.models_dir, place.settings.feature_repo)
    inputs = TrainInputs.model_validate(place.inputs())
    fingerprints = {train._Job.of(inputs, place.settings).fingerprint}
    other = TrainInputs.model_validate(place.inputs("logistic_regression"))
    unsearched = train._Job.of(other, place.settings).fingerprint
    for change in ({"trials": 5}, {"minutes": 7.0}, {"folds": 1}, {"fold_days": 1}):
        place.write_spec({**SEARCH, **change})
        fingerprints.add(train._Job.of(inputs, place.settings).fingerprint)
        assert train._Job.of(other, place.settings).fingerprint == unsearched
    assert spec.training.search is not None
    assert len(fingerprints) == 5
    assert place.children(place.train("logistic_regression").run_id) == []


@pytest.mark.parametrize("trials_before", [1, 3])
def test_killed_in_mid_search_it_goes_on_without_doing_a_trial_again(
    place: Place, searched: tuple[Place, TrainResult], trials_before: int
) -> None:
    result, log = place.folder / "report.json", place.folder / "log.txt"
    process = place.start(result, log)
    while not log.exists() or f"Trial {trials_before} of 4" not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.01)
    process.kill()
    process.wait(500)
    assert not result.exists()
    done = [line for line in log.read_text().splitlines() if "Trial " in line]
    assert len(done) < 4, "it was killed too late"
    again = place.folder / "again.txt"
    process = place.start(result, again)
    assert process.wait(500) == 0, again.read_text()
    assert "Resumed the search after " in again.read_text()
    then = [line for line in again.read_text().splitlines() if "Trial " in line]
    assert len(done) + len(then) == 4
    found = json.loads(result.read_text())["result"]
    assert found["digest"] == searched[1].digest
    assert len(place.children(found["run_id"])) == 4
    assert place.journals() == []


def test_a_trial_that_fails_is_a_failed_child_and_named(place: Place) -> None:
    spaces = {"hist_gradient_boosting": {"max_features": {"choices": [1.0, -1.0]}}}
    place.write_spec({**SEARCH, "spaces": spaces, "trials": 8})
    result = place.train(max_iter=3)
    failed = [child for child in place.children(result.run_id) if child.info.status == "FAILED"]
    assert failed
    assert all(child.data.params == {"max_features": "-1.0"} for child in failed)
    summary = place.run(result.run_id).data.tags["search"]
    assert f"{len(failed)} failed (trial {int(failed[0].info.run_name[-4:])}: InvalidParameterError" in summary


def test_mistakes_are_clear_errors(place: Place) -> None:
    for search, message in (
        ({**SEARCH, "folds": 9}, r"training.search needs 20 days with the label delay, but training.window_days is 14"),
        (
            {**SEARCH, "spaces": {"random_forest": {"max_depth": {"low": 1, "high": 9}}}},
            r"has \['random_forest'\], which",
        ),
    ):
        place.write_spec(search)
        with pytest.raises(ConfigError, match=message):
            place.train()
    place.write_spec({**SEARCH, "folds": 3, "fold_days": 3})
    with pytest.raises(ConfigError, match=r"has 7 days, but training.search needs 11: 3 folds of 3 days"):
        place.train()
    place.write_spec({**SEARCH, "spaces": {"hist_gradient_boosting": {"leaves": {"low": 1, "high": 9}}}})
    with pytest.raises(ConfigError, match="hist_gradient_boosting has no parameter leaves"):
        place.train()
    (problem,) = check_estimators(
        load_model_spec(MODEL, place.settings.models_dir, place.settings.feature_repo), "card_fraud.yaml"
    )
    assert str(problem) == "training.search.spaces.hist_gradient_boosting has no parameter leaves"


def test_a_fold_that_no_model_can_be_fitted_on_is_an_error(tmp_path: Path, mlflow_database: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset")
    rows = pq.read_table(f"{dataset}/train.parquet")
    early = pc.less(rows["event_time"], pa.scalar(datetime(2026, 1, 8, tzinfo=UTC), rows["event_time"].type))
    labels = pc.if_else(early, 0, rows["is_fraud"])
    at = rows.schema.get_field_index("is_fraud")
    pq.write_table(rows.set_column(at, "is_fraud", labels), f"{dataset}/train.parquet")
    (tmp_path / "place").mkdir()
    place = Place(tmp_path / "place", dataset, mlflow_database)
    with pytest.raises(DataContractError, match=r"A fold of the search \(train 2026-01-05 … 2026-01-06, .*has no row"):
        place.train()
