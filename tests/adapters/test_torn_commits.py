"""What a power cut leaves of a commit to the lake: each case is repaired by the same write again, or named."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from training.adapters.lake import Lake
from training.contract.errors import StepError

TABLE = "events"


def rows(*numbers: int) -> pa.Table:
    return pa.table({"id": list(numbers), "partition": [f"p{number % 2}" for number in numbers]})


def write(lake: Lake, partition: int, *numbers: int) -> int:
    done = {"ingest": len(numbers)}
    return lake.replace(TABLE, rows(*numbers), f"partition = 'p{partition}'", ["partition"], done)


def ids(lake: Lake) -> list[int]:
    return sorted(lake.scan(TABLE).to_table()["id"].to_pylist())


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two partitions, in two commits after that which creates the table."""
    made = Lake(str(tmp_path / "lake"), "source")
    write(made, 0, 2, 4)
    write(made, 1, 1, 3)
    return made


def log(lake: Lake) -> Path:
    return Path(lake.uri(TABLE), "_delta_log")


def last(lake: Lake) -> Path:
    return max(log(lake).glob("*.json"))


def added(lake: Lake, before: set[Path]) -> list[Path]:
    return sorted(set(Path(lake.uri(TABLE)).rglob("*.parquet")) - before)


def test_what_a_writer_leaves_that_was_killed_before_its_commit_is_no_part_of_the_table(lake: Lake) -> None:
    content = last(lake).read_bytes()
    (log(lake) / "_commit_0a1b2c3d-0000-0000-0000-000000000000.json.tmp").write_bytes(content[: len(content) // 2])
    (Path(lake.uri(TABLE)) / "partition=p0" / "part-orphan.parquet").write_bytes(b"PAR1 and no more")
    assert (lake.version(TABLE), ids(lake)) == (2, [1, 2, 3, 4])
    assert write(lake, 1, 5, 7) == 3
    assert ids(lake) == [2, 4, 5, 7]


def halved(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut_after_a_line(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"\n") + 1])


def zeroed(path: Path) -> None:
    """As a file system does that had written the length and not the content."""
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("tear", [halved, cut_after_a_line, emptied, zeroed])
def test_a_torn_last_commit_is_named_and_without_it_the_same_write_converges(
    lake: Lake, tear: Callable[[Path], None]
) -> None:
    write(lake, 0, 6, 8)
    torn = last(lake)
    tear(torn)
    uses = (lambda: lake.version(TABLE), lambda: lake.scan(TABLE), lambda: write(lake, 0, 6, 8))
    for use in uses:
        with pytest.raises(StepError) as failed:
            use()
        assert not failed.value.retryable
        assert str(torn) in str(failed.value)
    assert last(lake) == torn, "nothing may be written beyond it"
    torn.rename(torn.with_suffix(".torn"))
    assert ids(lake) == [1, 2, 3, 4]
    assert write(lake, 0, 6, 8) == 3
    assert ids(lake) == [1, 3, 6, 8]


@pytest.mark.parametrize("tear", [halved, emptied, Path.unlink])
def test_a_commit_whose_file_is_not_there_whole_is_named(lake: Lake, tear: Callable[[Path], None]) -> None:
    before = set(Path(lake.uri(TABLE)).rglob("*.parquet"))
    write(lake, 0, 6, 8)
    [file] = added(lake, before)
    tear(file)
    with pytest.raises(StepError) as failed:
        ids(lake)
    assert not failed.value.retryable
    assert str(file) in str(failed.value)
    # Earlier versions are whole, and the same write again makes the table whole.
    assert lake.scan(TABLE, 2).count_rows() == 4
    write(lake, 0, 6, 8)
    assert ids(lake) == [1, 3, 6, 8]


@pytest.mark.long
def test_a_torn_pointer_to_the_last_checkpoint_does_no_harm(lake: Lake) -> None:
    for number in range(110):
        write(lake, 0, 2 * number)
    pointer = log(lake) / "_last_checkpoint"
    assert pointer.exists()
    for tear in (halved, emptied):
        tear(pointer)
        assert ids(lake) == [1, 3, 218]
    write(lake, 0, 2)
    assert ids(lake) == [1, 2, 3]


def test_a_commit_is_flushed_to_disk_with_its_files(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    from training import atomic

    flush = atomic.flush_one

    def noted(path: Path) -> None:
        flushed.append(path)
        flush(path)

    monkeypatch.setattr(atomic, "flush_one", noted)
    before = set(Path(lake.uri(TABLE)).rglob("*.parquet"))
    write(lake, 0, 6, 8)
    assert {last(lake), log(lake), *added(lake, before)} <= set(flushed)
