"""What a rollout's guards look at: per version and stage, what this replica has seen since the stage began."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np


class Signals(Protocol):
    """Called on the request path: cheap, never raises, safe from any thread."""

    def answered(self, version: int, role: str, seconds: float, scores: np.ndarray, flagged: np.ndarray) -> None:
        """`version` answered a request of len(scores) rows in `seconds` (receipt to answer)."""

    def failed(self, version: int, role: str, seconds: float) -> None:
        """`version` was to answer and could not: an exception, or scores that are not numbers."""

    def compared(self, answering: int, shadow: int, scores: np.ndarray, shadow_scores: np.ndarray | None) -> None:
        """Both scored the same rows; None: the shadow could not (an exception, or scores that are not numbers)."""

    def snapshot(self) -> Mapping[str, Any]:
        """What `GET /signals` answers."""
