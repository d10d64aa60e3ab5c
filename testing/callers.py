"""Threads that call a service while a test does something else."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def calling(count: int, call: Callable[[int, threading.Event], None]) -> Iterator[None]:
    """`call(number, stop)` in `count` threads meanwhile. Each must return soon after `stop` is set."""
    stop = threading.Event()
    threads = [threading.Thread(target=call, args=(number, stop)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
