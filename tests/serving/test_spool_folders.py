"""What waits in the folder of a model is shipped, whether the model is served or not."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from serving.metrics import Metrics
from serving.segments import EventLayout
from serving.spool_folders import SpoolFolders
from testing.waiting import eventually
from tests.serving.prediction_rows import logged_rows, row, shipped, together
from training.adapters.lake import Lake
from training.contract.errors import TransientError
from training.contract.model_spec import ModelSpec, load_model_spec, model_names

SOURCE, MODEL = "card_payments", "card_fraud"


def folders(tmp_path: Path) -> SpoolFolders:
    return SpoolFolders(tmp_path / "serving", str(tmp_path / "lake"), "r", Metrics(CollectorRegistry()))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), SOURCE, MODEL)


@pytest.fixture
def waiting(tmp_path: Path, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Logs rows that the lake does not take. Returns their folder."""

    def make(*numbers: int, of: ModelSpec = spec) -> Path:
        with monkeypatch.context() as patch:
            patch.setattr(Lake, "applied", lambda *_: (_ for _ in ()).throw(TransientError("the lake is away")))
            found = folders(tmp_path)
            found.open(of).append(together(*(row(number) for number in numbers)))
            found.close()
        return tmp_path / "serving" / "predictions" / of.source.name / of.name

    return make


def of_source(spec: ModelSpec, name: str) -> ModelSpec:
    raw = spec.model_dump(mode="json")
    return ModelSpec.model_validate(raw | {"source": raw["source"] | {"name": name}})


def test_predictions_of_a_model_that_is_not_served_any_more_are_shipped(
    tmp_path: Path, lake: Lake, waiting: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = waiting(1, 2)
    found = folders(tmp_path)
    found.ship_leftovers()
    assert f"predictions wait in {folder}" in caplog.text
    eventually(lambda: shipped(lake) == [1, 2])
    found.close()
    caplog.clear()
    folders(tmp_path).ship_leftovers()
    assert caplog.text == ""


def test_a_removed_model_that_comes_back_has_one_log(
    tmp_path: Path, lake: Lake, spec: ModelSpec, waiting: Callable[..., Path]
) -> None:
    waiting(1)
    found = folders(tmp_path)
    found.ship_leftovers()
    log = found.open(spec)
    assert found.open(spec) is log
    log.append(together(row(2)))
    found.close()
    assert shipped(lake) == [1, 2]


def test_a_model_that_learns_from_another_source_ships_to_both_lakes(
    tmp_path: Path, lake: Lake, spec: ModelSpec, waiting: Callable[..., Path]
) -> None:
    other = of_source(spec, "other_payments")
    waiting(1)
    found = folders(tmp_path)
    found.open(other).append(together(row(2)))
    found.ship_leftovers()
    eventually(lambda: shipped(lake) == [1])
    found.close()
    assert shipped(Lake(str(tmp_path / "lake"), "other_payments", MODEL)) == [2]


def test_leftovers_have_the_columns_of_the_last_spec(
    tmp_path: Path, lake: Lake, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = spec.model_dump(mode="json")
    raw["source"]["feeds"]["events"]["columns"]["note"] = {"type": "string", "nullable": True}
    with monkeypatch.context() as patch:
        patch.setattr(Lake, "applied", lambda *_: (_ for _ in ()).throw(TransientError("the lake is away")))
        found = folders(tmp_path)
        log = found.open(spec)
        found.follow(ModelSpec.model_validate(raw))
        made = row(1)
        log.append(together(made | {"event": made["event"] | {"note": "new"}}))
        found.close()
    found = folders(tmp_path)
    found.ship_leftovers()
    [stored] = eventually(lambda: logged_rows(lake))
    assert stored["event"]["note"] == "new"
    found.close()


@pytest.mark.parametrize("how", ["lost", "torn"])
def test_leftovers_without_their_columns_are_named_and_wait_for_the_spec(
    tmp_path: Path,
    lake: Lake,
    spec: ModelSpec,
    waiting: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    schema = waiting(1) / "event.schema"
    schema.unlink() if how == "lost" else schema.write_bytes(b"half")
    found = folders(tmp_path)
    found.ship_leftovers()
    assert f"cannot be shipped, in {schema.parent}" in caplog.text
    found.open(spec)
    eventually(lambda: shipped(lake) == [1])
    found.close()


def test_folders_of_the_version_before_had_no_source(
    tmp_path: Path, lake: Lake, spec: ModelSpec, waiting: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder, old = waiting(1), tmp_path / "serving" / "predictions" / MODEL
    shutil.move(folder, old)
    found = folders(tmp_path)
    found.ship_leftovers()  # The model is not served now.
    assert f"cannot be shipped, in {old}" in caplog.text
    found.open(spec).append(together(row(2)))
    found.close()
    assert shipped(lake) == [1, 2]
    assert not list(old.glob("*.jsonl"))


def test_a_folder_of_the_version_before_beside_a_newer_one(
    tmp_path: Path, lake: Lake, spec: ModelSpec, waiting: Callable[..., Path]
) -> None:
    """Somebody went back to the version before for a while."""
    folder, old = waiting(1), tmp_path / "serving" / "predictions" / MODEL
    shutil.move(folder, old)
    (old / "event.schema").unlink()
    newer = tmp_path / "newer"
    shutil.copytree(old, newer)
    [segment] = newer.glob("*.jsonl")
    segment.write_bytes(
        segment.read_bytes().replace(b'"p1"', b'"p9"').replace(b'"transaction_id":[1]', b'"transaction_id":[9]')
    )
    shutil.move(newer, folder)
    found = folders(tmp_path)
    found.open(spec)
    found.close()
    assert shipped(lake) == [1, 9]


@pytest.mark.parametrize("name", model_names())
def test_columns_are_read_as_they_were_written(tmp_path: Path, name: str) -> None:
    layout: Any = EventLayout.of(load_model_spec(name))
    (tmp_path / "event.schema").write_bytes(layout.content)
    assert EventLayout.read(tmp_path / "event.schema") == layout
