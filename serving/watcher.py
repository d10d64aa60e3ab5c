"""Follows the registry: whatever the aliases name is loaded beside what serves, checked, and swapped in whole.

The registry away: what is loaded keeps serving, and a cold start takes the last good copy on disk. A version that fails
is refused with the reason, and tried again now and then; meanwhile the old one serves. `previous` is kept loaded, so a
rollback costs no download.
"""

import json
import logging
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.metrics import Metrics
from serving.replica import write_atomically
from serving.slots import Slot, load_model, open_slot
from serving.traffic import Traffic
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import CHAMPION, PREVIOUS, ModelVersion, Registry
from training.contract.errors import StepError, TransientError
from training.contract.model_spec import ModelSpec
from training.settings import Settings

FOLLOWED = (CHAMPION, PREVIOUS)
REFUSED_RETRY_SECONDS = 30.0

log = logging.getLogger("perennial")


@dataclass(frozen=True)
class Refusal:
    reason: str
    at: datetime
    retry: float


class NotNow(Exception):
    """A version cannot be loaded for a reason that is not its own: try again soon."""


class Watcher:
    """`slots`, alias → slot, is replaced whole and never changed: a request takes it once and keeps it."""

    def __init__(self, settings: Settings, spec: ModelSpec, metrics: Metrics) -> None:
        self.slots: Mapping[str, Slot] = {}
        self.refused: Mapping[int, Refusal] = {}
        #: Why the slots are not what the registry asks for; None when they are.
        self.problem: str | None = "The service is starting"
        self._settings, self._spec, self._metrics = settings, spec, metrics
        self._registry = Registry(settings.tracking_uri)
        self._copies = Path(settings.serving) / "models" / spec.name
        self._last_good = self._copies / f"{CHAMPION}.json"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="registry-watcher", daemon=True)

    @property
    def traffic(self) -> Traffic:
        return Traffic(champion=self.slots.get(CHAMPION), previous=self.slots.get(PREVIOUS))

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        self._stop.set()
        self._thread.join(timeout)

    def _watch(self) -> None:
        while True:
            try:
                problem = self.look()
            except Exception as error:
                log.exception("The look at the registry failed")
                problem = f"{type(error).__name__}: {error}"
            if problem != self.problem:
                log.log(logging.WARNING if problem else logging.INFO, "%s", problem or "Serving what is asked for")
            self.problem = problem
            if self._stop.wait(self._settings.serving_poll_seconds):
                return

    def look(self) -> str | None:
        """One look at the registry. Returns what stands in the way of serving what it asks for."""
        try:
            wanted = {alias: self._registry.by_alias(self._spec.name, alias) for alias in FOLLOWED}
        except TransientError as error:
            return error.message if CHAMPION in self.slots else self._from_disk(error.message)
        loaded = {(slot.version, slot.digest): slot for slot in self.slots.values()}
        problem = self._follow(CHAMPION, wanted[CHAMPION], loaded)
        if problem is None:
            # It only makes a rollback quicker: no reason to call the replica anything but well.
            self._follow(PREVIOUS, wanted[PREVIOUS], loaded)
            self._forget_old_copies()
        return problem

    def _follow(self, alias: str, wanted: ModelVersion | None, loaded: Mapping[tuple[int, str], Slot]) -> str | None:
        """Put `wanted` in the place `alias`. Returns why that was not possible."""
        name, now = self._spec.name, self.slots.get(alias)
        if wanted is None:
            kept = f"; version {now.version} keeps serving" if now else ""
            return f"{name} has no {alias} in the registry yet{kept}"
        if now is not None and (now.version, now.digest) == (wanted.version, wanted.digest or now.digest):
            return None
        try:
            slot = loaded.get((wanted.version, wanted.digest)) or self._load(wanted)
        except NotNow as reason:
            return f"Cannot load {name} version {wanted.version} yet: {reason}"
        if slot is None:
            return f"{name} version {wanted.version} is refused: {self.refused[wanted.version].reason}"
        self._place(alias, slot)
        return None

    def _place(self, alias: str, slot: Slot) -> None:
        before = self.slots.get(alias)
        self.slots = {**self.slots, alias: slot.taking_place_now()}
        self.refused = {version: refusal for version, refusal in self.refused.items() if version != slot.version}
        if alias == CHAMPION:
            self._metrics.champion.labels(self._spec.name).set(slot.version)
            write_atomically(self._last_good, json.dumps({"version": slot.version, "digest": slot.digest}))
        log.info("%s is version %d now, it was %s", alias, slot.version, before.version if before else "none")

    def _load(self, wanted: ModelVersion) -> Slot | None:
        """The version, ready to answer; None when it is refused. Raises NotNow."""
        refusal = self.refused.get(wanted.version)
        if refusal is not None and time.monotonic() < refusal.retry:
            return None
        try:
            model = load_model(self._registry.download(wanted, self._copy(wanted.version)), self._spec)
            return self._open(wanted.version, model)
        except (TransientError, NotNow) as error:
            raise NotNow(str(error)) from error
        except Exception as error:
            reason = error.message if isinstance(error, StepError) else f"{type(error).__name__}: {error}"
            retry = time.monotonic() + REFUSED_RETRY_SECONDS
            self.refused = {**self.refused, wanted.version: Refusal(reason, datetime.now(UTC), retry)}
            self._metrics.refused.labels(self._spec.name).inc()
            log.error("%s version %d is refused: %s", self._spec.name, wanted.version, reason)
            return None

    def _open(self, version: int, model: OnnxModel) -> Slot:
        try:
            return open_slot(version, model, self._settings, self._spec)
        except StepError:
            raise
        except Exception as error:
            # The online store is not the model's fault; on a fresh machine it does not exist yet.
            raise NotNow(f"features cannot be looked up: {type(error).__name__}: {error}") from error

    def _from_disk(self, why: str) -> str:
        """Serve the last good copy until the registry is back."""
        try:
            last: dict[str, Any] = json.loads(self._last_good.read_text())
            model = load_model(self._copy(last["version"]), self._spec)
            if model.metadata.digest != last["digest"]:
                return f"{why}; the copy on disk of version {last['version']} is not the one that served"
            slot = self._open(last["version"], model)
        except Exception as error:
            return f"{why}; no last good copy on disk: {error}"
        self._place(CHAMPION, slot)
        return f"{why}; serving the last good copy, version {slot.version}"

    def _copy(self, version: int) -> Path:
        return self._copies / str(version)

    def _forget_old_copies(self) -> None:
        keep = {self._copy(slot.version) for slot in self.slots.values()}
        for folder in self._copies.glob("[0-9]*"):
            if folder not in keep:
                shutil.rmtree(folder, ignore_errors=True)
