"""Loads versions in the background, one at a time, and keeps them loaded as long as they are needed.

The watcher never waits for a download, so a slow artifact store does not delay a rollback to a loaded version. A
version that cannot be loaded is refused with the reason, and tried again after REFUSED_RETRY_SECONDS; one that ended a
process, after LONG_RETRY_SECONDS. If that was the service's, it is refused again until someone allows it.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from serving.load_guard import LoadDied, LoadGuard
from serving.loaded_model import LoadedModel, LoadedModelFactory, MeasuredModel, load_model
from serving.metrics import ModelMetrics
from serving.trials import TrialEnded
from training.adapters.registry import ModelVersion, Registry
from training.contract.errors import DataContractError, StepError, TransientError
from training.contract.model_spec import ModelSpec
from training.contract.replicas import Refusal
from training.settings import ServingSettings
from training.signing import artifact_check

REFUSED_RETRY_SECONDS, LONG_RETRY_SECONDS = 30.0, 600.0

log = logging.getLogger("perennial")


class NotLoaded(Exception):
    """The version is not ready: it is being loaded, it was refused, or its artifact cannot be downloaded now."""


class Loader:
    """`on_done` is called in another thread when a load has ended, and must return at once."""

    def __init__(
        self,
        settings: ServingSettings,
        spec: ModelSpec,
        metrics: ModelMetrics,
        guard: LoadGuard,
        on_done: Callable[[], None],
    ) -> None:
        #: Version → why it was refused. Replaced, never changed.
        self.refused: Mapping[int, Refusal] = {}
        #: Version → when a refused one is tried again (time.monotonic).
        self._retry_at: dict[int, float] = {}
        self._settings, self._spec, self._metrics, self._on_done = settings, spec, metrics, on_done
        self._guard = guard
        self._registry = Registry(settings.tracking_uri)
        self._factory = LoadedModelFactory(settings, spec)
        self._copies = Path(settings.serving) / "models" / spec.name
        self._lock, self._one_load = threading.Lock(), threading.Lock()
        self._loaded: list[LoadedModel] = []
        self._loads: dict[int, threading.Thread] = {}
        #: Version → why its last load failed. The next call of `take` tries again.
        self._failed: dict[int, str] = {}

    @property
    def versions(self) -> list[int]:
        """Those in memory."""
        return sorted(model.version for model in self._loaded)

    @property
    def loading(self) -> bool:
        """Whether a version is being loaded for the first time."""
        tried = {*self._failed, *self.refused, *(model.version for model in self._loaded)}
        return not self._loads.keys() <= tried

    def take(self, wanted: ModelVersion, champion: bool = False) -> LoadedModel:
        """The version, if it is ready. Else raises NotLoaded at once and starts loading it, unless it is refused.

        `champion`: whether it is that of the registry.
        """
        for loaded in self._loaded:
            if loaded.version == wanted.version and wanted.digest == loaded.digest:
                return loaded
        name = f"{self._spec.name} version {wanted.version}"
        refusal = self.refused.get(wanted.version)
        if refusal is not None and time.monotonic() < self._retry_at[wanted.version]:
            raise NotLoaded(f"{name} is refused: {refusal.reason}")
        load = self._loads.get(wanted.version)
        if load is None or not load.is_alive():
            # A daemon thread: a download that hangs must not keep the service from stopping.
            load = threading.Thread(target=self._load, args=(wanted, champion), daemon=True)
            load.name = f"load-{wanted.version}"
            self._loads[wanted.version] = load
            load.start()
        if refusal is not None:
            raise NotLoaded(f"{name} is refused: {refusal.reason}")
        if reason := self._failed.get(wanted.version):
            raise NotLoaded(f"Cannot load {name} yet: {reason}")
        raise NotLoaded(f"{name} is being loaded")

    def from_disk(self, version: int, digest: str) -> LoadedModel:
        """Load a version from the copy on disk, without the registry. `add` keeps it.

        Raises NotLoaded when its features cannot be looked up now, or why the copy is unusable.
        """
        return self._guarded(version, digest)

    def add(self, loaded: LoadedModel) -> None:
        """Keep a version that `from_disk` returned."""
        with self._lock:
            self._loaded = [*(model for model in self._loaded if model.version != loaded.version), loaded]

    def retry(self) -> None:
        """Try refused versions again, also those that ended the service."""
        self._guard.retry(self._spec.name)
        self._retry_at = dict.fromkeys(self._retry_at, 0.0)
        now = {"again": datetime.now(UTC)}
        self.refused = {version: refusal.model_copy(update=now) for version, refusal in self.refused.items()}

    def unload(self) -> None:
        """Drop all versions. Their copies on disk stay, and requests under way keep theirs."""
        with self._lock:
            self._loaded = []

    def keep(self, loaded: Iterable[LoadedModel], wanted: Iterable[int]) -> None:
        """Drop all versions but `loaded` and `wanted`, and their copies on disk. Requests under way keep theirs."""
        versions = {model.version for model in loaded} | set(wanted)
        with self._lock:
            self._loaded = [model for model in self._loaded if model.version in versions]
        self._loads = {v: load for v, load in self._loads.items() if v in versions or load.is_alive()}
        keep = {self.copy(version) for version in {*versions, *self._loads}}
        for folder in self._copies.glob("[0-9]*"):
            if folder not in keep:
                shutil.rmtree(folder, ignore_errors=True)

    def copy(self, version: int) -> Path:
        return self._copies / str(version)

    def _load(self, wanted: ModelVersion, champion: bool) -> None:
        with self._one_load:
            self._try(wanted, champion)
        if wanted.version not in self._failed:  # The watcher's next poll is soon enough for another try.
            self._on_done()

    def _try(self, wanted: ModelVersion, champion: bool) -> None:
        version = wanted.version
        try:
            self._guard.check(self._spec.name, wanted.digest, champion)
            check = artifact_check(self._spec.name, version, self._settings)
            self._registry.download(wanted, self.copy(version), self._settings.artifact_maximum_mib, check)
            loaded = self._guarded(version, wanted.digest, champion)
        except (TransientError, NotLoaded) as error:
            self._failed[version] = str(error)
        except Exception as error:
            reason = _one_line(error) if isinstance(error, StepError) else f"{type(error).__name__}: {error}"
            self._failed.pop(version, None)
            seconds, now = _retry_seconds(error), datetime.now(UTC)
            self._retry_at[version] = time.monotonic() + seconds
            again = now + timedelta(seconds=seconds)
            self.refused = {**self.refused, version: Refusal(reason=reason, at=now, again=again)}
            self._metrics.refused.inc()
            log.error("%s version %d is refused: %s", self._spec.name, version, reason)
        else:
            self._failed.pop(version, None)
            self.refused = {v: refusal for v, refusal in self.refused.items() if v != version}
            self.add(loaded)
            log.info("%s version %d is loaded", self._spec.name, version)

    def _guarded(self, version: int, digest: str, champion: bool = False) -> LoadedModel:
        """The version from its copy on disk, which must have this digest."""
        folder, maximum_mib = self.copy(version), self._settings.artifact_maximum_mib
        check = artifact_check(self._spec.name, version, self._settings)
        # Before its trial. The load itself compares the bytes that it uses: the file may be another by then.
        signed = check(folder) if check else None

        def load() -> LoadedModel:
            model = load_model(folder, self._spec, maximum_mib, signed)
            if model.metadata.digest != digest:
                problem = f"the copy of version {version} in {folder} is not the one that served"
                raise DataContractError(problem, hint="The registry has the version.")
            return self._open(version, model)

        return self._guard.load(self._spec.name, version, digest, folder, load, champion)

    def _open(self, version: int, model: MeasuredModel) -> LoadedModel:
        try:
            return self._factory.open(version, model)
        except StepError:
            raise
        except Exception as error:
            # No reason to refuse the version: on a fresh machine the online store does not exist yet.
            raise NotLoaded(f"features cannot be looked up: {type(error).__name__}: {error}") from error


def _retry_seconds(error: Exception) -> float:
    """After how long a version that was refused with `error` is tried again."""
    return LONG_RETRY_SECONDS if isinstance(error, LoadDied | TrialEnded) else REFUSED_RETRY_SECONDS


def _one_line(error: StepError) -> str:
    return f"{error.message} → {error.hint}" if error.hint else error.message
