"""What retention deletes, and that it never deletes what a registered version needs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from testing.serving_stack import changed
from tests.steps.monitored_model import MODEL, SOURCE, MonitoredModel, copied
from training.adapters.lake import Lake
from training.adapters.ledger import Ledger
from training.adapters.registry import Registry, Runs
from training.contract.errors import DataContractError
from training.contract.life import EVENTS
from training.contract.messages import CleanModelInputs, CleanSourceInputs, ReproduceInputs
from training.settings import Settings
from training.steps import clean_model, clean_source, reproduce


def in_days(days: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


@pytest.fixture
def place(world: MonitoredModel, tmp_path: Path) -> Settings:
    """A copy of the world."""
    return copied(world, tmp_path)


@pytest.fixture
def changing(place: Settings) -> None:
    """The tables of the place have three versions more: the first of them was registered by nobody."""
    for table in ("events", "customer_features"):
        delta = DeltaTable(Lake(place.lake, SOURCE).uri(table))
        for left in (5, 4, 3):
            delta.delete(f"customer_id % 7 = {left}")


def readable(settings: Settings, table: str, version: int) -> bool:
    try:
        Lake(settings.lake, SOURCE).scan(table, version).to_table()
    except (DataContractError, OSError):
        return False
    return True


@pytest.mark.long
@pytest.mark.usefixtures("changing")
def test_the_lake_keeps_what_a_registered_version_was_made_of_and_it_can_be_made_again(place: Settings) -> None:
    pinned = Registry(place.tracking_uri).by_alias(MODEL, "champion")
    assert pinned is not None
    newest = Lake(place.lake, SOURCE).version("events")
    assert newest == 4
    later = {"source": SOURCE, "now": in_days(40)}

    planned = clean_source.run(CleanSourceInputs(**later, dry_run=True), place)
    assert all(readable(place, "events", version) for version in range(1, 5))
    done = clean_source.run(CleanSourceInputs(**later), place)

    assert done == planned
    assert done.deleted["events"] > 0
    assert done.kept_versions["events"] == 1
    assert [readable(place, "events", version) for version in range(1, 5)] == [True, False, False, True]
    assert [readable(place, "customer_features", version) for version in (1, 2, 4)] == [True, False, True]
    assert reproduce.run(ReproduceInputs(model=MODEL), place).outcome == "same"
    assert clean_source.run(CleanSourceInputs(**later), place).kept_versions == done.kept_versions


@pytest.mark.usefixtures("changing")
def test_what_is_young_stays(place: Settings) -> None:
    done = clean_source.run(CleanSourceInputs(source=SOURCE, now=in_days(20)), place)
    assert not sum(done.deleted.values())
    assert all(readable(place, "events", version) for version in range(1, 5))
    folders = clean_model.run(CleanModelInputs(model=MODEL, now=in_days(20)), place).deleted
    assert not sum(folders.values())


@pytest.mark.usefixtures("changing")
def test_a_version_that_does_not_say_what_it_was_made_of_stops_the_deletion(place: Settings, tmp_path: Path) -> None:
    registry, runs = Registry(place.tracking_uri), Runs(place.tracking_uri, MODEL, str(tmp_path / "artifacts"))
    registry.register(MODEL, runs.begin("by hand", "by hand", {}).run_id, "0" * 64, {})
    with pytest.raises(DataContractError, match="does not say of which table versions it is"):
        clean_source.run(CleanSourceInputs(source=SOURCE, now=in_days(40)), place)
    assert readable(place, "events", 2)


@pytest.mark.usefixtures("changing")
@pytest.mark.ci
def test_a_model_without_a_spec_keeps_what_it_needs(place: Settings, tmp_path: Path) -> None:
    """Its versions may be made again when its spec comes back."""
    models = tmp_path / "models"
    models.mkdir()
    settings = changed(place, models_dir=models)
    done = clean_source.run(CleanSourceInputs(source=SOURCE, now=in_days(40)), settings)
    assert done.kept_versions["events"] == 1
    assert readable(place, "events", 1)


def test_artifacts_of_runs_that_nobody_registered_go_and_their_training_can_run_again(
    place: Settings, tmp_path: Path
) -> None:
    runs = Runs(place.tracking_uri, MODEL, str(tmp_path / "artifacts"))
    champion = Registry(place.tracking_uri).by_alias(MODEL, "champion")
    assert champion is not None
    begun = runs.begin("a candidate", "fingerprint-1", {})
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "big.bin").write_bytes(b"0" * 1000)
    runs.log_files(begun.run_id, tmp_path / "files", "served")
    runs.finish(begun, {"some": "result"})
    unfinished = runs.begin("a candidate", "fingerprint-2", {})

    planned = clean_model.run(CleanModelInputs(model=MODEL, now=in_days(100), dry_run=True), place)
    assert runs.begin("a candidate", "fingerprint-1", {}).result == {"some": "result"}
    done = clean_model.run(CleanModelInputs(model=MODEL, now=in_days(100)), place)

    assert done.deleted["runs"] == planned.deleted["runs"] == 1
    again = runs.begin("a candidate", "fingerprint-1", {})
    assert (again.run_id != begun.run_id, again.result) == (True, None)
    assert "artifacts_deleted" in runs.tags(begun.run_id)
    assert not list((tmp_path / "artifacts").rglob("big.bin"))
    assert runs.begin("a candidate", "fingerprint-2", {}).run_id == unfinished.run_id
    runs.fetch(champion.run_id, champion.digest, tmp_path / "champion", 100)
    assert clean_model.run(CleanModelInputs(model=MODEL, now=in_days(100)), place).deleted["runs"] == 0


def test_work_files_go_before_reports_and_the_ledger_stays(place: Settings) -> None:
    work = Path(place.work) / MODEL
    events = Path(place.work, EVENTS, "models", MODEL)
    events.mkdir(parents=True)
    (events / "event.json").write_text("{}")
    for folder in ("datasets/d1", "artifacts/a1", "drift/2026-01-01-v1", "evidence/1"):
        (work / folder).mkdir(parents=True, exist_ok=True)
        (work / folder / "file").write_text("content")
    (work / "snapshots").mkdir(exist_ok=True)
    (work / "snapshots" / "run.json").write_text("{}")
    Ledger(place.ledger).append("note", MODEL, {}, "kept")

    clean_model.run(CleanModelInputs(model=MODEL, now=in_days(31)), place)

    assert not list(work.glob("datasets/*"))
    assert not list(work.glob("artifacts/*"))
    assert not (work / "snapshots" / "run.json").exists()
    assert (work / "drift" / "2026-01-01-v1" / "file").is_file()
    assert (events / "event.json").is_file()
    clean_model.run(CleanModelInputs(model=MODEL, now=in_days(366)), place)
    assert not (work / "drift" / "2026-01-01-v1").exists()
    assert not (events / "event.json").exists()
    # As the version that it is of.
    assert (work / "evidence" / "1" / "file").is_file()
    assert any(entry.kind == "note" for entry in Ledger(place.ledger).entries(MODEL))
