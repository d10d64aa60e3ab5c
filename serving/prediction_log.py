"""The prediction log: each prediction is stored exactly once in the lake's table `predictions`. Callers never wait.

    answer ─► queue ─► writer thread ─► spool on disk ─► shipper thread ─► Delta table

The logs of all models share a few threads (log_threads.py). A writer writes the rows in the queue to the spool every
50 ms. A `kill -9` loses at most the predictions of that time (WORST_LOSS_SECONDS on a slow disk). The writer also syncs
them: at once while one model has predictions; with many, each log less often, and after SYNC_SECONDS at the latest. A
crash of the machine loses at most the predictions of that time. A shipper commits sealed segments to the table, then
deletes them (shipping.py).

While the lake is away, the spool grows up to MAXIMUM_SPOOL_BYTES; beyond that, new predictions are dropped, counted and
reported, and callers still get their answers. While the disk fails, rows wait in the queue, and `problem` says so: a
service that cannot log is not ready.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from serving.log_threads import WRITER, WRITER_SECONDS, LogThreads
from serving.metrics import ModelMetrics
from serving.segments import EventLayout, line
from serving.shipping import Shipping
from serving.spool import Line, Spool
from training.adapters.lake import Lake
from training.contract.errors import StepError
from training.contract.predictions import LoggedRows

WORST_LOSS_SECONDS = 0.2
#: The pause after a failed write, and the numbers of tries, on disk and in the lake, when the service stops.
DISK_RETRY_SECONDS = 1.0
LAST_TRIES, LAST_SHIPPINGS = 3, 2
#: The service is not ready when nothing could be written for this long.
PATIENCE_SECONDS = 5.0
#: A segment is sealed, and then shipped, after this many rows, or after the seconds of the setting.
SEGMENT_ROWS = 25_000
SEGMENT_SECONDS = 2.0
RETRY_SECONDS = (1.0, 30.0)
MAXIMUM_QUEUE = 50_000
MAXIMUM_SPOOL_BYTES = 1 << 30

log = logging.getLogger("perennial")


class PredictionLog:
    """The log of one model. `threads`: those of the process; without, it has its own. A segment is sealed after
    `ship_seconds` (None: SEGMENT_SECONDS)."""

    def __init__(
        self,
        folder: Path,
        lake: Lake,
        layout: EventLayout,
        replica: str,
        metrics: ModelMetrics,
        threads: LogThreads | None = None,
        ship_seconds: float | None = None,
    ) -> None:
        self._spool = Spool(folder)
        #: The columns of events that are logged. Replaced when the spec changes.
        self.layout = layout
        self._metrics = metrics
        self._to_lake = Shipping(self._spool, lake, replica, metrics)
        #: Lines that are not on disk, and how many rows they have.
        self._queue: list[Line] = []
        self._queued, self._queue_lock = 0, threading.Lock()
        self._threads = threads or LogThreads()
        self._ship_seconds = SEGMENT_SECONDS if ship_seconds is None else ship_seconds
        #: Held by the thread that writes, and by the one that ships.
        self._writing, self._shipping = threading.Lock(), threading.Lock()
        #: When the next write is due (time.monotonic), and the next shipping; None: when a segment is sealed.
        self._write_at = 0.0
        self._ship_at: float | None = None
        self._pause = RETRY_SECONDS[0]
        self._full = False
        self._last_complaint = self._measured = self._synced_at = float("-inf")
        self._opened = self._last_success = time.monotonic()
        #: Why the last write failed; None when it succeeded.
        self._write_error: str | None = None
        #: The defect after which the log is not written any more.
        self._defect: str | None = None
        self._closing = False

    def start(self) -> None:
        self._last_success = self._ship_at = time.monotonic()  # An earlier process may have left segments.
        self._threads.add(self)

    def append(self, rows: LoggedRows) -> None:
        """Queue `rows`. Returns at once. Raises TypeError for a value that JSON cannot express."""
        count = len(rows["prediction_id"])
        if self._full or self._queued + count > MAXIMUM_QUEUE:
            self._drop(count)
        else:
            self._enqueue([line(rows)])

    @property
    def waiting(self) -> int:
        """Rows in memory that are not yet on disk."""
        return self._queued

    @property
    def unshipped(self) -> bool:
        """Whether there are rows that are not in the lake yet."""
        return bool(self._queue) or self._spool.size() > 0

    def problem(self) -> str | None:
        """Why predictions cannot be logged; None when they can."""
        if self._defect:
            return f"The prediction log does not run: {WRITER} ended: {self._defect}"
        seconds = time.monotonic() - self._last_success
        if seconds < PATIENCE_SECONDS:
            return None
        return (
            f"The prediction log could not be written for {seconds:.0f} s: {self._write_error or 'the disk is stuck'}"
        )

    def close(self, timeout: float = 20.0) -> None:
        """Write all rows to disk and try to ship them. What cannot be shipped now is shipped after the next start."""
        self._closing = True
        self._threads.remove(self)
        # In a thread, because the disk or the lake may hang.
        closing = threading.Thread(target=self._close, name=WRITER, daemon=True)
        closing.start()
        closing.join(timeout)

    def _close(self) -> None:
        with self._writing:
            for _ in range(LAST_TRIES):
                if self._try(self._finish):
                    break
                time.sleep(DISK_RETRY_SECONDS)
            if self._queue:
                log.error("The prediction log stops without %d predictions that the disk refused", self._queued)
                self._metrics.dropped.inc(self._queued)
        self._ship_at = time.monotonic()
        for _ in range(LAST_SHIPPINGS):
            while self.ship_turn() or self._shipping.locked():
                time.sleep(0.01)
            if self._ship_at is None:
                return
            time.sleep(max(0.0, self._ship_at - time.monotonic()))

    # --- a writer ---

    @property
    def busy(self) -> bool:
        """See LogThreads."""
        return bool(self._queue) or self._spool.unsynced

    def write_turn(self, sync_seconds: float) -> None:
        """See LogThreads."""
        idle = self._closing or self._defect or time.monotonic() < self._write_at
        if idle or not self._writing.acquire(blocking=False):
            return
        try:
            self._try(lambda: self._write(sync_seconds))
            # The other thread comes between two turns of this one, and finds nothing due.
            self._write_at = time.monotonic() + (DISK_RETRY_SECONDS if self._write_error else 0.9 * WRITER_SECONDS)
        except Exception as error:
            log.exception("The prediction log in %s is not written any more", self._spool.folder)
            self._defect = f"{type(error).__name__}: {error}"
        finally:
            self._writing.release()

    def _try(self, work: Callable[[], None]) -> bool:
        """Do `work`. Returns False after an OSError: then it can be tried again. Logs when failures begin and end."""
        try:
            work()
        except OSError as error:
            if self._write_error is None:
                log.error("Cannot write the prediction log, predictions wait in memory: %s", error)
            self._write_error = str(error)
            return False
        if self._write_error is not None:
            log.warning("The prediction log is written again")
        self._write_error, self._last_success = None, time.monotonic()
        return True

    def _write(self, sync_seconds: float) -> None:
        """Move the queue to the spool, sync it when the last sync was `sync_seconds` ago, seal a segment that is due,
        and measure the spool every SEGMENT_SECONDS."""
        with self._queue_lock:
            lines, self._queue, self._queued = self._queue, [], 0
        if lines:
            self._opened = time.monotonic() if self._spool.rows == 0 else self._opened
            try:
                self._spool.write(lines)
            except Exception:
                self._enqueue(lines, first=True)
                raise
        now = time.monotonic()
        # While a segment waits for a shipper, the open one grows: a commit of one segment costs less than of many.
        due = self._ship_at is None and now - self._opened >= self._ship_seconds
        seals = self._spool.rows >= SEGMENT_ROWS or (self._spool.rows > 0 and due)
        if seals or now - self._synced_at >= sync_seconds:
            self._sync()
        if seals:
            self._spool.seal()
            self._ship_at = time.monotonic()
            self._threads.wake_shippers()
        if now - self._measured >= SEGMENT_SECONDS:
            size = self._spool.size()
            self._measured, self._full = now, size >= MAXIMUM_SPOOL_BYTES
            self._metrics.spool_bytes.set(size)

    def _sync(self) -> None:
        try:
            self._spool.sync()
        except Exception:
            self._enqueue(self._spool.take_back(), first=True)
            raise
        self._synced_at = time.monotonic()

    def _enqueue(self, lines: list[Line], first: bool = False) -> None:
        """Put `lines` into the queue. `first`: before those that are there."""
        with self._queue_lock:
            at = 0 if first else len(self._queue)
            self._queue[at:at] = lines
            self._queued += sum(line.rows for line in lines)

    def _finish(self) -> None:
        self._write(sync_seconds=0.0)
        self._spool.close()

    def _drop(self, rows: int) -> None:
        self._metrics.dropped.inc(rows)
        if time.monotonic() - self._last_complaint > 60:
            self._last_complaint = time.monotonic()
            log.error("The prediction log is full: predictions are answered but not logged until the lake takes some")

    # --- a shipper ---

    def ship_turn(self) -> bool:
        """See LogThreads."""
        if self._ship_at is None or time.monotonic() < self._ship_at or not self._shipping.acquire(blocking=False):
            return False
        try:
            self._ship_at = None  # Before it looks: a segment that is sealed meanwhile is due again.
            if (not self._closing or self._spool.sealed()) and self._to_lake.ship(self.layout):
                self._ship_at = time.monotonic()
            self._pause = RETRY_SECONDS[0]
        except Exception as error:
            reason = error.message if isinstance(error, StepError) else f"{type(error).__name__}: {error}"
            self._to_lake.forget()
            log.warning("Predictions stay in the spool, the lake did not take them: %s", reason)
            self._ship_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, RETRY_SECONDS[1])
            return False
        finally:
            self._shipping.release()
        return self._ship_at is not None
