"""Follows the registry for one model: loads the versions that its aliases name, then swaps the traffic at once.

While the registry is away, what is loaded keeps serving, with its division of traffic. A start without the registry
restores the last state from disk. When a version cannot be loaded, the one before it stays. `previous` is kept loaded,
so that a rollback needs no download.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from serving.loaded_model import LoadedModel
from serving.loader import Loader, NotLoaded
from serving.metrics import ModelMetrics
from serving.signals import RolloutSignals
from serving.traffic import Traffic
from training import atomic
from training.adapters.registry import CHALLENGER, CHAMPION, PREVIOUS, ModelState, ModelVersion, Registry
from training.contract.errors import TransientError
from training.contract.model_spec import ModelSpec
from training.contract.replicas import LastTraffic, ModelCopy, Refusal
from training.contract.traffic import FULL, Desired, desired
from training.settings import ServingSettings

FOLLOWED = (CHAMPION, CHALLENGER, PREVIOUS)

log = logging.getLogger("perennial")


class Watcher:
    """`traffic` is replaced whole and never changed: a request reads it once and keeps what it read.

    The thread of RegistryPoll calls `update`. `wake`: have it called soon, because a version has been loaded.
    """

    def __init__(
        self,
        settings: ServingSettings,
        spec: ModelSpec,
        metrics: ModelMetrics,
        signals: RolloutSignals,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.traffic = Traffic()
        #: Why the traffic is not what the registry asks for; None when it is.
        self.problem: str | None = "The service is starting"
        #: The first versions have been loaded, or cannot be.
        self.settled = False
        self.model = spec.name
        self._signals, self._metrics = signals, metrics
        self._registry = Registry(settings.tracking_uri)
        self._loader = Loader(settings, spec, metrics, wake)
        self._last_traffic = Path(settings.serving) / "models" / spec.name / "traffic.json"
        #: (creation time of the registered model, version) → the version's entry, which never changes.
        self._entries: dict[tuple[int, int], ModelVersion] = {}

    @property
    def refused(self) -> Mapping[int, Refusal]:
        return self._loader.refused

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
        self.settled = self.settled or not self._loader.loading

    def _follow(self, found: ModelState | Exception) -> str | None:
        """Returns what is missing, if anything."""
        try:
            if isinstance(found, Exception):
                raise found
            wanted = {alias: self._entry(found, found.aliases.get(alias)) for alias in FOLLOWED}
        except TransientError as error:
            return error.message if self.traffic.champion else self._from_disk(error.message)
        state = found
        asked, bad_tags = desired(state.tags, wanted[CHALLENGER] is not None)
        # The champion comes first: of several versions that are not loaded yet, it is the first to be loaded.
        champion, champion_problem = self._take(CHAMPION, wanted[CHAMPION])
        challenger, challenger_problem = self._take(CHALLENGER, wanted[CHALLENGER])
        # `previous` only makes a rollback faster: a replica without it is well.
        previous, _ = self._take(PREVIOUS, wanted[PREVIOUS])
        if challenger is None:
            asked = asked if asked.mode == "full" else FULL
        self._swap(champion, challenger, previous, asked)
        versions = {version.version for version in wanted.values() if version}
        self._loader.keep(self.traffic.by_alias.values(), versions)
        return champion_problem or bad_tags or challenger_problem

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
            still = f"; version {now.version} keeps serving" if now else ""
            return fallback, f"{self.model} has no {alias} in the registry yet{still}"
        try:
            loaded = self._loader.take(wanted)
        except NotLoaded as reason:
            return fallback, str(reason)
        same = now is not None and (now.version, now.digest) == (loaded.version, loaded.digest)
        return (now if same else loaded.since_now()), None

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
            last = LastTraffic.model_validate_json(self._last_traffic.read_text())
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
        self._swap(champion, others[CHALLENGER], others[PREVIOUS], asked)
        return f"{why}; serving the last good copy, version {champion.version}"

    def _load_copy(self, copy: ModelCopy) -> LoadedModel:
        return self._loader.from_disk(copy.version, copy.digest)
