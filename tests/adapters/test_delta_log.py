"""A table whose log is lost or damaged is an error that names it, not a new table and not one with fewer rows."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from training.adapters.lake import Lake
from training.contract.errors import DataContractError

ROWS = pa.table({"day": ["2026-01-05"], "score": [0.5]})
CALLS: dict[str, Callable[[Lake], object]] = {
    "version": lambda lake: lake.version("t"),
    "scan": lambda lake: lake.scan("t"),
    "spans": lambda lake: lake.spans("t", "event_time"),
    "schema": lambda lake: lake.schema("t"),
    "applied": lambda lake: lake.applied("t", "replica"),
    "replace": lambda lake: lake.replace("t", ROWS, "day = '2026-01-05'", ["day"]),
    "append": lambda lake: lake.append_once("t", ROWS, ["day"], "replica", 9),
    "overwrite": lambda lake: lake.overwrite("t", ROWS, ["day"]),
    "appending": lambda lake: lake.appending("t", ROWS.schema, ["day"]),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of one table, to be copied."""
    folder = tmp_path_factory.mktemp("whole")
    for number in (1, 2):
        Lake(str(folder), "source").append_once("t", ROWS, ["day"], "replica", number)
    return folder


@pytest.fixture
def lake(whole: Path, tmp_path: Path) -> Lake:
    shutil.copytree(whole, tmp_path / "lake")
    return Lake(str(tmp_path / "lake"), "source")


@pytest.fixture
def log(lake: Lake) -> Path:
    return Path(lake.uri("t"), "_delta_log")


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("left", ["nothing", "an empty folder", "a draft"])
def test_a_lost_log(lake: Lake, log: Path, call: str, left: str) -> None:
    shutil.rmtree(log)
    if left != "nothing":
        log.mkdir()
    if left == "a draft":
        (log / "_commit_1.json.tmp").write_bytes(b"{")
    before = files(log.parent)
    with pytest.raises(DataContractError) as error:
        CALLS[call](lake)
    assert f"{lake.uri('t')} has 2 table files, but no log in _delta_log/" in error.value.message
    assert "from a backup" in error.value.hint
    assert files(log.parent) == before


@pytest.mark.parametrize("call", CALLS)
def test_an_empty_last_commit(lake: Lake, log: Path, call: str) -> None:
    """Without the check, delta-rs reads one row, and number 1 as the last of the replica."""
    last = log / f"{2:020d}.json"
    last.write_bytes(b"")
    with pytest.raises(DataContractError, match="is incomplete"):
        CALLS[call](lake)
    assert not (log / f"{3:020d}.json").exists()
    last.unlink()  # What the hint says.
    assert lake.applied("t", "replica") == 1
    assert lake.append_once("t", ROWS, ["day"], "replica", 2) == 2


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("damage", ["a gap", "no first commit"])
def test_a_damaged_log(lake: Lake, log: Path, call: str, damage: str) -> None:
    (log / f"{1 if damage == 'a gap' else 0:020d}.json").unlink()
    with pytest.raises(DataContractError) as error:
        CALLS[call](lake)
    assert f"The log of the table {lake.uri('t')} cannot be read" in error.value.message


def test_a_commit_is_known_by_its_digest(lake: Lake, tmp_path: Path) -> None:
    shutil.copytree(lake.uri("t"), tmp_path / "older")
    lake.append_once("t", ROWS, ["day"], "replica", 3)
    first, lost = lake.commit_digest("t", 2), lake.commit_digest("t", 3)
    shutil.rmtree(lake.uri("t"))
    shutil.move(tmp_path / "older", lake.uri("t"))
    assert lake.commit_digest("t", 2) == first
    assert lake.commit_digest("t", 3) is None
    lake.append_once("t", ROWS, ["day"], "replica", 3)
    assert lake.commit_digest("t", 3) not in (None, lost)
