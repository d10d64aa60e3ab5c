"""The drift step on a real champion: quiet weeks, a planted change, nothing to compare, a step that dies midway."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cases import others_long
from tests.feature_repo.written_by_hand import copy_by_hand
from tests.steps.monitored_model import (
    DRIFTED,
    MODEL,
    QUIET,
    SOURCE,
    START,
    MonitoredModel,
    land,
    settings_in,
)
from tests.steps.prediction_tables import prediction_table
from training.adapters.lake import Lake
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import CHAMPION, Registry, watch
from training.adapters.registry.connection import connect
from training.adapters.tables import Events
from training.contract.base import Days
from training.contract.errors import InputError, TransientError
from training.contract.messages import DatasetInputs, DriftInputs, DriftResult, Snapshot
from training.contract.model_spec import MODELS_DIR, load_model_spec
from training.settings import Settings
from training.steps import dataset, drift
from training.workspace import served_artifact

#: The columns of entities are compared too: an id may take the place of others. So is how long they were known.
ENTITIES = ("customer_id", "terminal_id")
AGES = tuple(f"days since {name} was first seen" for name in ENTITIES)


def _artifacts(world: MonitoredModel, path: str) -> list[str]:
    client = connect(world.settings.tracking_uri)
    return sorted(file.path for file in client.list_artifacts(world.champion.run_id, path))


@pytest.fixture(scope="module")
def quiet(world: MonitoredModel) -> DriftResult:
    """The step's result as of the last quiet day. Other files that share the world have logged predictions in it."""
    shutil.rmtree(Path(world.settings.lake, SOURCE, "predictions"), ignore_errors=True)
    return drift.run(DriftInputs(model=MODEL, as_of=QUIET), world.settings)


@pytest.fixture(scope="module")
def inflated(world: MonitoredModel) -> DriftResult:
    """Its result after the inflation; it resolves `as_of` itself."""
    return drift.run(DriftInputs(model=MODEL), world.settings)


def test_a_quiet_week_is_no_drift(world: MonitoredModel, quiet: DriftResult) -> None:
    result = quiet
    assert result.outcome == "measured"
    assert result.window == Days.ending(QUIET, 7)
    assert result.champion_version == 1
    assert not result.drifted, result.columns
    assert set(result.columns) == {*world.dataset.feature_names, "_score", *ENTITIES, *AGES}
    assert all(column.shift is not None for column in result.columns.values())
    assert result.short_of_history == []
    assert result.table_versions.keys() >= {"events", "labels", "customer_features", "terminal_features"}


def test_inflation_is_found_named_and_kept_with_the_run(world: MonitoredModel, inflated: DriftResult) -> None:
    result = inflated
    assert (result.as_of, result.drifted) == (DRIFTED, True)
    assert result.columns["payment_amount"].drifted
    assert result.columns["_score"].drifted
    assert not result.columns["terminal_count_30d"].drifted
    folder = Path(world.settings.work) / MODEL / "drift" / f"{DRIFTED}-v1"
    assert (result.report_html, result.report_json) == (str(folder / "report.html"), str(folder / "report.json"))
    assert "<html" in (folder / "report.html").read_text()[:2000]
    metrics = json.loads((folder / "report.json").read_text())["metrics"]
    assert len(metrics) == 1 + len(result.columns) - len(ENTITIES)
    assert str(result.columns["payment_amount"].shift) in (folder / "report.html").read_text()
    assert _artifacts(world, f"drift/{DRIFTED}") == [f"drift/{DRIFTED}/report.{end}" for end in ("html", "json")]


@pytest.mark.ci
def test_the_same_inputs_give_the_same_result_and_double_nothing(world: MonitoredModel, inflated: DriftResult) -> None:
    assert drift.run(DriftInputs(model=MODEL, as_of=DRIFTED), world.settings) == inflated
    history = connect(world.settings.tracking_uri).get_metric_history(world.champion.run_id, "drift/share")
    days = [point.step for point in history]
    assert DRIFTED.toordinal() in days
    assert len(days) == len(set(days))


