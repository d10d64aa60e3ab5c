"""The saved progress of a long fit or of a search: one object in a folder of its own.

They are `<work>/<model>/checkpoints/<fingerprint>/fit` and `<work>/<model>/searches/<fingerprint>/trials`.
"""

from training import storage
from training.contract.errors import TransientError


class StoredCheckpoint:
    """The checkpoint `name` in the folder `uri` (estimators/base.py: Checkpoint; training/storage.py)."""

    def __init__(self, uri: str, name: str = "fit") -> None:
        self._folder, self._uri = uri, storage.join(uri, name)

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
