"""Lines on disk until they are shipped: a folder of numbered segment files, one open and the others sealed.

    000000000007.jsonl   sealed: whole, waiting to be shipped
    000000000008.open    being written

Segment numbers only grow, across restarts too, because the next segment is made before this one is sealed: the folder
always holds its highest number. A torn last line, left by a kill in the middle of a write, is cut off when the spool
is opened again.
"""

import os
from io import FileIO
from pathlib import Path

OPEN, SEALED = ".open", ".jsonl"


class Spool:
    """One writer. `sealed` and `delete` may be called from another thread."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        for path in folder.glob(f"*{OPEN}"):
            if _cut_torn_line(path):
                path.rename(path.with_suffix(SEALED))
        numbers = [_number(path) for path in folder.iterdir() if path.suffix in (OPEN, SEALED)]
        leftover = list(folder.glob(f"*{OPEN}"))
        self._go_on_in(*self._make(max(numbers, default=0) + 1))
        for path in leftover:
            path.unlink()

    def write(self, lines: list[bytes]) -> None:
        """Append `lines`, each ending in a newline; on disk when this returns. After an OSError: write them again."""
        self._cut_failed_write()
        content = memoryview(b"".join(lines))
        while content:
            content = content[self._file.write(content) :]
        os.fsync(self._file.fileno())
        self._whole = self._file.tell()
        self.rows += len(lines)

    def seal(self) -> None:
        """End the open segment and start the next one; nothing happens when it is empty.

        After an OSError the open segment is still the open one. The rename is not synced: should a crash undo it, the
        next start does it again.
        """
        if self.rows == 0:
            return
        self._cut_failed_write()
        path, file = self._make(self.number + 1)
        try:
            self._path.rename(self._path.with_suffix(SEALED))
        except OSError:
            file.close()
            raise
        done = self._file
        self._go_on_in(path, file)
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
            except FileNotFoundError:  # shipped and deleted meanwhile
                continue
        return total

    def _make(self, number: int) -> tuple[Path, FileIO]:
        """A new segment, empty; one that is left of an attempt that failed is taken."""
        path = self._folder / f"{number:012d}{OPEN}"
        file = path.open("wb", buffering=0)
        try:
            self._sync_folder()
        except OSError:
            file.close()
            raise
        return path, file

    def _go_on_in(self, path: Path, file: FileIO) -> None:
        self._path, self._file, self.number, self.rows = path, file, _number(path), 0
        self._whole = 0  # bytes of the lines that count

    def _cut_failed_write(self) -> None:
        if self._file.tell() != self._whole:
            self._file.truncate(self._whole)
            self._file.seek(self._whole)

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _number(path: Path) -> int:
    return int(path.stem)


def _cut_torn_line(path: Path) -> int:
    """Cut what follows the last newline. Returns the bytes that are left."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return whole
