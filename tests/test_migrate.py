"""State and specs of the layout before sources had specs of their own become those of this one, killed or not."""

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
import yaml

from testing.spec_files import MODEL, SOURCE, raw_specs
from tests.feature_repo.payments_and_features import compute, day, payments, put, rows_of
from tests.steps.prediction_tables import prediction_table
from training import storage
from training.adapters.features import Features, OnlineRows
from training.adapters.lake import EVENTS, PREDICTIONS, Lake
from training.adapters.ledger import Ledger
from training.adapters.logged_predictions import Predictions
from training.contract.base import Days
from training.contract.errors import ConfigError, ExitCode
from training.contract.messages import DatasetInputs, FeaturesInputs
from training.contract.model_spec import ModelSpec, load_model_spec
from training.contract.source_spec import SOURCES_DIR
from training.layout import MARKER, layout_of, require_layout
from training.migrate import migrate
from training.runner import run_step
from training.settings import Settings
from training.steps import dataset, features

DAYS = 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, pd.DataFrame, Path]:
    """A home as the version before left it, its events, and a copy of this home."""
    folder = tmp_path_factory.mktemp("older")
    settings, spec = Settings(home=folder / "home"), load_model_spec(MODEL)
    events, labels = payments(DAYS, per_day=100, entities=3000)
    put(settings, events, labels)
    OnlineRows(settings, spec.source).materialize(compute(settings, 0, DAYS + 1))
    lake = Lake(settings.lake, SOURCE, MODEL)
    lake.overwrite(PREDICTIONS, prediction_table(spec, events.assign(score=0.5)), ["day"])
    Ledger(settings.ledger).append("request", MODEL, {"id": "r"}, "r")
    landed = Path(settings.landing, MODEL, "events", "2026-01-05.parquet")
    landed.parent.mkdir(parents=True)
    landed.write_bytes(b"rows")
    home, old = Path(settings.lake), Path(settings.lake, MODEL)
    (home / SOURCE / PREDICTIONS / MODEL).rename(home / "predictions")
    (home / SOURCE / PREDICTIONS).rmdir()
    (home / SOURCE).rename(old)
    (home / "predictions").rename(old / PREDICTIONS)
    feast = Path(settings.feature_registry).parent
    for ending in ("online.json", "applied"):
        (feast / f"{SOURCE}.{ending}").rename(feast / f"{MODEL}.{ending}")
    for folder in (settings.lake, settings.ledger):
        Path(folder, MARKER).unlink()
    kept = tmp_path_factory.mktemp("kept") / "home"
    shutil.copytree(settings.home, kept)
    return settings, events, kept


@pytest.fixture
def older(made: tuple[Settings, pd.DataFrame, Path]) -> tuple[Settings, pd.DataFrame]:
    """The home in its place, as it was made, for the registry of features names where it lies; and its events."""
    settings, events, kept = made
    shutil.rmtree(settings.home)
    shutil.copytree(kept, settings.home)
    return settings, events


def files(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}


def check_whole(settings: Settings, spec: ModelSpec, events: pd.DataFrame) -> None:
    """Everything is found where this version looks, and its steps go on."""
    require_layout(settings)
    lake = Lake(settings.lake, SOURCE, MODEL)
    assert not Path(settings.lake, MODEL).exists()
    assert lake.scan(EVENTS).count_rows() == len(events)
    logged = Predictions(lake, spec, lake.version(PREDICTIONS))
    days = Days(start=day(0), end=day(DAYS))
    assert len(logged.answered(days, ["transaction_id"])) == len(events)
    assert [entry.key for entry in Ledger(settings.ledger).entries(MODEL)] == ["r"]
    assert Path(settings.landing, SOURCE, "events", "2026-01-05.parquet").read_bytes() == b"rows"
    assert not Path(settings.landing, MODEL).exists()


