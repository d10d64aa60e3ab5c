"""Shadow scoring: after the answer, in its own thread, dropped when it falls behind.

Scores that still wait when their state of traffic ends are dropped too: a slow version's backlog must not hold up the
next stage.
"""

import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from serving.batch import Batch
from serving.loaded_model import LoadedModel
from serving.signals import Signals
from training.contract.predictions import LoggedRow

#: Batches.
MAXIMUM_WAITING = 1_000

log = logging.getLogger("perennial")


@dataclass(frozen=True)
class Shadowed:
    """Rows that `answering` has scored, for `loaded` to score too: one row of each request, or all rows of one."""

    loaded: LoadedModel
    answering: LoadedModel
    batch: Batch
    scores: list[float]
    #: Those of the log, with the score of `answering`.
    rows: list[LoggedRow]
    requests: int

    @property
    def seconds(self) -> float:
        """How long ago the first of the requests came."""
        return time.perf_counter() - min(self.batch.received)

    def of(self, places: list[int]) -> "Shadowed":
        """The requests at `places`."""
        scores, rows = [self.scores[i] for i in places], [self.rows[i] for i in places]
        return Shadowed(self.loaded, self.answering, self.batch.of(places), scores, rows, len(places))


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
                if self._signals.compares(shadowed.answering.version, shadowed.loaded.version, shadowed.seconds):
                    self._score(shadowed)
                else:
                    self._dropped(len(shadowed.rows))
            except Exception:
                log.exception("A shadow's score could not be noted")

    def _score(self, shadowed: Shadowed) -> None:
        began = time.perf_counter()
        try:
            scores = shadowed.loaded.score(shadowed.batch.features(shadowed.loaded.plan).values).tolist()
        except Exception as error:
            if shadowed.requests > 1:  # one's trouble is not the others'
                for i in range(shadowed.requests):
                    self._score(shadowed.of([i]))
                return
            log.warning("Version %d could not score along: %s", shadowed.loaded.version, error)
            self._note(shadowed, None)
            return
        seconds = time.perf_counter() - began
        good = [i for i, score in enumerate(scores) if math.isfinite(score)]
        if len(good) == len(scores):
            self._note(shadowed, scores, seconds)
        elif shadowed.requests == 1:
            self._note(shadowed, None)
        else:
            self._note(shadowed.of([i for i in range(len(scores)) if i not in good]), None)
            self._note(shadowed.of(good), [scores[i] for i in good], seconds)

    def _note(self, shadowed: Shadowed, scores: list[float] | None, seconds: float = 0.0) -> None:
        answering, shadow = shadowed.answering.version, shadowed.loaded.version
        self._signals.compared(answering, shadow, shadowed.seconds, shadowed.scores, scores)
        if scores:
            self._scored(shadowed, scores, seconds)
