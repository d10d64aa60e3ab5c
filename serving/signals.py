"""What a rollout's guards look at: per version and stage, what this replica has seen since the stage began."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from training.contract.model_spec import ModelSpec


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


class RolloutSignals:
    """Counts answers and failures per version."""

    def __init__(self, spec: ModelSpec) -> None:
        self._counts: dict[str, dict[str, int]] = {}

    def answered(self, version: int, role: str, seconds: float, scores: np.ndarray, flagged: np.ndarray) -> None:
        self._count(version, "answered", len(scores))

    def failed(self, version: int, role: str, seconds: float) -> None:
        self._count(version, "failed", 1)

    def compared(self, answering: int, shadow: int, scores: np.ndarray, shadow_scores: np.ndarray | None) -> None:
        self._count(shadow, "compared", len(scores))

    def snapshot(self) -> Mapping[str, Any]:
        return {"versions": self._counts}

    def _count(self, version: int, what: str, number: int) -> None:
        counts = self._counts.setdefault(str(version), {"answered": 0, "failed": 0, "compared": 0})
        counts[what] += number
