"""Where a fit saves its progress."""

from typing import Protocol


class Checkpoint(Protocol):
    """Where a fit saves its progress, so that a retry of the same fit continues from there."""

    def load(self) -> bytes | None:
        """The content that was saved last; None when there is none."""
        ...

    def save(self, content: bytes) -> None:
        """Replace the saved content atomically."""
        ...


class NoCheckpoint:
    """Saves nothing."""

    def load(self) -> None:
        return None

    def save(self, content: bytes) -> None:
        pass


NO_CHECKPOINT = NoCheckpoint()
