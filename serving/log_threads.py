"""The threads that write and ship the prediction logs of all models."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

#: Of each kind. While the disk or the lake of one model hangs, the other thread works for the other models.
THREADS = 2
WRITER, SHIPPER = "prediction-writer", "prediction-shipper"
#: Between two looks of a writer, and of a shipper that nobody wakes.
WRITER_SECONDS, SHIPPER_SECONDS = 0.05, 1.0
#: A log is synced to disk after this time at the latest.
SYNC_SECONDS = 1.0
#: A commit costs far more than its rows. So after one a shipper rests this many times as long as it took. With many
#: models the commits become fewer, each with the rows of a longer time, and leave the processor to the predictions.
RESTS = 9
#: A turn counts as no longer than this: after one that hung for a minute, the thread must not rest for ten.
LONGEST_SECONDS = 1.0


class Log(Protocol):
    """Both methods return at once when nothing is due or another thread is in them. They raise nothing."""

    @property
    def busy(self) -> bool:
        """Whether there are rows to write or to sync."""

    def write_turn(self, sync_seconds: float) -> None:
        """Write what there is, and sync it when the last sync was `sync_seconds` ago."""
        ...

    def ship_turn(self) -> bool:
        """Returns whether there is more to ship."""
        ...


class LogThreads:
    """They run while there is a log. A log is written and shipped by one thread at a time."""

    def __init__(self) -> None:
        #: Replaced, never changed.
        self._logs: tuple[Log, ...] = ()
        self._lock, self._wake, self._stop = threading.Lock(), threading.Event(), threading.Event()

    def add(self, log: Log) -> None:
        with self._lock:
            first, self._logs = not self._logs, (*self._logs, log)
            if first:
                self._stop = threading.Event()
                for _ in range(THREADS):
                    self._start(WRITER, self._write)
                    self._start(SHIPPER, self._ship)
        self.wake_shippers()

    def remove(self, log: Log) -> None:
        """A turn of the log that is in progress may end later."""
        with self._lock:
            self._logs = tuple(each for each in self._logs if each is not log)
            if not self._logs:
                self._stop.set()
                self._wake.set()

    def wake_shippers(self) -> None:
        self._wake.set()

    def _start(self, name: str, work: Callable[[threading.Event], None]) -> None:
        threading.Thread(target=work, args=(self._stop,), name=name, daemon=True).start()

    def _write(self, stop: threading.Event) -> None:
        while not stop.wait(WRITER_SECONDS):
            # One sync per round, however many logs there are: each costs as much as a dozen predictions.
            sync_seconds = min(SYNC_SECONDS, WRITER_SECONDS * (sum(log.busy for log in self._logs) - 1))
            for log in self._logs:
                log.write_turn(sync_seconds)

    def _ship(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._wake.wait(SHIPPER_SECONDS)
            self._wake.clear()
            while any([_ship_and_rest(log, stop) for log in self._logs]) and not stop.is_set():
                pass


def _ship_and_rest(log: Log, stop: threading.Event) -> bool:
    """As `log.ship_turn()`. Then the thread rests, until `stop`."""
    began = time.monotonic()
    more = log.ship_turn()
    stop.wait(RESTS * min(time.monotonic() - began, LONGEST_SECONDS))
    return more
