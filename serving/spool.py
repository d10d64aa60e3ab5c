"""Keeps lines on disk until they are shipped: a folder of numbered segment files, one open, the others sealed.

    000000000007.jsonl   sealed: complete, waiting to be shipped
    000000000008.open    being written

Segment numbers only grow, also across restarts: the next segment is created before this one is sealed, so the folder
always has the highest number. When the spool is opened again, an incomplete last line, left by a kill during a write,
is cut off.
"""

import os
from io import FileIO
from pathlib import Path

OPEN, SEALED = ".open", ".jsonl"


class Spool:
    """For one writing thread. `sealed` and `delete` may be called in another thread."""

    #: The lines since the last sync.
    _unsynced: list[bytes]
    #: Bytes of the complete lines, and of those that are synced.
    _whole: int
    _synced: int

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        for path in folder.glob(f"*{OPEN}"):
            if _cut_torn_line(path):
                path.rename(path.with_suffix(SEALED))
        numbers = [_number(path) for path in folder.iterdir() if path.suffix in (OPEN, SEALED)]
        leftover = list(folder.glob(f"*{OPEN}"))
        self._open_segment(*self._make(max(numbers, default=0) + 1))
        for path in leftover:
            path.unlink()

    def write(self, lines: list[bytes]) -> None:
        """Append `lines`, each ending in a newline. After an OSError, write them again.

        A kill of the process does not lose them any more; a crash of the machine may, until `sync`.
        """
        self._cut_failed_write()
        content = memoryview(b"".join(lines))
        size, self._torn = len(content), True
        while content:
            content = content[self._file.write(content) :]
        self._whole, self._torn = self._whole + size, False
        self._unsynced += lines
        self.rows += len(lines)

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

    def take_back(self) -> list[bytes]:
        """The lines since the last sync. They do not count as written any more."""
        lines = self._unsynced
        self._unsynced = []
        self.rows -= len(lines)
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
        path, file = self._make(self.number + 1)
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
        return sorted((_number(path), path) for path in self._folder.glob(f"*{SEALED}"))

    def delete(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def size(self) -> int:
        """Bytes in the folder."""
        total = 0
        for entry in os.scandir(self._folder):
            try:
                total += entry.stat().st_size
            except FileNotFoundError:  # It has been shipped and deleted since.
                continue
        return total

    def _make(self, number: int) -> tuple[Path, FileIO]:
        """Create an empty segment, or take the one that a failed attempt has left."""
        path = self._folder / f"{number:012d}{OPEN}"
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
        folder = os.open(self._folder, os.O_RDONLY)
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
