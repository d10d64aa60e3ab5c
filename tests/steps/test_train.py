"""Training: what a run leaves behind, that it is made once, and what it refuses."""

import json
import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from requests import RequestException

from tests.cases import others_in_ci, others_long
from tests.steps.training_rows import NAMES, START, definitions, write_dataset
from training import code, fit_job
from training.adapters import plots
from training.adapters.onnx_model import OnnxModel
from training.adapters.plots import draw
from training.adapters.registry import Registry, Runs
from training.contract.base import Days
from training.contract.errors import ConfigError, DataContractError, InputError, TransientError
from training.contract.messages import TrainingWindow, TrainInputs, TrainResult
from training.contract.model_spec import load_model_spec
from training.contract.tasks import BinaryTask
from training.domain.charts import Chart, Cloud, Histogram
from training.domain.importance import importance_chart
from training.domain.parity import PARITY_TOLERANCE
from training.domain.task_kind import task_of
from training.domain.tasks.binary import ServedBinary
from training.fit_job import FitJob
from training.settings import Settings
from training.steps import train


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Path:
    folder = tmp_path_factory.mktemp("train")
    shutil.copy(mlflow_database, folder)
    return folder


@pytest.fixture(scope="module")
def at(place: Path) -> Settings:
    """One MLflow for the module."""
    return Settings(home=place / "home", tracking_uri=f"sqlite:///{place}/mlflow.db")


@pytest.fixture(scope="module")
def uri(place: Path) -> str:
    return write_dataset(place / "dataset")


def inputs(uri: str, **changes) -> TrainInputs:  # type: ignore[no-untyped-def]
    given = {"model": "card_fraud", "estimator": "hist_gradient_boosting", "parameters": {"max_iter": 20}}
    return TrainInputs(**{**given, "dataset_uri": uri, "seed": 1, "reason": "test", **changes})


