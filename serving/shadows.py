"""Shadow scoring: a second version scores the same rows after the answer has been sent, in a thread of its own.

Rows are dropped when the shadow falls behind. Rows that still wait when the state of traffic changes are dropped too,
so that the backlog of a slow version does not delay the next stage.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from serving.batch import Batch
from serving.loaded_model import LoadedModel
from serving.scoring import finite_rows
from serving.signals import Signals

#: Batches in the queue.
MAXIMUM_WAITING = 1_000

log = logging.getLogger("perennial")


@dataclass(frozen=True)
class Shadowed:
    """Rows that `answering` has scored, for `loaded` to score too: one row of each request, or all rows of one."""

    loaded: LoadedModel
    answering: LoadedModel
    batch: Batch
    #: The scores of `answering`, [n] or [n, k].
    scores: np.ndarray
    #: Of each row its id in the answer, and when all of them were answered.
    prediction_ids: list[str]
    at: datetime
    requests: int

    @property
    def seconds(self) -> float:
        """Since the first of the requests was received."""
        return time.perf_counter() - min(self.batch.received)

    def of(self, places: list[int]) -> "Shadowed":
        """The requests at `places`. Only for batches with one row of each request."""
        batch, ids = self.batch.of(places), [self.prediction_ids[i] for i in places]
        return Shadowed(self.loaded, self.answering, batch, self.scores[places], ids, self.at, len(places))


class Shadows:
    """`on_scored` gets the rows that a shadow scored, its scores and the seconds that it took.

    `on_dropped` gets the number of rows that were dropped.
    """

    def __init__(
        self,
        signals: Signals,
        on_scored: Callable[[Shadowed, np.ndarray, float], None],
        on_dropped: Callable[[int], None],
    ) -> None:
        self._signals, self._on_scored, self._on_dropped = signals, on_scored, on_dropped
        self._waiting: queue.SimpleQueue[Shadowed | None] = queue.SimpleQueue()
        #: Started when the first rows come.
        self._thread: threading.Thread | None = None
        #: Batches that came and that are done, each counted by one thread.
        self._came = self._done = 0

    @property
    def busy(self) -> bool:
        """Whether rows wait or are being scored."""
        return self._came != self._done

    def put(self, shadowed: Shadowed) -> None:
        """Returns at once. Drops the rows when the queue is full."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
            self._thread.start()
        if self._waiting.qsize() >= MAXIMUM_WAITING:
            self._on_dropped(len(shadowed.prediction_ids))
        else:
            self._came += 1
            self._waiting.put(shadowed)

    def close(self, timeout: float = 5.0) -> None:
        """Score the rows that wait, for at most `timeout` seconds."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(timeout)

    def _work(self) -> None:
        while (shadowed := self._waiting.get()) is not None:
            try:
                if self._signals.compares(shadowed.answering.version, shadowed.loaded.version, shadowed.seconds):
                    self._score(shadowed)
                else:
                    self._on_dropped(len(shadowed.prediction_ids))
            except Exception:
                log.exception("The scores of a shadow could not be recorded")
            self._done += 1

    def _score(self, shadowed: Shadowed) -> None:
        began = time.perf_counter()
        try:
            scores = shadowed.loaded.score(shadowed.batch.features(shadowed.loaded.plan).values)
        except Exception as error:
            if shadowed.requests > 1:
                # Isolate failures: score each request alone.
                for i in range(shadowed.requests):
                    self._score(shadowed.of([i]))
                return
            log.warning("Version %d could not score a request as shadow: %s", shadowed.loaded.version, error)
            self._record(shadowed, None)
            return
        seconds = time.perf_counter() - began
        finite = finite_rows(scores)
        if all(finite):
            self._record(shadowed, scores, seconds)
        elif shadowed.requests == 1:
            self._record(shadowed, None)
        else:
            good, bad = ([i for i, is_finite in enumerate(finite) if is_finite is wanted] for wanted in (True, False))
            self._record(shadowed.of(bad), None)
            self._record(shadowed.of(good), scores[good], seconds)

    def _record(self, shadowed: Shadowed, scores: np.ndarray | None, seconds: float = 0.0) -> None:
        answering, shadow = shadowed.answering.version, shadowed.loaded.version
        self._signals.compared(answering, shadow, shadowed.seconds, shadowed.scores, scores)
        if scores is not None and len(scores):
            self._on_scored(shadowed, scores, seconds)
