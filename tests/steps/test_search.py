"""A search for parameters as part of the train step."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.cases import others_long
from tests.steps.search_place import MODEL, SEARCH, Place
from tests.steps.training_rows import START, write_dataset
from training.adapters.onnx_model import OnnxModel
from training.contract.base import Days
from training.contract.errors import ConfigError, DataContractError
from training.contract.messages import TrainingWindow, TrainInputs, TrainResult
from training.contract.model_spec import load_model_spec
from training.fit_job import FitJob
from training.steps import train
from training.steps.check.estimators import check_estimators

# Some tests start processes that import MLflow.


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


@pytest.mark.long
def test_the_same_search_again_gives_the_same_model(searched: tuple[Place, TrainResult], place: Place) -> None:
    assert place.train().digest == searched[1].digest


@pytest.mark.long
def test_a_window_too_short_for_the_folds_is_fitted_with_what_the_usual_one_found(
    tmp_path: Path, mlflow_database: Path
) -> None:
    end = START + timedelta(days=7)
    windows = [TrainingWindow(days=Days(start=START, end=end), rows=1)]
    windows.append(TrainingWindow(name="1d", days=Days.ending(end, 1), rows=1))
    place = Place(tmp_path, write_dataset(tmp_path / "windows", windows=windows), mlflow_database)
    asked = [TrainInputs.model_validate(place.inputs() | {"window": name}) for name in ("", "1d")]
    fitted = [train.run(inputs, place.settings) for inputs in asked]
    found = [OnnxModel.load(Path(each.artifact_uri)).metadata for each in fitted]
    assert found[0].parameters == found[1].parameters
    assert [len(metadata.train_days) for metadata in found] == [7, 1]
    assert found[0].digest != found[1].digest


def test_a_finished_run_is_not_searched_again(searched: tuple[Place, TrainResult]) -> None:
    place, result = searched
    assert place.train() == result
    assert len(place.children(result.run_id)) == 4


def test_another_space_or_budget_is_another_fit_of_an_estimator_with_a_space(place: Place) -> None:
    spec = load_model_spec(MODEL, place.settings.models_dir, place.settings.feature_repo)
    inputs = TrainInputs.model_validate(place.inputs())
    fingerprints = {FitJob.of(inputs, place.settings).fingerprint}
    other = TrainInputs.model_validate(place.inputs("logistic_regression"))
    unsearched = FitJob.of(other, place.settings).fingerprint
    for change in ({"trials": 5}, {"minutes": 7.0}, {"folds": 1}, {"fold_days": 1}):
        place.write_spec({**SEARCH, **change})
        fingerprints.add(FitJob.of(inputs, place.settings).fingerprint)
        assert FitJob.of(other, place.settings).fingerprint == unsearched
    assert spec.training.search is not None
    assert len(fingerprints) == 5


@pytest.mark.ci
def test_an_estimator_without_a_space_is_not_searched(place: Place) -> None:
    assert place.children(place.train("logistic_regression").run_id) == []


@pytest.mark.ci
@pytest.mark.parametrize("trials_before", others_long([1, 3]))
def test_killed_in_mid_search_it_goes_on_without_doing_a_trial_again(
    place: Place, searched: tuple[Place, TrainResult], trials_before: int
) -> None:
    found = place.kill_and_go_on(f"Trial {trials_before} of 4", 4)
    assert found["digest"] == searched[1].digest
    assert len(place.children(found["run_id"])) == 4
    assert place.journals() == []


def test_a_trial_that_fails_is_a_failed_child_and_named(place: Place) -> None:
    spaces = {"hist_gradient_boosting": {"max_features": {"choices": [1.0, -1.0]}}}
    place.write_spec({**SEARCH, "spaces": spaces, "trials": 3})
    result = place.train(max_iter=3)
    failed = [child for child in place.children(result.run_id) if child.info.status == "FAILED"]
    assert failed
    assert all(child.data.params == {"max_features": "-1.0"} for child in failed)
    summary = place.run(result.run_id).data.tags["search"]
    assert f"{len(failed)} failed (trial {int(failed[0].info.run_name[-4:])}: InvalidParameterError" in summary


@pytest.mark.long
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