@pytest.fixture(scope="module")
def result(uri: str, at: Settings) -> TrainResult:
    """With its charts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "draw", draw)
        return train.run(inputs(uri), at)


def client_of(at: Settings):  # type: ignore[no-untyped-def]
    return Registry(at.tracking_uri)._client


def runs_of(at: Settings) -> list:
    client = client_of(at)
    return client.search_runs([client.get_experiment_by_name("card_fraud").experiment_id])


def test_the_artifact_says_what_it_was_made_of(result: TrainResult) -> None:
    model = OnnxModel.load(Path(result.artifact_uri))
    metadata = model.metadata
    assert metadata.digest == result.digest
    assert metadata.feature_names == NAMES
    assert metadata.table_versions["events"] == 3
    assert metadata.parameters["max_iter"] == 20
    assert metadata.holdout_metrics["roc_auc"] > 0.7
    assert len(metadata.golden.scores) == 20
    assert (metadata.schema_version, metadata.features) == (3, definitions(NAMES))
    assert [set(event) for event in metadata.golden.events] == [
        {"transaction_id", "event_time", "customer_id", "terminal_id", "amount"}
    ] * 20
    assert datetime.fromisoformat(metadata.golden.events[0]["event_time"]).tzinfo is not None
    for batch, features in zip(metadata.golden.batch, metadata.golden.features, strict=True):
        assert [batch[name] for name in NAMES[1:]] == features[1:]
    model.check_golden()
    assert result.parity <= PARITY_TOLERANCE


def test_the_threshold_meets_the_alert_rate_on_the_holdout(result: TrainResult, uri: str) -> None:
    model = OnnxModel.load(Path(result.artifact_uri))
    holdout = pq.read_table(f"{uri}/holdout.parquet")
    scores = model.score(np.column_stack([holdout[name].to_numpy() for name in NAMES]))
    # Twenty trees give many rows the very same highest score; more cannot be told apart.
    tied = (scores == scores.max()).sum()
    assert (model.metadata.task["kind"], model.metadata.outputs) == ("binary", ["score"])
    assert 0 < (scores >= model.metadata.task["threshold"]).sum() <= max(0.005 * len(scores), tied)


def test_the_run_holds_everything(result: TrainResult, at: Settings, tmp_path: Path) -> None:
    client = client_of(at)
    run = client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "hist_gradient_boosting"
    assert run.data.params["max_iter"] == "20"
    assert {*BinaryTask.METRICS, "threshold", "parity"} <= set(run.data.metrics)
    assert run.data.tags["device"] == result.device
    assert float(run.data.tags["fit_seconds"]) == result.fit_seconds
    assert run.data.tags["reason"] == "test"
    assert run.data.tags["table.events"] == "3"
    assert len(run.inputs.dataset_inputs) == 2
    files = [
        file.path
        for folder in ("plots", "reference", "served")
        for file in client.list_artifacts(result.run_id, folder)
    ]
    for name in ("plots/pr_curve.png", "plots/calibration.png", "plots/feature_importance.png", "served/model.onnx"):
        assert name in files
    assert "reference/reference.parquet" in files
    chart = Path(client.download_artifacts(result.run_id, "plots/pr_curve.png", str(tmp_path)))
    assert chart.read_bytes().startswith(b"\x89PNG")
    (logged,) = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{result.run_id}'")
    assert str(logged.status) == "READY"


def test_the_same_inputs_give_the_same_run(result: TrainResult, uri: str, at: Settings) -> None:
    before = len(runs_of(at))
    assert train.run(inputs(uri, reason="another reason"), at) == result
    assert len(runs_of(at)) == before
    shutil.rmtree(result.artifact_uri)
    assert train.run(inputs(uri), at) == result
    OnnxModel.load(Path(result.artifact_uri)).check_golden()


def test_another_commit_is_no_reason_to_train_again(result: TrainResult, uri: str, at: Settings) -> None:
    elsewhere = at.model_copy(update={"git_sha": "0123456"})
    assert train.run(inputs(uri), elsewhere) == result


def test_an_edited_estimator_trains_anew_though_nothing_was_committed(
    result: TrainResult, uri: str, at: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(code.PACKAGE, tmp_path / "training")
    monkeypatch.setattr(code, "PACKAGE", tmp_path / "training")
    assert train.run(inputs(uri), at) == result
    with (tmp_path / "training" / "estimators" / "base" / "graph.py").open("a") as file:
        file.write("# edited\n")
    assert train.run(inputs(uri), at).run_id != result.run_id


@pytest.mark.ci
def test_another_library_trains_anew(
    result: TrainResult, uri: str, at: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_job, "version", lambda name: "99.0" if name == "scikit-learn" else version(name))
    assert train.run(inputs(uri), at).run_id != result.run_id


@pytest.fixture(scope="module")
def two_windows(place: Path) -> str:
    """Of the seven days: all, and the last two, which are after a change."""
    end = START + timedelta(days=7)
    days = {"": Days(start=START, end=end), "since_change": Days.ending(end, 2)}
    windows = [TrainingWindow(name=name, days=of, rows=1) for name, of in days.items()]
    return write_dataset(place / "two-windows", windows=windows, change=days["since_change"].start)


def test_a_window_is_fitted_on_its_days_and_the_artifact_says_so(
    two_windows: str, result: TrainResult, at: Settings
) -> None:
    # Both datasets have the same rows.
    whole, since = result, train.run(inputs(two_windows, window="since_change"), at)
    assert (whole.window, since.window) == ("", "since_change")
    assert whole.digest != since.digest
    found = {each.window: OnnxModel.load(Path(each.artifact_uri)).metadata for each in (whole, since)}
    assert {name: len(metadata.train_days) for name, metadata in found.items()} == {"": 7, "since_change": 2}
    assert found["since_change"].train_days.start == found["since_change"].change == START + timedelta(days=5)
    assert found["since_change"].known_since == START
    # They are measured on the same holdout.
    assert found[""].holdout_days == found["since_change"].holdout_days
    run = client_of(at).get_run(since.run_id)
    assert (run.data.tags["window"], run.info.run_name) == ("since_change", "hist_gradient_boosting since_change")


@pytest.mark.ci
def test_the_reference_of_drift_is_of_the_windows_rows(two_windows: str, at: Settings, tmp_path: Path) -> None:
    references = {}
    for name in ("", "since_change"):
        fitted = train.run(inputs(two_windows, window=name), at)
        path = client_of(at).download_artifacts(fitted.run_id, "reference/reference.parquet", str(tmp_path))
        references[name] = pq.read_table(path, columns=NAMES).to_pandas()
    rows = pq.read_table(Path(two_windows, "train.parquet")).to_pandas()
    newest = rows[rows["event_time"] >= str(START + timedelta(days=5))][NAMES].reset_index(drop=True)
    assert len(references[""]) == len(rows)
    assert references["since_change"].equals(newest)


def test_a_window_that_the_dataset_does_not_have_is_an_input_error(uri: str, at: Settings) -> None:
    with pytest.raises(InputError, match="has no window 'since_change'") as raised:
        train.run(inputs(uri, window="since_change"), at)
    assert raised.value.hint == "It has ''."


def test_the_artifact_keeps_what_the_model_lost_on_each_day_of_the_holdout(result: TrainResult) -> None:
    metadata = OnnxModel.load(Path(result.artifact_uri)).metadata
    losses = metadata.holdout_losses
    assert len(losses) == len(metadata.holdout_days)
    assert {metadata.holdout_days.start, metadata.holdout_days.end - timedelta(days=1)} <= losses.keys()
    rows = sum(each.rows for each in losses.values())
    mean = sum(each.rows * each.mean for each in losses.values()) / rows
    assert mean == pytest.approx(metadata.holdout_metrics["log_loss"], rel=1e-6)


@pytest.mark.ci
def test_other_inputs_give_another_run(result: TrainResult, uri: str, at: Settings) -> None:
    other = train.run(inputs(uri, parameters={"max_iter": 21}), at)
    assert other.run_id != result.run_id
    assert other.digest != result.digest


@pytest.mark.parametrize("broken", others_long(["log_model", "log_dataset", "finish"]))
def test_killed_midway_and_run_again(uri: str, at: Settings, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Whatever was not yet logged when the step was killed is logged by the next, in the same run."""
    mine = inputs(uri, estimator="logistic_regression", parameters={}, seed=len(broken))
    before = len(runs_of(at))

    def killed(*args: object, **kwargs: object) -> None:
        raise TransientError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(Runs, broken, killed)
        # A process that is killed cannot say that it failed either.
        patched.setattr(Runs, "fail", lambda *args: None)
        with pytest.raises(TransientError):
            train.run(mine, at)
    result = train.run(mine, at)
    client = client_of(at)
    assert len(runs_of(at)) == before + 1
    run = client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(result.run_id, "roc_auc")) == 1
    assert len(client.search_logged_models([run.info.experiment_id], f"source_run_id = '{result.run_id}'")) == 1


