"""Follows the registry for one model: loads the versions that its aliases name, then swaps the traffic at once.

While the registry is away, what is loaded keeps serving, with its division of traffic. A start without the registry
restores the last state from disk. When a version cannot be loaded, the one before it stays. `previous` is kept loaded,
so that a rollback needs no download.

A model may be unloaded (CT_SERVING_MAXIMUM_MODELS). Its champion is loaded again, from the copy on disk, by a request
or when the registry asks for other versions. Then the watcher goes on as if it had been in memory all the time.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from serving.load_guard import LoadGuard
from serving.loaded_model import LoadedModel
from serving.loader import Loader, NotLoaded
from serving.metrics import ModelMetrics
from serving.signals import RolloutSignals
from serving.traffic import Traffic
from training import atomic
from training.adapters.registry import CHALLENGER, CHAMPION, PREVIOUS, ModelState, ModelVersion, Registry
from training.contract.errors import InputError, TransientError
from training.contract.model_spec import ModelSpec
from training.contract.replicas import LastTraffic, LoadedVersion, ModelCopy, Refusal
from training.contract.traffic import FIRST, FULL, Desired, FirstLoad, desired
from training.settings import ServingSettings

FOLLOWED = (CHAMPION, CHALLENGER, PREVIOUS)
#: Alias → the version that the registry asks for; FIRST → one that this replica loads before the others.
Wanted = Mapping[str, ModelVersion | None]

log = logging.getLogger("perennial")


class Watcher:
    """`traffic` is replaced whole and never changed: a request reads it once and keeps what it read.

    The thread of RegistryPoll calls `update`, and any thread `load` and `unload`. `wake`: have `update` called soon,
    because a version has been loaded. `on_load`: the model takes up memory now.
    """

    def __init__(
        self,
        settings: ServingSettings,
        spec: ModelSpec,
        metrics: ModelMetrics,
        signals: RolloutSignals,
        guard: LoadGuard,
        wake: Callable[[], None] = lambda: None,
        on_load: Callable[[], None] = lambda: None,
    ) -> None:
        self.traffic = Traffic()
        #: Why the traffic is not what the registry asks for; None when it is.
        self.problem: str | None = "The service is starting"
        #: The first versions have been loaded, or cannot be.
        self.settled = False
        #: Why the challenger is not loaded although it could be; None when it is, or there is none.
        self.held_back: str | None = None
        #: Why the champion is not the one that the registry asks for; None when it is.
        self.champion_problem: str | None = self.problem
        self.model = spec.name
        self._signals, self._metrics, self._wake, self._on_load = signals, metrics, wake, on_load
        #: Held while the traffic is changed, but not while a version is loaded or the registry is asked.
        self._lock = threading.RLock()
        #: The champion is what the registry asks for, and no rollout is under way.
        self._may_unload = False
        #: The last load of an unloaded champion.
        self._load = Future[None]()
        self._load.set_result(None)
        self._registry = Registry(settings.tracking_uri)
        self._loader = Loader(settings, spec, metrics, guard, wake)
        self._last_traffic = Path(settings.serving) / "models" / spec.name / "traffic.json"
        #: (creation time of the registered model, version) → the version's entry, which never changes.
        self._entries: dict[tuple[int, int], ModelVersion] = {}

    @property
    def loaded_versions(self) -> list[int]:
        """Those in memory."""
        return self._loader.versions

    @property
    def refused(self) -> Mapping[int, Refusal]:
        return self._loader.refused

    def retry(self) -> None:
        """Try refused versions again, also those during whose load the service ended."""
        self._loader.retry()
        self._wake()

    def update(self, found: ModelState | Exception) -> None:
        """Take over the model's state in the registry, as far as it is loaded. `found`: it, or why it is not known."""
        try:
            problem = self._follow(found)
        except Exception as error:
            log.exception("%s: the registry could not be followed", self.model)
            problem = f"{type(error).__name__}: {error}"
        if problem != self.problem:
            message = problem or "serving what is asked for"
            log.log(logging.WARNING if problem else logging.INFO, "%s: %s", self.model, message)
        self.problem = problem
        self.settled = self.settled or self.traffic.unloaded is not None or not self._loader.loading

    def _follow(self, found: ModelState | Exception) -> str | None:
        """Returns what is missing, if anything."""
        try:
            if isinstance(found, Exception):
                raise found
            self._metrics.wanted_champion.set(found.aliases.get(CHAMPION) or 0)
            self._metrics.registry_answers.set(1)
            wanted = {FIRST: None} | {alias: self._entry(found, found.aliases.get(alias)) for alias in FOLLOWED}
            first = FirstLoad.of(found.tags)
            mine = first is not None and first.replica == self._signals.replica
            with suppress(InputError):  # Anyone can edit the tag: there may be no such version.
                wanted[FIRST] = self._entry(found, first.version) if first is not None and mine else None
        except TransientError as error:
            self._metrics.registry_answers.set(0)
            return error.message if self.traffic.can_answer else self._from_disk(error.message)
        asked, bad_tags = desired(found.tags, wanted[CHALLENGER] is not None)
        with self._lock:
            if self.traffic.unloaded is None:
                self.held_back = None if mine else self._why_held_back(wanted[CHALLENGER], first)
                return self._take_all(wanted, asked, bad_tags)
            self.champion_problem = self._take_none(self.traffic.unloaded, wanted, asked)
            return self.champion_problem or bad_tags

    def _take_none(self, unloaded: LoadedVersion, wanted: Wanted, asked: Desired) -> str | None:
        """Leave the model unloaded unless the registry asks for more. Returns what is missing, if anything."""
        self._loader.unload()  # A load that was under way may have ended since.
        self._may_unload = _nothing_to_load(unloaded, wanted, asked)
        if self._may_unload:
            return None if wanted[CHAMPION] else self._no_champion(unloaded.version)
        self.load()
        return f"{self.model} was unloaded, and is being loaded: the registry asks for other versions"

    def _take_all(self, wanted: Wanted, asked: Desired, bad_tags: str | None) -> str | None:
        """Take over what is loaded. Returns what is missing, if anything."""
        # The champion comes first: of several versions that are not loaded yet, it is the first to be loaded.
        champion, self.champion_problem = self._take(CHAMPION, wanted[CHAMPION])
        if self.held_back is None:
            challenger, challenger_problem = self._take(CHALLENGER, wanted[CHALLENGER])
        else:
            challenger, challenger_problem = None, None if asked.mode == "full" else self.held_back
        # If it has no alias, it only has to be loaded.
        _, first_problem = self._take(FIRST, wanted[FIRST])
        # `previous` only makes a rollback faster: a replica without it is well.
        previous, _ = self._take(PREVIOUS, wanted[PREVIOUS])
        if challenger is None:
            asked = asked if asked.mode == "full" else FULL
        self._swap(champion, challenger, previous, asked)
        self._may_unload = champion is not None and _nothing_to_load(champion, wanted, asked)
        versions = {version.version for version in wanted.values() if version}
        self._loader.keep(self.traffic.by_alias.values(), versions)
        return self.champion_problem or bad_tags or challenger_problem or first_problem

    def _why_held_back(self, challenger: ModelVersion | None, first: FirstLoad | None) -> str | None:
        """Why the challenger must not be loaded yet; None when it may, or when it is loaded."""
        if challenger is None or first is None or challenger.version != first.version:
            return None
        if challenger.version in self._loader.versions:
            return None
        waits = f"is loaded by replica {first.replica} first" if first.replica else "waits for its rollout"
        return f"{self.model} version {challenger.version} {waits}, as the tag {FIRST} says"

    def _entry(self, state: ModelState, version: int | None) -> ModelVersion | None:
        if version is None:
            return None
        key = (state.created, version)
        if key not in self._entries:
            self._entries[key] = self._registry.get(self.model, version)
        return self._entries[key]

    def _take(self, alias: str, wanted: ModelVersion | None) -> tuple[LoadedModel | None, str | None]:
        """The version for `alias`, and why it is not `wanted`. A champion stays until its successor is loaded."""
        now = self.traffic.by_alias.get(alias)
        fallback = now if alias == CHAMPION else None
        if wanted is None:
            if alias != CHAMPION:
                return None, None
            return fallback, self._no_champion(now.version if now else None)
        try:
            loaded = self._loader.take(wanted, champion=alias == CHAMPION)
        except NotLoaded as reason:
            return fallback, str(reason)
        same = now is not None and (now.version, now.digest) == (loaded.version, loaded.digest)
        return (now if same else loaded.since_now()), None

    def _no_champion(self, serving: int | None) -> str:
        still = f"; version {serving} keeps serving" if serving is not None else ""
        return f"{self.model} has no {CHAMPION} in the registry yet{still}"

    def _swap(
        self, champion: LoadedModel | None, challenger: LoadedModel | None, previous: LoadedModel | None, asked: Desired
    ) -> None:
        """Replace the state of traffic by the new one, if they differ."""
        before = self.traffic
        traffic = Traffic(champion, challenger, previous, asked.mode, asked.weight, asked.stage, asked.experiment)
        if traffic == before:
            return
        self._signals.begin(traffic)
        self.traffic = traffic
        if champion is not None:
            self._metrics.champion.set(champion.version)
            self._save(traffic)
            if before.champion is None:
                self._on_load()
        for alias in FOLLOWED:
            old, new = (each.by_alias[alias].version if alias in each.by_alias else None for each in (before, traffic))
            if old != new:
                log.info("%s of %s is version %s now, it was %s", alias, self.model, new or "none", old or "none")
        if traffic.state != before.state:
            log.info("Traffic of %s is now: %s", self.model, traffic.state)

    def _save(self, traffic: Traffic) -> None:
        models = {
            alias: ModelCopy(version=loaded.version, digest=loaded.digest) for alias, loaded in traffic.by_alias.items()
        }
        last = LastTraffic(models=models, traffic=traffic.state)
        atomic.write(self._last_traffic, last.model_dump_json().encode())

    def _from_disk(self, why: str) -> str:
        """Restore the last state of traffic from the copies on disk, until the registry is back."""
        try:
            last = self._last()
            champion = self._load_copy(last.models[CHAMPION])
        except Exception as error:
            return f"{why}; no last good copy on disk: {error}"
        others: dict[str, LoadedModel | None] = {CHALLENGER: None, PREVIOUS: None}
        for alias in others.keys() & last.models.keys():
            try:
                same = last.models[alias].version == champion.version
                others[alias] = champion if same else self._load_copy(last.models[alias])
            except Exception as error:
                log.warning("The last %s of %s cannot be loaded from disk: %s", alias, self.model, error)
        asked = last.traffic if others[CHALLENGER] else FULL
        with self._lock:
            self._swap(champion, others[CHALLENGER], others[PREVIOUS], asked)
            self._may_unload = asked == FULL and others[CHALLENGER] is None
        return f"{why}; serving the last good copy, version {champion.version}"

    def _last(self) -> LastTraffic:
        """What served last. Raises OSError or ValueError when the file is missing or cannot be read."""
        return LastTraffic.model_validate_json(self._last_traffic.read_text())

    def _load_copy(self, copy: ModelCopy) -> LoadedModel:
        loaded = self._loader.from_disk(copy.version, copy.digest)
        self._loader.add(loaded)
        return loaded

    # --- a model that is unloaded ---

    @property
    def in_memory(self) -> bool:
        """Whether a version takes up memory, or will in a moment."""
        return bool(self.traffic.by_alias) or not self._load.done()

    def start_unloaded(self) -> None:
        """Before the first `update`: begin with the champion that served last as unloaded.

        Does nothing when its copy is not on disk or a rollout was under way: then versions are loaded as usual.
        """
        try:
            last = self._last()
        except (OSError, ValueError):
            return
        champion = last.models.get(CHAMPION)
        if champion is None or last.traffic != FULL or CHALLENGER in last.models:
            return
        if self._loader.copy(champion.version).is_dir():
            unloaded = LoadedVersion(version=champion.version, digest=champion.digest, since=datetime.now(UTC))
            self.traffic, self.settled, self._may_unload = Traffic(unloaded=unloaded), True, True
            self._metrics.champion.set(champion.version)

    def unload(self) -> bool:
        """Free the memory of all versions. Returns False, and does nothing, when a rollout is under way or the registry
        asks for a version that is not loaded yet. Requests under way keep what they use.
        """
        with self._lock:
            champion = self.traffic.versions.get(CHAMPION)
            if champion is None or not self.traffic.by_alias or not self._may_unload:
                return False
            self.traffic = Traffic(unloaded=champion)
            self._loader.unload()
        log.info("%s version %d is unloaded. The next request loads it", self.model, champion.version)
        return True

    def load(self) -> Future[None]:
        """Start loading the unloaded champion from its copy on disk, unless that has begun.

        The future ends when the champion can answer. It raises NotLoaded when another try may succeed. It raises
        another error when the copy cannot be used: then the versions are loaded from the registry.
        """
        with self._lock:
            if self._load.done() and self.traffic.unloaded is not None:
                self._load = Future()
                self._load.set_running_or_notify_cancel()  # No caller can cancel it.
                work = (self.traffic.unloaded, self._load)
                threading.Thread(target=self._load_unloaded, args=work, name=f"load-{self.model}", daemon=True).start()
                self._on_load()
            return self._load

    def _load_unloaded(self, unloaded: LoadedVersion, done: Future[None]) -> None:
        try:
            loaded = self._loader.from_disk(unloaded.version, unloaded.digest)
            with self._lock:
                self._loader.add(loaded)
                self._swap(replace(loaded, since=unloaded.since), None, None, FULL)
        except NotLoaded as error:
            log.warning("%s cannot be loaded again: %s", self.model, error)
            done.set_exception(error)
        except Exception as error:
            log.error("%s cannot be loaded from disk: %s", self.model, error)
            with self._lock:
                self.traffic = Traffic()
            done.set_exception(error)
        else:
            log.info("%s version %d is loaded again", self.model, unloaded.version)
            done.set_result(None)
        self._wake()  # `previous` may have to be loaded too, or what the registry asks for.


def _nothing_to_load(champion: ModelCopy | LoadedModel, wanted: Wanted, asked: Desired) -> bool:
    """Whether `champion` is all that the registry asks for: no other champion, and no rollout."""
    version = wanted[CHAMPION]
    same = version is None or (version.version == champion.version and version.digest == champion.digest)
    return same and wanted[CHALLENGER] is None and wanted[FIRST] is None and asked == FULL
