"""The saved progress of a long fit: one object per fit, `<work>/<model>/checkpoints/<fingerprint>/fit`."""

from training import storage
from training.contract.errors import TransientError


class StoredCheckpoint:
    """The checkpoint in the folder `uri` (estimators/base.py: Checkpoint; training/storage.py)."""

    def __init__(self, uri: str) -> None:
        self._folder, self._uri = uri, storage.join(uri, "fit")

    def load(self) -> bytes | None:
        return storage.read(self._uri)

    def save(self, content: bytes) -> None:
        """Replace the checkpoint atomically. A kill leaves the earlier one. Raises TransientError on failure."""
        try:
            storage.write(self._uri, content)
        except OSError as error:
            problem = f"The checkpoint {self._uri} could not be written: {error}"
            raise TransientError(problem, hint="Free some space, then run the step again. It resumes.") from error

    def remove(self) -> None:
        """Delete the checkpoint and the remains of a killed save. No error when there are none."""
        for file in storage.files(self._folder):
            storage.remove(storage.join(self._folder, file.name))