@pytest.mark.long
def test_another_try_on_another_device_takes_the_run_up(
    uri: str, at: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = inputs(uri, seed=77)

    def killed(*args: object, **kwargs: object) -> None:
        raise TransientError("killed")

    fit = FitJob.fit

    def elsewhere(*args: Any) -> tuple[Any, float]:
        fitted, seconds = fit(*args)
        return replace(fitted, device="cuda"), seconds + 60

    with monkeypatch.context() as patched:
        patched.setattr(Runs, "log_dataset", killed)
        patched.setattr(FitJob, "fit", elsewhere)
        with pytest.raises(TransientError):
            train.run(mine, at)
    result = train.run(mine, at)
    tags = client_of(at).get_run(result.run_id).data.tags
    assert (tags["device"], float(tags["fit_seconds"])) == (result.device, result.fit_seconds)
    assert result.fit_seconds < 60


def test_the_error_is_told_though_mlflow_went_away_with_it(
    at: Settings, place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uri = write_dataset(place / "one-kind-and-no-mlflow")
    _change(Path(uri, "train.parquet"), "is_fraud", 0)

    def gone(*args: object, **kwargs: object) -> None:
        raise RequestException("connection refused")

    monkeypatch.setattr(type(client_of(at)), "set_terminated", gone)
    with pytest.raises(DataContractError, match="both must occur"):
        train.run(inputs(uri), at)
    assert "Could not mark run" in caplog.text
    assert "connection refused" in caplog.text


def test_a_step_that_fails_says_so_in_mlflow(at: Settings, place: Path) -> None:
    uri = write_dataset(place / "one-kind")
    _change(Path(uri, "train.parquet"), "is_fraud", 0)
    with pytest.raises(DataContractError, match="both must occur"):
        train.run(inputs(uri), at)
    assert runs_of(at)[0].info.status == "FAILED"


@pytest.mark.parametrize("split", others_in_ci(["train", "holdout"]))
def test_features_that_are_not_finite_are_refused(at: Settings, place: Path, split: str) -> None:
    uri = write_dataset(place / f"not-finite-{split}")
    _change(Path(uri, f"{split}.parquet"), "amount", float("nan"))
    with pytest.raises(DataContractError, match=r"amount \(2800 rows\)"):
        train.run(inputs(uri), at)


def test_a_dataset_that_is_not_there(at: Settings, place: Path) -> None:
    with pytest.raises(InputError, match=r"No dataset at .*dataset\.json"):
        train.run(inputs(str(place / "nowhere")), at)


def test_a_dataset_from_before_it_held_the_events_is_made_again(at: Settings, place: Path) -> None:
    uri = write_dataset(place / "old")
    Path(uri, "requests.parquet").unlink()
    with pytest.raises(InputError, match=r"requests\.parquet is gone.*\n.*dataset step"):
        train.run(inputs(uri), at)


def test_an_unknown_parameter_is_a_configuration_error(at: Settings, uri: str) -> None:
    with pytest.raises(ConfigError, match="no parameter leaves"):
        train.run(inputs(uri, parameters={"leaves": 3}), at)


def test_plots_of_scores_that_are_all_equal(tmp_path: Path) -> None:
    labels = np.array([0, 1, 0, 1])
    task = task_of(load_model_spec("card_fraud"))
    charts = task.charts(labels, np.zeros(4), ServedBinary(0.5))
    draw(tmp_path, [*charts, importance_chart({"a": 0.0, "b": -0.1}, "average_precision")])
    names = ["calibration", "confusion_matrix", "feature_importance", "pr_curve", "roc_curve"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.png" for name in names]


def test_plots_of_numbers(tmp_path: Path) -> None:
    predicted, errors = np.array([1.0, 2.0, 2.0]), np.array([0.5, -0.5, 0.0])
    parts = {"cloud": Cloud(predicted, predicted + errors), "histogram": Histogram(errors)}
    draw(tmp_path, [Chart(name, name, "x", "y", (part,)) for name, part in parts.items()])
    assert {path.stem for path in tmp_path.iterdir()} == set(parts)


def _change(path: Path, column: str, value: float) -> None:
    table = pq.read_table(path)
    at = table.column_names.index(column)
    values = pa.array([value] * len(table), table.schema.field(column).type)
    pq.write_table(table.set_column(at, column, values), path)


def test_importance_is_kept_as_numbers_too(result: TrainResult, at: Settings, tmp_path: Path) -> None:
    path = client_of(at).download_artifacts(result.run_id, "plots/feature_importance.json", str(tmp_path))
    importance = json.loads(Path(path).read_text())
    assert set(importance) == set(NAMES)
    assert importance["amount"] > importance["night"]
