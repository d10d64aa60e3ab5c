"""Keeps lines on disk until they are shipped: a folder of numbered segment files, one open, the others sealed.

    000000000007.jsonl   sealed: complete, waiting to be shipped
    000000000008.open    being written
    shipped.json         the last commit that shipped some

Segment numbers only grow, also across restarts: the next segment is created before this one is sealed, so the folder
always has the highest number. When the spool is opened again, an incomplete last line, left by a kill during a write,
is cut off.
"""

import contextlib
import json
import os
from io import FileIO
from pathlib import Path
from typing import NamedTuple

OPEN, SEALED = ".open", ".jsonl"
_SHIPPED = "shipped.json"


class Shipped(NamedTuple):
    """The last commit of this folder's segments: its transaction, and the version of the table that it made, with the
    digest of that commit. `application` is empty before the first."""

    application: str = ""
    number: int = 0
    version: int = 0
    commit: str = ""


class Line(NamedTuple):
    """Ends in a newline, and holds some rows."""

    content: bytes
    rows: int


class Spool:
    """For one writing thread. `sealed`, `delete`, `shipped` and `remember` may be called in another thread, which may
    also set `taken`."""

    #: The next segment has a higher number than this.
    taken: int = 0
    #: The lines since the last sync.
    _unsynced: list[Line]
    #: Bytes of the complete lines, and of those that are synced.
    _whole: int
    _synced: int

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        for path in folder.glob(f"*{OPEN}"):
            if _cut_torn_line(path):
                path.rename(path.with_suffix(SEALED))
        numbers = [_number(path) for path in folder.iterdir() if path.suffix in (OPEN, SEALED)]
        leftover = list(folder.glob(f"*{OPEN}"))
        self._open_segment(*self._make(max(numbers, default=0) + 1))
        for path in leftover:
            path.unlink()

    def write(self, lines: list[Line]) -> None:
        """Append `lines`. After an OSError, write them again.

        A kill of the process does not lose them any more; a crash of the machine may, until `sync`.
        """
        self._cut_failed_write()
        content = memoryview(b"".join([line.content for line in lines]))
        size, self._torn = len(content), True
        while content:
            content = content[self._file.write(content) :]
        self._whole, self._torn = self._whole + size, False
        self._unsynced += lines
        self.rows += sum(line.rows for line in lines)

    @property
    def unsynced(self) -> bool:
        """Whether there are lines that a crash of the machine may lose."""
        return bool(self._unsynced)

    def sync(self) -> None:
        """Sync what was written to disk. After an OSError, write the lines of `take_back` again."""
        if self._unsynced:
            os.fsync(self._file.fileno())
            self._synced = self._whole
            self._unsynced = []

    def take_back(self) -> list[Line]:
        """The lines since the last sync. They do not count as written any more."""
        lines = self._unsynced
        self._unsynced = []
        self.rows -= sum(line.rows for line in lines)
        self._whole, self._torn = self._synced, True
        return lines

    def seal(self) -> None:
        """Sync and seal the open segment, and start the next one. An empty segment stays open.

        After an OSError the same segment is still open. The rename is not synced: if a crash undoes it, the next start
        repeats it.
        """
        if self.rows == 0:
            return
        self.sync()
        self._cut_failed_write()
        path, file = self._make(max(self.number, self.taken) + 1)
        try:
            self._path.rename(self._path.with_suffix(SEALED))
        except OSError:
            file.close()
            raise
        done = self._file
        self._open_segment(path, file)
        done.close()

    def close(self) -> None:
        self.seal()
        self._file.close()

    def sealed(self) -> list[tuple[int, Path]]:
        """Number and path of every sealed segment, oldest first."""
        return sorted((_number(path), path) for path in self.folder.glob(f"*{SEALED}"))

    def delete(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def shipped(self) -> Shipped:
        """What `remember` has written last; a record that cannot be read counts as none."""
        try:
            return Shipped(**json.loads((self.folder / _SHIPPED).read_bytes()))
        except (OSError, ValueError, TypeError):
            return Shipped()

    def remember(self, shipped: Shipped) -> None:
        """Not synced, and no error when the disk refuses: an older record only says less."""
        draft = self.folder / f".{_SHIPPED}"
        with contextlib.suppress(OSError):
            draft.write_text(json.dumps(shipped._asdict()))
            draft.replace(self.folder / _SHIPPED)

    def size(self) -> int:
        """Bytes of the segments."""
        total = 0
        for entry in os.scandir(self.folder):
            try:
                total += entry.stat().st_size if entry.name.endswith((OPEN, SEALED)) else 0
            except FileNotFoundError:  # It has been shipped and deleted since.
                continue
        return total

    def _make(self, number: int) -> tuple[Path, FileIO]:
        """Create an empty segment, or take the one that a failed attempt has left."""
        path = self.folder / f"{number:012d}{OPEN}"
        file = path.open("wb", buffering=0)
        try:
            self._sync_folder()
        except OSError:
            file.close()
            raise
        return path, file

    def _open_segment(self, path: Path, file: FileIO) -> None:
        self._path, self._file, self.number, self.rows = path, file, _number(path), 0
        self._whole = self._synced = 0
        self._unsynced = []
        #: The file may have more than the complete lines.
        self._torn = False

    def _cut_failed_write(self) -> None:
        if self._torn:
            self._file.truncate(self._whole)
            self._file.seek(self._whole)
            self._torn = False

    def _sync_folder(self) -> None:
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _number(path: Path) -> int:
    return int(path.stem)


def _cut_torn_line(path: Path) -> int:
    """Cut off what follows the last newline. Returns the number of bytes that are left."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return whole