@pytest.mark.long
def test_killed_before_the_report_is_kept_it_does_so_when_run_again(world: MonitoredModel, monkeypatch) -> None:
    day = DRIFTED - timedelta(days=2)

    def unreachable(*_: object) -> None:
        raise TransientError("MLflow did not answer")

    with monkeypatch.context() as patched:
        patched.setattr(watch, "keep", unreachable)
        with pytest.raises(TransientError):
            drift.run(DriftInputs(model=MODEL, as_of=day), world.settings)
    assert _artifacts(world, f"drift/{day}") == []
    result = drift.run(DriftInputs(model=MODEL, as_of=day), world.settings)
    assert result.outcome == "measured"
    assert len(_artifacts(world, f"drift/{day}")) == 2


@pytest.mark.ci
def test_features_that_are_not_defined_any_more_have_their_default_and_are_named(
    world: MonitoredModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = ["customer_count_1d", "night"]
    copy_by_hand(tmp_path / "repo")
    path = tmp_path / "repo" / f"{SOURCE}.py"
    text = path.read_text()
    for name in gone:
        text, count = re.subn(rf'        Field\(name="{name}".*\n', "", text)
        assert count == 1
    path.write_text(text)
    settings = world.settings.model_copy(update={"feature_repo": tmp_path / "repo"})
    result = drift.run(DriftInputs(model=MODEL, as_of=QUIET - timedelta(days=1)), settings)
    assert (result.outcome, result.not_defined) == ("measured", gone)
    assert set(result.columns) == {*world.dataset.feature_names, "_score", *ENTITIES, *AGES}
    assert result.columns["customer_count_1d"].drifted  # it was not always 0
    assert not result.columns["customer_count_7d"].drifted
    said = "not defined any more: customer_count_1d, night"
    assert said in Path(str(result.report_html)).read_text()
    assert "Not defined any more, compared as the default: customer_count_1d, night" in caplog.text


def test_a_removed_feature_without_a_default_is_missing_and_not_0(world: MonitoredModel) -> None:
    """Such as a column of the event. Taken for 0, it would be found to drift."""
    metadata = OnnxModel.load(served_artifact(world.settings, world.champion)).metadata
    assert metadata.features is not None
    optional = metadata.features.model_copy(update={"event_features": ("night",)})
    changed = metadata.model_copy(update={"features": optional})
    made = pd.DataFrame({name: np.ones(3) for name in metadata.feature_names if name not in ("night", "weekend")})
    found, not_defined, missing = drift._features(made, changed, load_model_spec(MODEL))
    assert (sorted(not_defined), missing) == (["night", "weekend"], ["night"])
    assert found["night"].isna().all()
    assert found["weekend"].eq(0).all()


@pytest.fixture
def no_reference(world: MonitoredModel) -> Iterator[None]:
    """The dataset of the champion has just been deleted, and nothing was fetched in its place."""
    folder, away = world.reference.parent, world.reference.parent.with_name("away")
    folder.rename(away)
    yield
    for left in (folder, Path(world.settings.work) / MODEL / "references"):
        shutil.rmtree(left, ignore_errors=True)
    away.rename(folder)


@pytest.fixture
def no_artifact(world: MonitoredModel) -> Iterator[None]:
    kept = Path(world.settings.home) / "mlflow" / MODEL / world.champion.run_id / "artifacts" / "reference"
    kept.rename(kept.with_name("away"))
    yield
    kept.with_name("away").rename(kept)


@pytest.mark.long
def test_without_the_dataset_the_reference_comes_from_the_champions_run(
    world: MonitoredModel, quiet: DriftResult, no_reference: None
) -> None:
    inputs = DriftInputs(model=MODEL, as_of=QUIET)
    assert drift.run(inputs, world.settings) == quiet
    (folder,) = (Path(world.settings.work) / MODEL / "references").iterdir()
    assert [file.name for file in folder.iterdir()] == ["reference.parquet"]
    assert drift.run(inputs, world.settings) == quiet
    # It is no hindrance to making the dataset again, and the comparison is the same with it.
    snapshot = Snapshot(as_of=QUIET, table_versions=world.dataset.table_versions)
    made = dataset.run(DatasetInputs(model=MODEL, snapshot=snapshot), world.settings)
    assert (made, world.reference.is_file()) == (world.dataset, True)
    assert drift.run(inputs, world.settings) == quiet


@pytest.mark.long
def test_the_hint_of_a_reference_that_is_gone_makes_it_again(
    world: MonitoredModel, no_reference: None, no_artifact: None
) -> None:
    # Meanwhile the lake has moved on.
    rows = world.lake.scan("labels").to_table()
    world.lake.replace("labels", rows, "partition = 'all'", ["partition"])
    with pytest.raises(InputError, match=r"neither in .* nor in its run as reference/reference\.parquet") as raised:
        drift.run(DriftInputs(model=MODEL, as_of=QUIET), world.settings)
    (command,) = re.findall(r"`make step STEP=dataset INPUTS='(.*)'`", raised.value.hint)
    dataset.run(DatasetInputs.model_validate_json(command), world.settings)
    assert drift.run(DriftInputs(model=MODEL, as_of=QUIET), world.settings).outcome == "measured"


@pytest.mark.long
@pytest.mark.parametrize(
    ("old", "new", "restorable"),
    [
        ("owner: payments-ml\n", "owner: others\n", True),
        ("  window_days: 14\n", "  window_days: 15\n", True),  # The champion's own window is known.
        ("  holdout_days: 7\n", "  holdout_days: 6\n", False),
    ],
)
def test_the_reference_can_be_made_again_under_another_spec_that_decides_the_same_dataset(
    world: MonitoredModel, no_reference: None, no_artifact: None, tmp_path: Path, old: str, new: str, restorable: bool
) -> None:
    text = (MODELS_DIR / f"{MODEL}.yaml").read_text()
    changed = text.replace(old, new, 1)
    assert changed != text
    (tmp_path / f"{MODEL}.yaml").write_text(changed)
    settings = world.settings.model_copy(update={"models_dir": tmp_path})
    with pytest.raises(InputError, match="neither in") as raised:
        drift.run(DriftInputs(model=MODEL, as_of=QUIET), settings)
    commands = re.findall(r"`make step STEP=dataset INPUTS='(.*)'`", raised.value.hint)
    if not restorable:
        assert raised.value.hint == (
            "The parts of the model spec or the feature definitions that decide the dataset have changed since: "
            f"train a new champion (run {MODEL}_train with Force)."
        )
        return
    dataset.run(DatasetInputs.model_validate_json(commands[0]), settings)
    assert drift.run(DriftInputs(model=MODEL, as_of=QUIET), settings).outcome == "measured"


def test_a_window_with_too_few_events_is_no_data(world: MonitoredModel) -> None:
    result = drift.run(DriftInputs(model=MODEL, as_of=START - timedelta(days=30)), world.settings)
    assert (result.outcome, result.champion_version, result.drifted) == ("no data", 1, False)


def test_the_spec_says_how_many_events_are_too_few(world: MonitoredModel, tmp_path: Path) -> None:
    text = (MODELS_DIR / f"{MODEL}.yaml").read_text()
    (tmp_path / f"{MODEL}.yaml").write_text(text.replace("minimum_rows: 1000\n", "minimum_rows: 1000000\n"))
    settings = world.settings.model_copy(update={"models_dir": tmp_path})
    assert drift.run(DriftInputs(model=MODEL, as_of=QUIET), settings).outcome == "no data"


def test_without_events_there_is_no_data(tmp_path: Path) -> None:
    result = drift.run(DriftInputs(model=MODEL), settings_in(tmp_path))
    assert (result.outcome, result.as_of) == ("no data", None)


@pytest.fixture
def no_champion(world: MonitoredModel) -> Iterator[str]:
    """The tracking URI of a registry whose champion has just been taken away."""
    registry = Registry(world.settings.tracking_uri)
    registry.remove_alias(MODEL, CHAMPION)
    yield world.settings.tracking_uri
    registry.set_alias(MODEL, CHAMPION, world.champion.version)


@pytest.mark.long
def test_without_a_champion_nothing_heavy_imported(tmp_path: Path, no_champion: str) -> None:
    settings = settings_in(tmp_path).model_copy(update={"tracking_uri": no_champion})
    land(settings, Days.ending(DRIFTED, 3), customers=20)
    program = (
        "import sys; from training.contract.messages import DriftInputs; from training.settings import Settings\n"
        "from training.steps import drift\n"
        "result = drift.run(DriftInputs(model='card_fraud'), Settings(home=sys.argv[1], tracking_uri=sys.argv[2]))\n"
        "print(result.outcome, result.as_of)\n"
        "print(sorted({'evidently', 'feast', 'onnxruntime', 'torch'} & set(sys.modules)))"
    )
    arguments = [sys.executable, "-W", "ignore", "-c", program, str(settings.home), settings.tracking_uri]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [f"no champion {DRIFTED}", "[]"]


def test_mlflow_that_does_not_answer_is_worth_a_retry(tmp_path: Path) -> None:
    settings = settings_in(tmp_path).model_copy(update={"tracking_uri": "http://127.0.0.1:9"})
    land(settings, Days.ending(DRIFTED, 1), customers=20)
    with pytest.raises(TransientError):
        drift.run(DriftInputs(model=MODEL), settings)


@pytest.mark.long
@pytest.mark.parametrize(("moved", "drifted"), others_long([(True, True), (False, False)]))
def test_logged_outputs_are_compared_with_those_of_the_holdout(
    world: MonitoredModel, tmp_path: Path, moved: bool, drifted: bool
) -> None:
    """The features of the week are quiet: only what the service answered tells that something is wrong with it."""
    settings = world.settings.model_copy(update={"home": tmp_path / "home"})
    shutil.copytree(world.settings.home, settings.home)
    settings = Settings(home=settings.home, tracking_uri=world.settings.tracking_uri)
    spec, lake = load_model_spec(MODEL), Lake(settings.lake, "card_payments", MODEL)
    events = Events(lake, spec.source, lake.version("events") or 0).within(Days.ending(QUIET, 7))
    champion = Registry(settings.tracking_uri).get(MODEL, 1)
    [scores] = OnnxModel.load(served_artifact(settings, champion)).metadata.holdout_outputs.values()
    answers = np.resize(np.random.default_rng(0).permutation(np.array(scores, float)), len(events))
    rows = events.assign(score=answers + 0.3 if moved else answers)
    # Of two answers to an event the first counts.
    rows = rows.assign(predicted_at=events["event_time"])
    again = rows.assign(
        score=answers if moved else answers + 0.3, predicted_at=events["event_time"] + timedelta(hours=1)
    )
    lake.overwrite("predictions", prediction_table(spec, pd.concat([again, rows], ignore_index=True)), ["day"])
    result = drift.run(DriftInputs(model=MODEL, as_of=QUIET), settings)
    assert (result.columns["_score"].drifted, result.drifted) == (drifted, drifted)
    assert "outputs: logged" in Path(str(result.report_html)).read_text()
    lake.overwrite("predictions", prediction_table(spec, rows.head(20)), ["day"])
    computed = drift.run(DriftInputs(model=MODEL, as_of=QUIET, run="again"), settings)
    assert not computed.drifted
    assert "outputs: computed" in Path(str(computed.report_html)).read_text()


@pytest.mark.long
def test_a_declared_year_compares_with_the_same_week_before(
    world: MonitoredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The world has twelve weeks, so a year of it has one."""
    text = (MODELS_DIR / f"{MODEL}.yaml").read_text()
    seasonal = text.replace("  minimum_rows: 1000\n", "  minimum_rows: 1000\n  seasonality: [year, hour_of_day]\n")
    (tmp_path / f"{MODEL}.yaml").write_text(seasonal)
    settings = world.settings.model_copy(update={"models_dir": tmp_path})
    monkeypatch.setattr(drift, "YEAR", timedelta(days=7))
    inflated = drift.run(DriftInputs(model=MODEL, as_of=DRIFTED), settings)
    assert inflated.columns["payment_amount"].drifted
    assert "reference: a year before" in Path(str(inflated.report_html)).read_text()
    # Beyond the first event there is nothing to compare with but the training rows.
    monkeypatch.setattr(drift, "YEAR", timedelta(days=364))
    result = drift.run(DriftInputs(model=MODEL, as_of=QUIET), settings)
    assert (result.outcome, result.drifted) == ("measured", False)
    assert "reference: the training rows of" in Path(str(result.report_html)).read_text()
