"""Follows the registry: whatever the aliases name is loaded beside what serves, checked, and swapped in whole.

The registry away: what is loaded keeps serving, a split of traffic included, and a cold start takes the last good
copies on disk. A version that cannot be loaded leaves the one before it in its place. `previous` is kept loaded, so a
rollback costs no download.
"""

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.loaded_model import LoadedModel
from serving.loader import Loader, NotLoaded, Refusal
from serving.metrics import Metrics
from serving.signals import RolloutSignals
from serving.traffic import Traffic
from training import atomic
from training.adapters.registry import CHALLENGER, CHAMPION, PREVIOUS, ModelState, ModelVersion, Registry
from training.contract.errors import TransientError
from training.contract.model_spec import ModelSpec
from training.contract.traffic import FULL, Desired, desired
from training.settings import Settings

FOLLOWED = (CHAMPION, CHALLENGER, PREVIOUS)

log = logging.getLogger("perennial")


class Watcher:
    """`traffic` is replaced whole and never changed: a request takes it once and keeps it."""

    def __init__(
        self, settings: Settings, spec: ModelSpec, metrics: Metrics, signals: RolloutSignals | None = None
    ) -> None:
        self.traffic = Traffic()
        #: What the replica has seen in this state of traffic.
        self.signals = signals or RolloutSignals(spec)
        #: Why traffic is not what the registry asks for; None when it is.
        self.problem: str | None = "The service is starting"
        self._settings, self._spec, self._metrics = settings, spec, metrics
        self._registry = Registry(settings.tracking_uri)
        self._stop, self._wake = threading.Event(), threading.Event()
        self._loader = Loader(settings, spec, metrics, self._wake.set)
        self._last_good = Path(settings.serving) / "models" / spec.name / "traffic.json"
        #: (when the registered model was made, version) → what does not change about a version.
        self._known: dict[tuple[int, int], ModelVersion] = {}
        self._thread = threading.Thread(target=self._watch, name="registry-watcher", daemon=True)

    @property
    def loaded(self) -> Mapping[str, LoadedModel]:
        return self.traffic.loaded

    @property
    def refused(self) -> Mapping[int, Refusal]:
        return self._loader.refused

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout)

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                problem = self.look()
            except Exception as error:
                log.exception("The look at the registry failed")
                problem = f"{type(error).__name__}: {error}"
            if problem != self.problem:
                log.log(logging.WARNING if problem else logging.INFO, "%s", problem or "Serving what is asked for")
            self.problem = problem
            self._wake.wait(self._settings.serving_poll_seconds)

    def look(self) -> str | None:
        """One look at the registry. Returns what stands in the way of serving what it asks for."""
        try:
            state = self._registry.state(self._spec.name)
            wanted = {alias: self._version(state, state.aliases.get(alias)) for alias in FOLLOWED}
        except TransientError as error:
            return error.message if self.traffic.champion else self._from_disk(error.message)
        asked, nonsense = desired(state.tags, wanted[CHALLENGER] is not None)
        # The champion is asked for first: of several that are not loaded yet, its load is the first.
        champion, problem = self._take(CHAMPION, wanted[CHAMPION])
        challenger, hitch = self._take(CHALLENGER, wanted[CHALLENGER])
        # It only makes a rollback quicker: no reason to call the replica anything but well.
        previous, _ = self._take(PREVIOUS, wanted[PREVIOUS])
        if challenger is None:
            asked = asked if asked.mode == "full" else FULL
        self._swap(champion, challenger, previous, asked)
        versions = {version.version for version in wanted.values() if version}
        self._loader.keep(self.traffic.loaded.values(), versions)
        return problem or nonsense or hitch

    def _version(self, state: ModelState, version: int | None) -> ModelVersion | None:
        if version is None:
            return None
        key = (state.created, version)
        if key not in self._known:
            self._known[key] = self._registry.get(self._spec.name, version)
        return self._known[key]

    def _take(self, alias: str, wanted: ModelVersion | None) -> tuple[LoadedModel | None, str | None]:
        """Who takes the place `alias`, and why it is not the version wanted. A champion keeps it until another can."""
        now = self.traffic.loaded.get(alias)
        kept = now if alias == CHAMPION else None
        if wanted is None:
            if alias != CHAMPION:
                return None, None
            still = f"; version {now.version} keeps serving" if now else ""
            return kept, f"{self._spec.name} has no {alias} in the registry yet{still}"
        try:
            loaded = self._loader.take(wanted)
        except NotLoaded as reason:
            return kept, str(reason)
        same = now is not None and (now.version, now.digest) == (loaded.version, loaded.digest)
        return (now if same else loaded.taking_place_now()), None

    def _swap(
        self, champion: LoadedModel | None, challenger: LoadedModel | None, previous: LoadedModel | None, asked: Desired
    ) -> None:
        """Put the new state of traffic in the place of the old one, if they differ."""
        before = self.traffic
        traffic = Traffic(champion, challenger, previous, asked.mode, asked.weight, asked.stage, asked.experiment)
        if traffic == before:
            return
        self.signals.begin(traffic)
        self.traffic = traffic
        if champion is not None:
            self._metrics.champion.labels(self._spec.name).set(champion.version)
            self._remember(traffic)
        for alias in FOLLOWED:
            old, new = (each.loaded[alias].version if alias in each.loaded else None for each in (before, traffic))
            if old != new:
                log.info("%s is version %s now, it was %s", alias, new or "none", old or "none")
        if traffic.state != before.state:
            log.info("Traffic is now: %s", traffic.state)

    def _remember(self, traffic: Traffic) -> None:
        loaded = {
            alias: {"version": loaded.version, "digest": loaded.digest} for alias, loaded in traffic.loaded.items()
        }
        last_good = {"slots": loaded, "traffic": traffic.state.model_dump()}
        atomic.write(self._last_good, json.dumps(last_good).encode())

    def _from_disk(self, why: str) -> str:
        """Serve the last good copies, in the state of traffic they were in, until the registry is back."""
        try:
            last: dict[str, Any] = json.loads(self._last_good.read_text())
            copies = last["slots"]
            champion = self._loader.from_disk(**copies[CHAMPION])
        except Exception as error:
            return f"{why}; no last good copy on disk: {error}"
        others: dict[str, LoadedModel | None] = {CHALLENGER: None, PREVIOUS: None}
        for alias in others.keys() & copies.keys():
            try:
                same = copies[alias]["version"] == champion.version
                others[alias] = champion if same else self._loader.from_disk(**copies[alias])
            except Exception as error:
                log.warning("The %s of before cannot be loaded from disk: %s", alias, error)
        asked = Desired.model_validate(last["traffic"]) if others[CHALLENGER] else FULL
        self._swap(champion, others[CHALLENGER], others[PREVIOUS], asked)
        return f"{why}; serving the last good copy, version {champion.version}"