def test_a_step_on_older_state_names_the_migration(
    older: tuple[Settings, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = older
    monkeypatch.setenv("CT_HOME", str(settings.home))
    report = tmp_path / "report.json"
    assert run_step("drift", json.dumps({"model": MODEL}), str(report)) == ExitCode.BAD_CONFIG
    error = json.loads(report.read_text())["error"]
    assert f"The lake at {settings.lake} has layout 1, this version needs 2" in error["message"]
    assert "make migrate" in error["hint"]


def test_a_dry_run_shows_all_and_changes_nothing(
    older: tuple[Settings, pd.DataFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    settings, _ = older
    before = files(settings.home)
    shown = migrate(settings, apply=False)
    assert files(settings.home) == before
    assert capsys.readouterr().out.splitlines() == shown
    assert f"move {settings.lake}/{MODEL}/events to {settings.lake}/{SOURCE}/events" in shown
    assert f"mark {settings.ledger} as layout 2" in shown


def test_the_steps_go_on_after_the_migration(older: tuple[Settings, pd.DataFrame], spec: ModelSpec) -> None:
    settings, events = older
    migrate(settings, apply=True)
    check_whole(settings, spec, events)
    assert migrate(settings, apply=True) == []
    lake = Lake(settings.lake, SOURCE, MODEL)
    before = rows_of(settings, "customer_features")
    inputs = FeaturesInputs(source=SOURCE, days=None, table_versions=lake.versions("events", "labels"))
    versions = features.run(inputs, settings).table_versions
    pd.testing.assert_frame_equal(rows_of(settings, "customer_features"), before)
    OnlineRows(settings, spec.source).materialize(versions | lake.versions(*spec.source.entities))
    tomorrow = events.tail(5)["event_time"] + timedelta(days=1)
    rows = events.tail(5).assign(event_time=tomorrow).to_dict("records")
    assert any(Features(settings, spec).online(rows).timestamps)
    made = dataset.run(DatasetInputs(model=MODEL, as_of=day(DAYS)), settings)
    assert made.train.rows > 100


@pytest.mark.ci
def test_it_goes_on_wherever_it_was_killed(
    older: tuple[Settings, pd.DataFrame], spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, events = older
    kept = tmp_path / "kept"
    shutil.copytree(settings.home, kept)
    moves, move = len(migrate(settings, apply=False)), storage.move
    for killed_after in range(moves):
        left = [killed_after]

        def dying(source: str, target: str, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            move(source, target)

        with monkeypatch.context() as patched:
            patched.setattr(storage, "move", dying)
            try:
                migrate(settings, apply=True)
            except KeyboardInterrupt:
                assert layout_of(settings.lake) == 1
        migrate(settings, apply=True)
        check_whole(settings, spec, events)
        shutil.rmtree(settings.home)
        shutil.copytree(kept, settings.home)


def test_a_spec_of_one_file_is_split_and_its_predictions_get_their_own_folder(
    older: tuple[Settings, pd.DataFrame], tmp_path: Path
) -> None:
    settings, events = older
    model, source = raw_specs()
    one = {name: each for name, each in model.items() if name not in ("source", "label", "features", "task")}
    one |= {
        "feeds": {
            feed: {name: each for name, each in fields.items() if name != "id_column"}
            for feed, fields in source["feeds"].items()
        },
        "label": {"column": "is_fraud", "id_column": "transaction_id", "delay_days": 7},
        "features": {"service": MODEL, "history_days": 38, "tables": {"customer_features": "customer_id"}},
        "decision": {"alert_rate": 0.01},
        "drift": one.pop("monitoring") | {"maximum_drifted_share": 0.25},
        "schedule": {"train": "@weekly", "drift": "@daily"},
        "resources": {"default": {"cpu": "2"}, "steps": {"ingest": {"memory": "8Gi"}, "train": {"memory": "16Gi"}}},
    }
    one["evaluation"]["floors"] = one["evaluation"].pop("limits")
    one["evaluation"]["margins"] = {"card_precision_at_k": 0.02}
    models, repo = tmp_path / "models", tmp_path / "repo"
    models.mkdir()
    repo.mkdir()
    text = yaml.safe_dump(one, sort_keys=False).replace("\ntraining:\n", "\n# About a fortnight.\ntraining:\n")
    (models / f"{MODEL}.yaml").write_text(text)
    shutil.copy(SOURCES_DIR / f"{SOURCE}.py", repo / f"{MODEL}.py")
    mine = settings.model_copy(update={"models_dir": models, "feature_repo": repo})
    with pytest.raises(ConfigError, match="it is a spec of the layout before") as raised:
        load_model_spec(MODEL, models, repo)
    assert "make migrate" in raised.value.hint
    migrate(mine, apply=True)
    spec = load_model_spec(MODEL, models, repo)
    assert (spec.source.name, spec.label_spec.delay_days, spec.task.decision.alert_rate) == (MODEL, 7, 0.01)
    assert spec.evaluation.margins == {"precision_at_k": 0.02}
    assert (spec.schedule.monitor, spec.monitoring.maximum_drifted_share) == ("@daily", 0.25)
    for each, step, memory in ((spec.source, "ingest", "8Gi"), (spec, "train", "16Gi")):
        assert (each.resources.of(step).memory, each.resources.default.cpu) == (memory, "2")
        assert set(each.resources.steps) == {step}
    assert "# About a fortnight.\n" in (models / f"{MODEL}.yaml").read_text()
    lake = Lake(mine.lake, MODEL, MODEL)
    assert lake.scan(EVENTS).count_rows() == lake.scan(PREDICTIONS).count_rows() == len(events)
    assert migrate(mine, apply=True) == []


def test_state_of_a_later_version_is_refused(settings: Settings) -> None:
    put(settings, *payments(2))
    Path(settings.lake, MARKER).write_text('{"version": 3}')
    with pytest.raises(ConfigError, match="has layout 3, this version knows only 2"):
        require_layout(settings)


def test_a_volume_with_nothing_but_lost_and_found_is_new(settings: Settings) -> None:
    for folder in (settings.lake, settings.ledger):
        Path(folder, "lost+found").mkdir(parents=True)
    assert layout_of(settings.lake) is None
    require_layout(settings)
    put(settings, *payments(2))
    assert layout_of(settings.lake) == 2
    assert migrate(settings, apply=False) == []
