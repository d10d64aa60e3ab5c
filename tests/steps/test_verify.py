"""One byte changed in the ledger, in a model or in a file of the lake is found, and the fault names the file."""

import json
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from tests.cases import others_in_ci
from tests.steps.test_ledger_verify import MODEL, place, registered  # noqa: F401 – a fixture
from training import verify as verify_all
from training.adapters.lake import Lake
from training.adapters.ledger import Ledger
from training.adapters.registry import Registry
from training.contract.errors import DataContractError
from training.contract.messages import DatasetInputs, Snapshot, VerifyModelInputs, VerifySourceInputs
from training.contract.recipe import RECIPE_FILE, RECIPE_FOLDER, Recipe
from training.delta_log import RECORDS
from training.settings import Settings
from training.steps import verify_model, verify_source

SOURCE = "card_payments"


def rows(day: int, count: int = 3) -> pa.Table:
    times = pa.array([datetime(2026, 1, day, hour, tzinfo=UTC) for hour in range(count)], pa.timestamp("us", "UTC"))
    return pa.table({"transaction_id": range(count), "event_time": times, "partition": [f"2026-01-{day:02}"] * count})


def write(lake: Lake, day: int, count: int = 3, table: str = "events") -> int:
    return lake.replace(table, rows(day, count), f"partition = '2026-01-{day:02}'", ["partition"])


@pytest.fixture
def lake(place: Settings) -> Lake:  # noqa: F811
    """The table `events`: version 2 has two partitions, 3 has another file for the first of them."""
    found = Lake(place.lake, SOURCE, MODEL)
    for day, count in ((5, 3), (6, 3), (5, 4)):
        write(found, day, count)
    return found


def files(lake: Lake, version: int | None = None, table: str = "events") -> list[Path]:
    return [Path(lake.uri(table), path) for path in lake.files(table, version)]


def flip(path: Path, at: int = -9) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def verify(settings: Settings) -> dict[str, int]:
    found = verify_source.run(VerifySourceInputs(source=SOURCE), settings).files
    return {table: number for table, number in found.items() if number}


def model(settings: Settings) -> tuple[int, int]:
    found = verify_model.run(VerifyModelInputs(model=MODEL), settings)
    return found.entries, found.versions


def pinned(settings: Settings, lake: Lake, version: int) -> None:
    """A registered version whose recipe names `version` of the events."""
    from mlflow import MlflowClient

    made = registered(settings)
    registry = Registry(settings.tracking_uri)
    registry.tag(MODEL, made.version, "table.events", str(version))
    snapshot = Snapshot(as_of=date(2026, 1, 7), table_versions={"events": version})
    recipe = Recipe(
        model_spec="",
        source_spec="",
        dataset=DatasetInputs(model=MODEL, snapshot=snapshot, window_days=7, seed=0),
        tables=lake.identities(["events"]),
        files={"events": lake.files_digest("events", version)},
        definitions="",
        fit={},
        code="",
        libraries={},
        machine={},
    )
    client = MlflowClient(settings.tracking_uri, settings.tracking_uri)
    client.log_text(made.run_id, recipe.model_dump_json(), f"{RECIPE_FOLDER}/{RECIPE_FILE}")


def test_what_is_as_it_was_written_passes(place: Settings, lake: Lake) -> None:  # noqa: F811
    pinned(place, lake, 2)
    assert verify(place) == {"events": 3}  # the two of version 3, and that of the pinned one
    assert model(place) == (3, 1)
    Lake(place.lake, SOURCE).vacuum("events", 0, {2})
    assert verify(place) == {"events": 3}
    assert model(place) == (3, 1)


