"""Runs of the training DAG itself, with real steps on a small lake: an estimator that fails drops out of the run."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.utils.state import TaskInstanceState as State

from tests.dags.real_steps import run_dag, use_settings
from tests.steps.monitored_model import START, land
from training.adapters.onnx_model import OnnxModel
from training.contract.base import Days
from training.contract.messages import FeaturesInputs
from training.contract.model_spec import MODELS_DIR
from training.settings import Settings
from training.steps import features

pytestmark = pytest.mark.usefixtures("airflow_database")

SOURCE, MODEL = "card_payments", "card_fraud"
BROKEN = {"no_such_parameter": 1}
#: A model that searches in two parts of a trial each.
IN_PARTS = "fraud_in_parts"
#: A model with more than one training window.
WINDOWED = "fraud_windows"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake of four weeks, and a spec with two estimators that work and two that do not. Nothing reaches its floor,
    so that no run needs a service to roll out to."""
    folder = tmp_path_factory.mktemp("runs")
    spec = yaml.safe_load((MODELS_DIR / f"{MODEL}.yaml").read_text())
    spec["training"] = {
        "window_days": 7,
        "holdout_days": 5,
        "minimum_class_rows": 5,
        "estimators": {
            "logistic_regression": {},
            "random_forest": {"n_estimators": 5},
            "hist_gradient_boosting": BROKEN,
            "mlp": BROKEN,
        },
    }
    spec["evaluation"]["limits"] = {"average_precision": 1.0}
    (folder / "models").mkdir()
    (folder / "models" / f"{MODEL}.yaml").write_text(yaml.safe_dump(spec))
    windowed = {**spec, "name": WINDOWED, "title": "Windows"}
    windowed["training"] = {**spec["training"], "windows": ["5d", "90d"]}
    (folder / "models" / f"{WINDOWED}.yaml").write_text(yaml.safe_dump(windowed))
    spec |= {"name": IN_PARTS, "title": "In parts"}
    # The first part begins with no trees, which cannot be fitted. The second draws another number.
    spec["training"] |= {
        "window_days": 9,
        "estimators": {"logistic_regression": {}, "random_forest": {"n_estimators": 0}},
        "search": {
            "trials": 2,
            "parallel": 2,
            "folds": 1,
            "fold_days": 1,
            "train_days": 1,
            "spaces": {"random_forest": {"n_estimators": {"choices": [0, 5, 6, 7]}}},
        },
    }
    (folder / "models" / f"{IN_PARTS}.yaml").write_text(yaml.safe_dump(spec))
    made = Settings(home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db", models_dir=folder / "models")
    days = Days(start=START, end=START.fromordinal(START.toordinal() + 28))
    lake = land(made, days)
    features.run(FeaturesInputs(source=SOURCE, days=days, table_versions=lake.versions("events", "labels")), made)
    return made


@pytest.fixture
def train(settings: Settings, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """Runs the training DAG of a model for these estimators: task (and map index) → its instance."""
    use_settings(settings, ("home", "tracking_uri", "models_dir"), monkeypatch, request)

    def run(*estimators: str, model: str = MODEL, **parameters: Any) -> dict[str, Any]:
        done = run_dag("train.py", f"{model}_train", {"estimators": list(estimators), "reason": "a test", **parameters})
        return {
            ti.task_id if ti.map_index < 0 else f"{ti.task_id}-{ti.map_index}": ti for ti in done.get_task_instances()
        }

    return run


def states(tis: dict[str, Any]) -> dict[str, Any]:
    return {name: ti.state for name, ti in tis.items()}


@pytest.mark.ci
def test_an_estimator_that_fails_drops_out_named_and_the_run_reaches_its_verdict(train: Any) -> None:
    # None of torch: the step server of tests has not loaded it.
    tis = train("logistic_regression", "hist_gradient_boosting", "random_forest")
    assert states(tis) == {
        "estimators": State.SUCCESS,
        "decide_retraining": State.SUCCESS,
        "dataset": State.SUCCESS,
        "train-0": State.SUCCESS,
        "train-1": State.FAILED,
        "train-2": State.SUCCESS,
        "evaluate": State.SUCCESS,
        "register": State.SKIPPED,
        "ask_for_approval": State.SKIPPED,
        "rollout": State.SKIPPED,
        "release_request": State.SKIPPED,
    }
    assert tis["train-1"].try_number == 1
    assert tis["release_request"].get_dagrun().state == "success"
    found = tis["evaluate"].xcom_pull(task_ids="evaluate")
    assert set(found["metrics"]) == {"logistic_regression", "random_forest"}
    assert found["dropped_out"].keys() == {"hist_gradient_boosting"}
    why = "hist_gradient_boosting has no parameter no_such_parameter"
    assert why in found["dropped_out"]["hist_gradient_boosting"]
    page = Path(found["report_uri"]).with_suffix(".md").read_text()
    assert f"- hist_gradient_boosting: train: {why}" in page
    # Three were asked for.
    assert found["verdict"]["confidence"] == pytest.approx(1 - 0.1 / 3)


@pytest.mark.long
def test_every_estimator_is_fitted_on_every_window(train: Any, settings: Settings) -> None:
    tis = train("logistic_regression", "mlp", model=WINDOWED)
    found = tis["evaluate"].xcom_pull(task_ids="evaluate")
    # History begins four weeks before: there are no 90 days.
    assert set(found["metrics"]) == {"logistic_regression", "logistic_regression 5d"}
    assert found["dropped_out"].keys() == {"mlp", "mlp 5d"}
    assert found["verdict"]["confidence"] == pytest.approx(1 - 0.1 / 4)
    assert [tis[f"train-{at}"].state for at in range(4)] == [State.SUCCESS, State.FAILED] * 2
    assert tis["train-2"].rendered_map_index == "logistic_regression 5d"


def test_without_a_dataset_no_later_step_runs(train: Any) -> None:
    tis = train("logistic_regression", window_days=3600)
    found = states(tis)
    assert (found["dataset"], found["evaluate"], found["release_request"]) == (
        State.FAILED,
        State.SKIPPED,
        State.FAILED,
    )
    assert State.SUCCESS not in {found.get(step) for step in ("train", "train-0", "register", "rollout")}
    assert tis["release_request"].get_dagrun().state == "failed"


@pytest.mark.long
def test_when_all_estimators_fail_the_run_fails_and_releases_its_request(train: Any) -> None:
    tis = train("hist_gradient_boosting", "mlp")
    assert states(tis) == {
        "estimators": State.SUCCESS,
        "decide_retraining": State.SUCCESS,
        "dataset": State.SUCCESS,
        "train-0": State.FAILED,
        "train-1": State.FAILED,
        "evaluate": State.FAILED,
        "register": State.UPSTREAM_FAILED,
        "ask_for_approval": State.UPSTREAM_FAILED,
        "rollout": State.UPSTREAM_FAILED,
        "release_request": State.FAILED,
    }
    assert tis["release_request"].get_dagrun().state == "failed"
    why = tis["train-1"].xcom_pull(task_ids="train", key="failure", map_indexes=[0, 1])
    assert [each["estimator"] for each in why] == ["hist_gradient_boosting", "mlp"]


@pytest.mark.long
def test_a_part_of_a_search_that_fails_drops_out_and_the_estimator_is_fitted_with_what_the_other_found(
    train: Any,
) -> None:
    tis = train("logistic_regression", "random_forest", model=IN_PARTS)
    assert states(tis) == {
        "estimators": State.SUCCESS,
        "search_parts": State.SUCCESS,
        "decide_retraining": State.SUCCESS,
        "dataset": State.SUCCESS,
        "search-0": State.FAILED,
        "search-1": State.SUCCESS,
        "train-0": State.SUCCESS,
        "train-1": State.SUCCESS,
        "evaluate": State.SUCCESS,
        "register": State.SKIPPED,
        "ask_for_approval": State.SKIPPED,
        "rollout": State.SKIPPED,
        "release_request": State.SKIPPED,
    }
    assert tis["release_request"].get_dagrun().state == "success"
    found = tis["search-1"].xcom_pull(task_ids="search", map_indexes=[1])[0]
    assert (found["estimator"], found["part"]) == ("random_forest", 1)
    (fitted,) = tis["train-1"].xcom_pull(task_ids="train", map_indexes=[1])
    artifact = OnnxModel.load(Path(fitted["artifact_uri"]))
    assert artifact.metadata.parameters["n_estimators"] == found["parameters"]["n_estimators"] > 0


@pytest.mark.long
def test_estimators_without_a_space_are_trained_without_a_search(train: Any) -> None:
    tis = train("logistic_regression", model=IN_PARTS)
    found = states(tis)
    assert (found["search"], found["train-0"], found["evaluate"]) == (State.SKIPPED, State.SUCCESS, State.SUCCESS)


@pytest.mark.long
def test_without_a_dataset_there_is_neither_search_nor_fit(train: Any) -> None:
    tis = train("random_forest", model=IN_PARTS, window_days=3600)
    found = states(tis)
    assert (found["dataset"], found["evaluate"], found["release_request"]) == (
        State.FAILED,
        State.SKIPPED,
        State.FAILED,
    )
    steps = [found.get(name) for name in ("search", "search-0", "train", "train-0", "register", "rollout")]
    assert State.SUCCESS not in steps
    assert tis["release_request"].get_dagrun().state == "failed"
