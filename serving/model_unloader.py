"""Keeps at most CT_SERVING_MAXIMUM_MODELS models in memory: unloads those whose last request is longest ago.

A model with requests, shadows or a rollout under way stays. When all are busy, there are more for a while: the log says
so, and `perennial_models_above_maximum`.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from serving.freed_memory import return_freed_memory
from serving.model_host import ModelHost
from serving.replica import Replica
from training import atomic

#: Between two looks, when no model has been loaded.
LOOK_SECONDS = 1.0
#: Between two writes of the times of the last requests.
SAVE_SECONDS = 10.0

log = logging.getLogger("perennial")


class ModelUnloader:
    """`hosts` returns those of the models that are served now.

    The times of the last requests are kept on disk, so that a replica starts with the models that were used last.
    """

    def __init__(self, replica: Replica, hosts: Callable[[], Iterable[ModelHost]]) -> None:
        self._maximum, self._metrics = replica.settings.serving_maximum_models, replica.metrics
        self._hosts, self._loaded = hosts, replica.models_loaded
        self._path = replica.folder / "last_requests.json"
        #: Model → when its last request came (time.time), at the last write.
        self._saved: Mapping[str, float] = self._read()
        self._save_at, self._too_many = 0.0, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="model-unloader", daemon=True)

    def last_request(self, model: str) -> float:
        """When the last request to `model` came before this process began; 0 when it is not known."""
        return self._saved.get(model, 0.0)

    def loaded_at_start(self, models: Collection[str]) -> set[str]:
        """As many of `models` as fit: those used last, and of models never used those first in the alphabet."""
        by_use = sorted(models, key=lambda model: (-self.last_request(model), model))
        return set(by_use[: self._maximum or None])

    def start(self) -> None:
        if self._maximum:
            self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._stop.set()
            self._loaded.set()
            self._thread.join(5)
            self._save()

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                self._unload()
                if time.monotonic() >= self._save_at:
                    self._save()
            except Exception:
                log.exception("Idle models could not be unloaded")
            self._loaded.wait(LOOK_SECONDS)
            self._loaded.clear()

    def _unload(self) -> None:
        """Unload as many models as there are too many, those whose last request is longest ago first."""
        loaded = [host for host in self._hosts() if host.watcher.in_memory]
        loaded.sort(key=lambda host: host.spec.name, reverse=True)
        loaded.sort(key=lambda host: host.last_request)
        above = too_many = max(len(loaded) - self._maximum, 0)
        for host in loaded:
            if too_many and host.unload():
                too_many -= 1
        if too_many < above:
            return_freed_memory()
        if too_many and not self._too_many:
            log.warning(
                "%d models are in memory, more than CT_SERVING_MAXIMUM_MODELS=%d: all are busy or being loaded",
                self._maximum + too_many,
                self._maximum,
            )
        elif self._too_many and not too_many:
            log.info("No more than CT_SERVING_MAXIMUM_MODELS=%d models are in memory again", self._maximum)
        self._too_many = too_many
        self._metrics.too_many.set(too_many)

    def _save(self) -> None:
        self._save_at = time.monotonic() + SAVE_SECONDS
        now = {host.spec.name: host.last_request for host in self._hosts()}
        if now != self._saved:
            atomic.write(self._path, json.dumps(now).encode())
            self._saved = now

    def _read(self) -> Mapping[str, float]:
        try:
            return {str(model): float(at) for model, at in json.loads(self._path.read_text()).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("%s cannot be read, so no model counts as used: %s", self._path, error)
            return {}
