"""Compute in several processes what a backtest needs: each thing once, and kept, so that a killed backtest resumes."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from importlib import import_module
from multiprocessing.synchronize import Event
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

from training import atomic
from training.contract.base import Frozen
from training.steps.backtest.own_state import Place

T = TypeVar("T", bound=Frozen)


class Jobs:
    """Worker processes for one place. Thread-safe."""

    def __init__(self, place: Place, processes: int) -> None:
        self._place, self._futures, self._lock = place, dict[str, Future](), threading.Lock()
        threads = max(1, (os.cpu_count() or 1) // processes)
        spawn = multiprocessing.get_context("spawn")
        self._stopped = spawn.Event()
        given = (threads, place.settings.log_level, self._stopped)
        self._pool = ProcessPoolExecutor(processes, spawn, _begin, given)

    def __enter__(self) -> "Jobs":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self.stop()
        self._pool.shutdown(cancel_futures=True)

    def stop(self) -> None:
        """End the worker processes at once. Whoever waits for a result of theirs gets an error."""
        self._stopped.set()

    def once(self, name: str, result: type[T], function: str, *arguments: Any) -> "Future[T]":
        """The result of `function(place, *arguments)`, which `name` identifies in the place.

        `function`: `module:function`, of a module beside this one.
        """
        with self._lock:
            if name not in self._futures:
                self._futures[name] = self._pool.submit(_kept, self._place, name, result, function, arguments)
            return cast("Future[T]", self._futures[name])


def _begin(threads: int, log_level: str, stopped: Event) -> None:
    """The start of a worker process. It ends when it is stopped, and with the process that started it, however that
    ends."""
    import logging
    import sys

    # OpenMP reads it when it is loaded, which is later.
    os.environ.update(OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="PASSIVE")
    logging.basicConfig(level=max(logging.WARNING, logging.getLevelName(log_level)), stream=sys.stderr)
    parent = multiprocessing.parent_process()
    for wait in (stopped.wait, *([parent.join] if parent else [])):
        threading.Thread(target=_end_after, args=[wait], daemon=True).start()


def _end_after(wait: Callable[[], object]) -> None:
    wait()
    os._exit(1)


def _kept(place: Place, name: str, result: type[Frozen], function: str, arguments: tuple[Any, ...]) -> Frozen:
    path = Path(place.folder, f"{name}.json")
    if path.is_file():
        return result.model_validate_json(path.read_bytes())
    module, _, named = function.partition(":")
    compute: Callable[..., Frozen] = getattr(import_module(f"{__package__}.{module}"), named)
    found = compute(place, *arguments)
    atomic.write(path, found.model_dump_json(indent=2).encode())
    return found
