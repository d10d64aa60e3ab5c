"""Every answered prediction, durably, without making a caller wait, and exactly once in the lake's `predictions`.

    answer ─► queue ─► writer thread ─► spool on disk ─► shipper thread ─► Delta table

The writer takes whatever has gathered in the queue, writes it and syncs it to disk, at most FLUSH_SECONDS apart: a
`kill -9` loses at most the predictions of that moment (WORST_LOSS_SECONDS with a slow disk in mind), and what has
reached the spool is never lost. The shipper commits sealed segments under the numbers of the spool, as Delta
application transactions, and deletes them afterwards; killed in between, it finds its number in the table and only
deletes. While the lake is away the spool grows up to MAXIMUM_SPOOL_BYTES; beyond that new predictions are dropped,
counted and complained about, and callers still get their answers. While the disk takes nothing, rows wait in the
queue, and `problem` says so: a service that cannot log is not ready.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from serving.metrics import Metrics
from serving.segments import line, read_segment
from serving.spool import Spool
from training.adapters.lake import PREDICTIONS, Lake
from training.adapters.tables import append_predictions
from training.contract.errors import StepError
from training.contract.model_spec import ModelSpec

FLUSH_SECONDS = 0.05
WORST_LOSS_SECONDS = 0.2
#: The pause after the disk refused something, and how often that is tried when the service stops.
DISK_RETRY_SECONDS = 1.0
LAST_TRIES = 3
#: So long may the disk refuse, or take for one write, before the service is not ready.
PATIENCE_SECONDS = 5.0
#: A segment is sealed, and so on its way to the lake, after this many rows or seconds.
SEGMENT_ROWS = 5_000
SEGMENT_SECONDS = 2.0
#: After an outage many segments go in one commit.
COMMIT_ROWS = 100_000
RETRY_SECONDS = (1.0, 30.0)
MAXIMUM_QUEUE = 50_000
MAXIMUM_SPOOL_BYTES = 1 << 30

log = logging.getLogger("perennial")


class PredictionLog:
    """Rows are `LoggedRow`s of training/contract/predictions.py."""

    def __init__(self, folder: Path, lake: Lake, spec: ModelSpec, replica: str, metrics: Metrics) -> None:
        self._spool = Spool(folder)
        self._lake, self._spec, self._metrics = lake, spec, metrics
        self._application = f"predictions-{replica}"
        self._queue: deque[bytes] = deque()
        self._stop, self._written = threading.Event(), threading.Event()
        self._to_ship = threading.Event()
        self._full = False
        self._complained = self._measured = float("-inf")
        self._opened = self._well = time.monotonic()
        #: What the disk said, in a spell of failures.
        self._refused: str | None = None
        self._writer = threading.Thread(target=self._write_until_stopped, name="prediction-writer", daemon=True)
        self._shipper = threading.Thread(target=self._ship_until_stopped, name="prediction-shipper", daemon=True)

    def start(self) -> None:
        self._to_ship.set()  # what a process before this one left
        self._writer.start()
        self._shipper.start()

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take `rows`; returns at once."""
        if self._full or len(self._queue) + len(rows) > MAXIMUM_QUEUE:
            self._drop(len(rows))
        else:
            self._queue.extend([line(row) for row in rows])

    @property
    def waiting(self) -> int:
        """Rows that are in memory alone."""
        return len(self._queue)

    def problem(self) -> str | None:
        """Why predictions cannot be logged; None when they are."""
        dead = [thread.name for thread in (self._writer, self._shipper) if not thread.is_alive()]
        if dead:
            return f"The prediction log does not run: {' and '.join(dead)} ended"
        seconds = time.monotonic() - self._well
        if seconds < PATIENCE_SECONDS:
            return None
        return f"The prediction log could not be written for {seconds:.0f} s: {self._refused or 'the disk is stuck'}"

    def close(self, timeout: float = 10.0) -> None:
        """Write everything down and try to ship it. What cannot be shipped now is shipped after the next start."""
        self._stop.set()
        self._to_ship.set()
        self._writer.join(timeout)
        self._shipper.join(timeout)

    # --- the writer ---

    def _write_until_stopped(self) -> None:
        try:
            while not self._stop.wait(DISK_RETRY_SECONDS if self._refused else FLUSH_SECONDS):
                self._try(self._write)
            for _ in range(LAST_TRIES):
                if self._try(self._finish):
                    break
                time.sleep(DISK_RETRY_SECONDS)
        finally:
            if self._queue:
                log.error("The prediction log ends without %d predictions that it could not write", len(self._queue))
                self._metrics.dropped.inc(len(self._queue))
            self._written.set()
            self._to_ship.set()

    def _try(self, work: Callable[[], None]) -> bool:
        """Do `work`, unless the disk refuses: then it can be done again. Says once that this begins, and ends."""
        try:
            work()
        except OSError as error:
            if self._refused is None:
                log.error("Cannot write the prediction log, predictions wait in memory: %s", error)
            self._refused = str(error)
            return False
        if self._refused is not None:
            log.warning("The prediction log is written again")
        self._refused, self._well = None, time.monotonic()
        return True

    def _write(self) -> None:
        """Move the queue to the spool, seal a segment that is due, measure the spool now and then."""
        lines = [self._queue.popleft() for _ in range(len(self._queue))]
        if lines:
            self._opened = time.monotonic() if self._spool.rows == 0 else self._opened
            try:
                self._spool.write(lines)
            except Exception:
                self._queue.extendleft(reversed(lines))
                raise
        now = time.monotonic()
        if self._spool.rows >= SEGMENT_ROWS or (self._spool.rows and now - self._opened >= SEGMENT_SECONDS):
            self._spool.seal()
            self._to_ship.set()
        if now - self._measured >= SEGMENT_SECONDS:
            size = self._spool.size()
            self._measured, self._full = now, size >= MAXIMUM_SPOOL_BYTES
            self._metrics.spool_bytes.set(size)

    def _finish(self) -> None:
        self._write()
        self._spool.close()

    def _drop(self, rows: int) -> None:
        self._metrics.dropped.inc(rows)
        if time.monotonic() - self._complained > 60:
            self._complained = time.monotonic()
            log.error("The prediction log is full: predictions are answered but not logged until it empties")

    # --- the shipper ---

    def _ship_until_stopped(self) -> None:
        pause, longest = RETRY_SECONDS
        while True:
            self._to_ship.wait()
            self._to_ship.clear()
            last = self._written.is_set()
            try:
                while self._ship():
                    pause = RETRY_SECONDS[0]
            except Exception as error:
                reason = error.message if isinstance(error, StepError) else f"{type(error).__name__}: {error}"
                log.warning("Predictions stay in the spool, the lake did not take them: %s", reason)
                _ = self._written.wait(pause) if self._stop.is_set() else self._stop.wait(pause)
                pause = min(2 * pause, longest)
                self._to_ship.set()
            if last:
                return

    def _ship(self) -> bool:
        """Commit the oldest sealed segments in one go and delete them; False when there are none."""
        sealed = self._spool.sealed()
        if not sealed:
            return False
        applied = self._lake.applied(PREDICTIONS, self._application)
        tables: list[pa.Table] = []
        shipped: list[tuple[int, Path]] = []
        for number, path in sealed:
            # Killed after a commit and before the segments were deleted: they are in the table.
            if applied is None or number > applied:
                table = read_segment(path, self._spec)
                if tables and table.schema != tables[0].schema:  # in the next commit
                    break
                tables.append(table)
            shipped.append((number, path))
            if sum(table.num_rows for table in tables) >= COMMIT_ROWS:
                break
        rows = sum(table.num_rows for table in tables)
        if rows:
            append_predictions(self._lake, pa.concat_tables(tables), self._application, shipped[-1][0])
            log.info("Shipped %d predictions to %s", rows, self._lake.uri(PREDICTIONS))
        for _, path in shipped:
            self._spool.delete(path)
        self._metrics.shipped.inc(rows)
        return True
