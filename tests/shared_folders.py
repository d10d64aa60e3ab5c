"""Folders that several worker processes of one test run use and one of them makes."""

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


class SharedFolders:
    """Folders under `root`, by name."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(exist_ok=True)

    def folder(self, name: str, make: Callable[[Path], None]) -> Path:
        """The folder `name`, filled by `make` unless another process has done so. Nobody may change what is in it."""
        folder, done = self._root / name, self._root / f"{name}.done"
        with FileLock(self._root / f"{name}.lock"):
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder
