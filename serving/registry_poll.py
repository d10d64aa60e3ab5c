"""Reads the registry for all models of the service, in one thread and with few requests."""

import logging
import threading

from serving.watcher import Watcher
from training.adapters.registry import Registry

log = logging.getLogger("perennial")


class RegistryPoll:
    """Gives every watcher the state of its model, every `seconds`. An error of one does not affect the others."""

    def __init__(self, registry: Registry, seconds: float) -> None:
        self._registry, self._seconds = registry, seconds
        #: Replaced, never changed.
        self._watchers: tuple[Watcher, ...] = ()
        self._stop, self._wake = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._poll_until_stopped, name="registry-poll", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        self._stop.set()
        self.wake()
        self._thread.join(timeout)

    def add(self, watcher: Watcher) -> None:
        with self._lock:
            self._watchers = (*self._watchers, watcher)
        self.wake()

    def remove(self, watcher: Watcher) -> None:
        """An update that is in progress may still end later."""
        with self._lock:
            self._watchers = tuple(each for each in self._watchers if each is not watcher)

    def wake(self) -> None:
        """Poll now."""
        self._wake.set()

    def poll(self) -> None:
        """Ask the registry once and update every watcher."""
        watchers = self._watchers
        try:
            states = self._registry.states(sorted({watcher.model for watcher in watchers}))
        except Exception as error:
            for watcher in watchers:
                watcher.update(error)
            return
        for watcher in watchers:
            watcher.update(states[watcher.model])

    def _poll_until_stopped(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            self.poll()
            self._wake.wait(self._seconds)
