"""The threads that the prediction logs share."""

import time
from collections.abc import Iterator

import pytest

from serving import log_threads
from serving.log_threads import SYNC_SECONDS, THREADS, WRITER_SECONDS, LogThreads
from testing.waiting import eventually


class SlowLog:
    """There is always more to ship, and it takes `seconds`."""

    busy = False

    def __init__(self, seconds: float) -> None:
        self.seconds, self.shipped = seconds, 0

    def write_turn(self, sync_seconds: float) -> None:
        pass

    def ship_turn(self) -> bool:
        time.sleep(self.seconds)
        self.shipped += 1
        return True


@pytest.fixture
def threads() -> Iterator[LogThreads]:
    yield (made := LogThreads())
    for log in made._logs:
        made.remove(log)


class BusyLog(SlowLog):
    """Has rows to sync at all times, and ships nothing."""

    busy = True

    def __init__(self) -> None:
        super().__init__(0.0)
        self.sync_seconds = list[float]()

    def write_turn(self, sync_seconds: float) -> None:
        self.sync_seconds.append(sync_seconds)

    def ship_turn(self) -> bool:
        return False


@pytest.mark.parametrize(("idle", "busy", "seconds"), [(20, 1, 0.0), (0, 3, 2 * WRITER_SECONDS), (0, 50, SYNC_SECONDS)])
def test_the_more_logs_are_busy_the_less_often_each_is_synced(
    threads: LogThreads, idle: int, busy: int, seconds: float
) -> None:
    for _ in range(idle):
        threads.add(SlowLog(0.0))
    logs = [BusyLog() for _ in range(busy)]
    for log in logs:
        threads.add(log)
    eventually(lambda: all(len(log.sync_seconds) > 5 for log in logs))
    assert logs[-1].sync_seconds[-1] == pytest.approx(seconds)


def test_shipping_takes_a_small_share_of_the_time(threads: LogThreads) -> None:
    logs = [SlowLog(0.02) for _ in range(20)]
    for log in logs:
        threads.add(log)
    time.sleep(2)
    # Without rests, each thread would ship 100 times; on a busy machine, less than ten times with them.
    assert 0 < sum(log.shipped for log in logs) <= THREADS * (2 / 0.2 + 2)


def test_a_log_that_hangs_does_not_delay_the_next_for_long(
    threads: LogThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_threads, "LONGEST_SECONDS", 0.01)
    hanging = [SlowLog(1.0) for _ in range(THREADS)]
    for log in hanging:
        threads.add(log)
    began = time.monotonic()
    eventually(lambda: all(log.shipped >= 2 for log in hanging))
    assert time.monotonic() - began < 20
