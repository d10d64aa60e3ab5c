"""Files and folders that appear whole or not at all."""

from pathlib import Path

import pytest

from training import atomic


def test_a_file_and_a_folder_are_replaced(tmp_path: Path) -> None:
    file, folder = tmp_path / "new" / "file.txt", tmp_path / "new" / "folder"
    for text in ("one", "two"):
        atomic.write(file, text.encode())
        with atomic.replacing(folder) as draft:
            draft.mkdir()
            (draft / text).touch()
        assert file.read_text() == text
        assert [path.name for path in folder.iterdir()] == [text]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"file.txt", "folder"}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_block_that_raises_leaves_what_was_there(tmp_path: Path, kind: str) -> None:
    atomic.write(tmp_path / "path", b"old")

    def fail() -> None:
        with atomic.replacing(tmp_path / "path") as draft:
            if kind == "folder":
                draft.mkdir()
                draft /= "file"
            draft.write_text("a part")
            assert (tmp_path / "path").read_text() == "old"
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("path", "old")]


def test_create_does_not_replace(tmp_path: Path) -> None:
    assert atomic.create(tmp_path / "a" / "file", b"first")
    assert not atomic.create(tmp_path / "a" / "file", b"second")
    assert [path.read_bytes() for path in (tmp_path / "a").iterdir()] == [b"first"]
