"""Loads versions beside what serves, one after another, and keeps them ready until they are let go.

The watcher never waits for a download: however slow the artifact store is, a rollback to a version that is loaded
already takes no longer. A version that fails is refused with the reason, and tried again now and then.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from serving.loaded_model import LoadedModel, LoadedModelFactory, MeasuredModel, load_model
from serving.metrics import Metrics
from training.adapters.registry import ModelVersion, Registry
from training.contract.errors import StepError, TransientError
from training.contract.model_spec import ModelSpec
from training.settings import ServingSettings

REFUSED_RETRY_SECONDS = 30.0

log = logging.getLogger("perennial")


@dataclass(frozen=True)
class Refusal:
    reason: str
    at: datetime
    retry: float


class NotLoaded(Exception):
    """The version cannot take a place now: it is being loaded, is refused, or its artifact cannot be had."""


class Loader:
    """`ready`, called when a load has ended, must return at once."""

    def __init__(self, settings: ServingSettings, spec: ModelSpec, metrics: Metrics, ready: Callable[[], None]) -> None:
        self.refused: Mapping[int, Refusal] = {}
        self._settings, self._spec, self._metrics, self._ready = settings, spec, metrics, ready
        self._registry = Registry(settings.tracking_uri)
        self._factory = LoadedModelFactory(settings, spec)
        self._copies = Path(settings.serving) / "models" / spec.name
        self._lock, self._one_load = threading.Lock(), threading.Lock()
        self._loaded: list[LoadedModel] = []
        self._loads: dict[int, threading.Thread] = {}
        #: Version → why its last load, which is tried again at the next look, did not succeed.
        self._waiting: dict[int, str] = {}

    def take(self, wanted: ModelVersion) -> LoadedModel:
        """The version, ready to answer. Raises NotLoaded at once when it is not; its load then begins, if it may."""
        for loaded in self._loaded:
            if loaded.version == wanted.version and wanted.digest in ("", loaded.digest):
                return loaded
        name = f"{self._spec.name} version {wanted.version}"
        refusal = self.refused.get(wanted.version)
        if refusal is not None and time.monotonic() < refusal.retry:
            raise NotLoaded(f"{name} is refused: {refusal.reason}")
        load = self._loads.get(wanted.version)
        if load is None or not load.is_alive():
            # A daemon: a download that hangs must not keep the service from ending.
            load = threading.Thread(target=self._load, args=(wanted,), name=f"load-{wanted.version}", daemon=True)
            self._loads[wanted.version] = load
            load.start()
        if refusal is not None:
            raise NotLoaded(f"{name} is refused: {refusal.reason}")
        if reason := self._waiting.get(wanted.version):
            raise NotLoaded(f"Cannot load {name} yet: {reason}")
        raise NotLoaded(f"{name} is being loaded")

    def from_disk(self, version: int, digest: str) -> LoadedModel:
        """The last good copy of a version, while there is no registry. Raises whatever stands in the way."""
        model = load_model(self.copy(version), self._spec)
        if model.metadata.digest != digest:
            raise NotLoaded(f"the copy on disk of version {version} is not the one that served")
        loaded = self._open(version, model)
        self._loaded.append(loaded)
        return loaded

    def keep(self, loaded: Iterable[LoadedModel], wanted: Iterable[int]) -> None:
        """Let go of all others than `loaded` and the versions `wanted`: freed with the last request that has one."""
        versions = {each.version for each in loaded} | set(wanted)
        with self._lock:
            self._loaded = [each for each in self._loaded if each.version in versions]
        self._loads = {v: load for v, load in self._loads.items() if v in versions or load.is_alive()}
        keep = {self.copy(version) for version in {*versions, *self._loads}}
        for folder in self._copies.glob("[0-9]*"):
            if folder not in keep:
                shutil.rmtree(folder, ignore_errors=True)

    def copy(self, version: int) -> Path:
        return self._copies / str(version)

    def _load(self, wanted: ModelVersion) -> None:
        with self._one_load:
            self._try(wanted)
        if wanted.version not in self._waiting:  # else the next look is soon enough
            self._ready()

    def _try(self, wanted: ModelVersion) -> None:
        version = wanted.version
        try:
            model = load_model(self._registry.download(wanted, self.copy(version)), self._spec)
            loaded = self._open(version, model)
        except (TransientError, NotLoaded) as error:
            self._waiting[version] = str(error)
        except Exception as error:
            reason = _one_line(error) if isinstance(error, StepError) else f"{type(error).__name__}: {error}"
            self._waiting.pop(version, None)
            retry = time.monotonic() + REFUSED_RETRY_SECONDS
            self.refused = {**self.refused, version: Refusal(reason, datetime.now(UTC), retry)}
            self._metrics.refused.labels(self._spec.name).inc()
            log.error("%s version %d is refused: %s", self._spec.name, version, reason)
        else:
            self._waiting.pop(version, None)
            self.refused = {v: refusal for v, refusal in self.refused.items() if v != version}
            with self._lock:
                self._loaded = [*(each for each in self._loaded if each.version != version), loaded]
            log.info("%s version %d is loaded", self._spec.name, version)

    def _open(self, version: int, model: MeasuredModel) -> LoadedModel:
        try:
            return self._factory.open(version, model)
        except StepError:
            raise
        except Exception as error:
            # The online store is not the model's fault; on a fresh machine it does not exist yet.
            raise NotLoaded(f"features cannot be looked up: {type(error).__name__}: {error}") from error


def _one_line(error: StepError) -> str:
    return f"{error.message} → {error.hint}" if error.hint else error.message
