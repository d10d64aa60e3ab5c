"""Where a long fit keeps its place: one object per fit, `<work>/<model>/checkpoints/<fingerprint>/fit`."""

from training import storage
from training.contract.errors import TransientError


class StoredCheckpoint:
    """The checkpoint in the folder `uri` (estimators/base.py: Checkpoint; training/storage.py)."""

    def __init__(self, uri: str) -> None:
        self._folder, self._uri = uri, storage.join(uri, "fit")

    def load(self) -> bytes | None:
        return storage.read(self._uri)

    def save(self, content: bytes) -> None:
        """Whole or not at all: a kill leaves the one before. Raises TransientError when it cannot be written."""
        try:
            storage.write(self._uri, content)
        except OSError as error:
            problem = f"The checkpoint {self._uri} could not be written: {error}"
            raise TransientError(problem, hint="Make room, then run the step again; it resumes.") from error

    def remove(self) -> None:
        """What it kept, and what a killed save left, is gone; nothing to remove is no error."""
        for file in storage.files(self._folder):
            storage.remove(storage.join(self._folder, file.name))
