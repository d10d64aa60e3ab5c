"""Lines on disk until they are shipped: a folder of numbered segment files, one open and the others sealed.

    000000000007.jsonl   sealed: whole, waiting to be shipped
    000000000008.open    being written

Segment numbers only grow, across restarts too, because the next segment is made before this one is sealed: the folder
always holds its highest number. A torn last line, left by a kill in the middle of a write, is cut off when the spool
is opened again.
"""

import os
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
        self._open(max(numbers, default=0) + 1)
        for path in leftover:
            path.unlink()

    def write(self, lines: list[bytes]) -> None:
        """Append `lines`, each ending in a newline; on disk when this returns. Raises OSError, with nothing written."""
        whole, content = self._file.tell(), memoryview(b"".join(lines))
        try:
            while content:
                content = content[self._file.write(content) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(whole)
            self._file.seek(whole)
            raise
        self.rows += len(lines)

    def seal(self) -> None:
        """End the open segment and start the next one; nothing happens when it is empty."""
        if self.rows == 0:
            return
        done, file = self._path, self._file
        self._open(self.number + 1)
        file.close()
        done.rename(done.with_suffix(SEALED))
        self._sync_folder()

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

    def _open(self, number: int) -> None:
        path = self._folder / f"{number:012d}{OPEN}"
        self._file = path.open("xb", buffering=0)
        self._sync_folder()
        self._path, self.number, self.rows = path, number, 0

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
