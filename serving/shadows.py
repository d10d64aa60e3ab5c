"""What scores along without answering: after the answer, in a thread of its own, given up when it falls behind."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.signals import Signals
from serving.slots import Slot

MAXIMUM_WAITING = 1_000

log = logging.getLogger("perennial")


@dataclass(frozen=True)
class Shadowed:
    """Rows that `answering` has scored, for `slot` to score along. `rows` are those of the log, without the score."""

    slot: Slot
    answering: Slot
    values: np.ndarray
    scores: list[float]
    rows: list[dict[str, Any]]


class Shadows:
    """`scored` is called with what a shadow scored, its scores and the seconds it took."""

    def __init__(
        self, signals: Signals, scored: Callable[[Shadowed, list[float], float], None], dropped: Callable[[int], None]
    ) -> None:
        self._signals, self._scored, self._dropped = signals, scored, dropped
        self._waiting: queue.SimpleQueue[Shadowed | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, shadowed: Shadowed) -> None:
        """Returns at once; given up and counted when too many wait."""
        if self._waiting.qsize() >= MAXIMUM_WAITING:
            self._dropped(len(shadowed.rows))
        else:
            self._waiting.put(shadowed)

    def close(self, timeout: float = 5.0) -> None:
        """Score what waits; what is not done in `timeout` seconds is given up."""
        self._waiting.put(None)
        self._thread.join(timeout)

    def _work(self) -> None:
        while (shadowed := self._waiting.get()) is not None:
            try:
                self._score(shadowed)
            except Exception:
                log.exception("A shadow's score could not be noted")

    def _score(self, shadowed: Shadowed) -> None:
        slot, answering = shadowed.slot, shadowed.answering
        began = time.perf_counter()
        try:
            scores = slot.score(shadowed.values).tolist()
        except Exception as error:
            log.warning("Version %d could not score along: %s", slot.version, error)
            self._signals.compared(answering.version, slot.version, shadowed.scores, None)
            return
        seconds = time.perf_counter() - began
        self._signals.compared(answering.version, slot.version, shadowed.scores, scores)
        self._scored(shadowed, scores, seconds)
