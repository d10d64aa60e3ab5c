"""Where a long fit keeps its place: one object per fit, at `<work>/<model>/checkpoints/<fingerprint>/fit`."""

import os
import shutil
import tempfile
from pathlib import Path

from training.contract.errors import TransientError

_FILE = "fit"


class FileCheckpoint:
    """The checkpoint in `folder`, which is made when something is first saved (estimators/base.py: Checkpoint)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> bytes | None:
        try:
            return (self._folder / _FILE).read_bytes()
        except FileNotFoundError:
            return None

    def save(self, content: bytes) -> None:
        """Whole or not at all: a kill leaves the one before. Raises TransientError when the disk does not take it."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=f".{_FILE}.", delete=False) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(file.name, self._folder / _FILE)
        except OSError as error:
            problem = f"The checkpoint in {self._folder} could not be written: {error}"
            raise TransientError(problem, hint="Make room, then run the step again; it resumes.") from error

    def remove(self) -> None:
        """What it kept, and what a killed save left, is gone; nothing to remove is no error."""
        shutil.rmtree(self._folder, ignore_errors=True)