def test_the_newest_ledger_entry_is_in_the_log(
    place: Settings,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    model(place)
    assert f"the newest is {Ledger(place.ledger).head(MODEL)}" in caplog.text


@pytest.mark.parametrize("at", others_in_ci([100, 0, -1]))
def test_a_byte_of_a_file_of_the_lake(place: Settings, lake: Lake, at: int) -> None:  # noqa: F811
    """Delta looks at names and sizes, and both are the same."""
    changed = files(lake)[0]
    flip(changed, at)
    with pytest.raises(DataContractError) as error:
        verify(place)
    assert f"{changed} was changed: its SHA-256 is" in error.value.message
    assert error.value.message.count("\n") == 0


def test_a_file_that_only_a_registered_version_needs(place: Settings, lake: Lake) -> None:  # noqa: F811
    pinned(place, lake, 2)
    (old,) = set(files(lake, 2)) - set(files(lake))
    flip(old)
    with pytest.raises(DataContractError, match=f"{old.name} was changed"):
        verify(place)


def test_every_fault_is_named_at_once(place: Settings, lake: Lake) -> None:  # noqa: F811
    write(lake, 5, table="labels")
    first, second = files(lake)
    (other,) = files(lake, table="labels")
    flip(first)
    flip(other)
    second.unlink()
    with pytest.raises(DataContractError) as error:
        verify(place)
    said = error.value.message.splitlines()
    assert len(said) == 3
    for path, how in ((first, "was changed"), (second, "is missing"), (other, "was changed")):
        assert [line for line in said if line.startswith(f"{path} {how}")]


def test_a_file_and_its_record_changed_together(place: Settings, lake: Lake) -> None:  # noqa: F811
    """The recipe of the version that was trained on it knows better."""
    import hashlib

    pinned(place, lake, 3)
    changed, folder = files(lake)[0], Path(lake.uri("events"), RECORDS)
    before = hashlib.sha256(changed.read_bytes()).hexdigest()
    flip(changed)
    after = hashlib.sha256(changed.read_bytes()).hexdigest()
    for record in folder.iterdir():
        record.write_text(record.read_text().replace(before, after))
    assert verify(place)
    with pytest.raises(DataContractError, match="Version 1 of card_fraud was trained on other files: the record"):
        model(place)


def test_files_without_a_record_are_recorded_once(place: Settings, lake: Lake) -> None:  # noqa: F811
    """Of a table from before there were records, and of a writer that was killed just after its commit."""
    folder = Path(lake.uri("events"), RECORDS)
    for record in folder.iterdir():
        record.unlink()
    assert verify(place) == {"events": 2}
    assert len(list(folder.iterdir())) == 1
    assert verify(place) == {"events": 2}
    assert len(list(folder.iterdir())) == 1
    flip(files(lake)[0])
    with pytest.raises(DataContractError, match="was changed"):
        verify(place)


def test_files_of_a_stream(place: Settings, lake: Lake) -> None:  # noqa: F811
    lake.append_once("predictions", rows(7), ["partition"], "replica", 1)
    assert verify(place) == {"events": 2, f"predictions/{MODEL}": 1}
    flip(files(lake, table="predictions")[0])
    with pytest.raises(DataContractError, match=f"predictions/{MODEL}/.*was changed"):
        verify(place)


def test_a_record_that_cannot_be_read_is_named(place: Settings, lake: Lake) -> None:  # noqa: F811
    record = next(Path(lake.uri("events"), RECORDS).iterdir())
    record.write_text("{")
    with pytest.raises(DataContractError, match=record.name):
        verify(place)


def test_records_are_no_part_of_the_table(place: Settings, lake: Lake) -> None:  # noqa: F811
    opened = DeltaTable(lake.uri("events"))
    opened.vacuum(0, dry_run=False, enforce_retention_duration=False, full=True)
    assert len(list(Path(lake.uri("events"), RECORDS).iterdir())) == 3
    assert lake.scan("events").count_rows() == 7


def test_a_byte_of_the_ledger(place: Settings, lake: Lake) -> None:  # noqa: F811
    registered(place)
    entry = Path(place.ledger, MODEL, "00000001.json")
    body = json.loads(entry.read_text())
    body["body"]["number"] = 7
    entry.write_text(json.dumps(body))
    with pytest.raises(DataContractError, match=r"00000001\.json: it was altered"):
        model(place)


@pytest.mark.parametrize("file", others_in_ci(["model.onnx", "metadata.json"]))
def test_a_byte_of_a_model(place: Settings, file: str) -> None:  # noqa: F811
    first, second = registered(place), registered(place)
    path = place.home / "runs" / second.run_id / "artifacts" / "served" / file
    flip(path, 1)
    with pytest.raises(DataContractError) as error:
        model(place)
    (said,) = error.value.message.splitlines()
    assert said.startswith(f"Version {second.version} of {MODEL}: ")
    assert ("its digest is" if file == "model.onnx" else "metadata.json cannot be read") in said
    assert first.version != second.version


def test_a_commit_of_the_lake(place: Settings, lake: Lake) -> None:  # noqa: F811
    """One that is changed can hide rows, move them to another partition, or bring old ones back."""
    verify(place)
    newest = Path(lake.uri("events"), "_delta_log", f"{lake.version('events'):020d}.json")
    kept = newest.read_text()
    newest.write_text("".join(line for line in kept.splitlines(keepends=True) if '"remove"' not in line))
    assert lake.scan("events").count_rows() == 10
    with pytest.raises(DataContractError, match=rf"{newest} was changed"):
        verify(place)
    newest.write_text(kept)
    verify(place)
    old = newest.with_name(f"{1:020d}.json")
    DeltaTable(lake.uri("events")).create_checkpoint()
    old.unlink()
    with pytest.raises(DataContractError, match=rf"{old} is missing"):
        verify(place)


def test_a_value_in_the_metadata_of_a_model(place: Settings) -> None:  # noqa: F811
    """Without keys, too: the registry has its digest."""
    version = registered(place)
    path = place.home / "runs" / version.run_id / "artifacts" / "served" / "metadata.json"
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps(metadata | {"task": metadata["task"] | {"threshold": 0.99}}))
    with pytest.raises(DataContractError, match=rf"Version 1 of {MODEL}: metadata.json was changed"):
        model(place)


def test_the_ledger_of_a_model_without_a_spec(
    place: Settings,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for entry in ("a", "b"):
        Ledger(place.ledger).append("note", "removed", {}, entry)
    Path(place.ledger, "removed", "00000000.json").unlink()
    for name in ("home", "tracking_uri"):
        monkeypatch.setenv(f"CT_{name.upper()}", str(getattr(place, name)))
    assert verify_all.main() == 65
    said = "".join(capfd.readouterr())
    assert "removed/00000000.json: it is missing" in said


def night(settings: Settings, day: int) -> int:
    """How many files of the events are read in the night of that day."""
    asked = VerifySourceInputs(source=SOURCE, share=True, now=datetime(2026, 3, day, 2, 30, tzinfo=UTC))
    return verify_source.run(asked, settings).files["events"]


@pytest.mark.ci
def test_a_night_reads_a_share_and_names_a_fault_within_the_period_every_night(
    place: Settings,  # noqa: F811
    lake: Lake,
) -> None:
    for day in range(7, 19):  # 14 partitions with a file of about the same size each
        write(lake, day)
    assert night(place, 1) == 2
    changed = max(files(lake))  # by path, so not among the first
    flip(changed)
    found = []
    for day in range(2, 12):
        with suppress(DataContractError):
            assert 1 <= night(place, day) <= 4
            found.append(day)
    first = max(found, default=1) + 1
    assert found == list(range(2, first))
    assert first <= 8
    with pytest.raises(DataContractError, match=f"{changed.name} was changed"):
        night(place, 12)
    with pytest.raises(DataContractError, match="was changed"):
        verify(place)


def test_new_files_are_read_first_and_a_lost_state_only_begins_anew(
    place: Settings,  # noqa: F811
    lake: Lake,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for day in range(1, 8):
        night(place, day)
    write(lake, 20)
    (new,) = set(files(lake)) - set(files(lake, 3))
    flip(new)
    with pytest.raises(DataContractError, match=f"{new.name} was changed"):
        night(place, 8)
    flip(new)
    state = place.home / "work" / SOURCE / "verified.json"
    assert state.is_file()
    state.write_text("{")
    assert night(place, 9) == 1
    assert "all files count as never read" in caplog.text
