"""Which version answers a request, and which one shadows it.

The watcher builds a new `Traffic` whenever the aliases or tags in the registry change, and replaces the old one whole.
A request reads it once and keeps what it read.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from serving.loaded_model import LoadedModel
from training.adapters.features import FeaturePlan, MergedViews
from training.adapters.registry import CHALLENGER, CHAMPION, PREVIOUS
from training.contract.predictions import AnsweringRole
from training.contract.replicas import LoadedVersion
from training.contract.traffic import Desired, Mode


@dataclass(frozen=True, eq=False)
class Route:
    """`loaded` answers as `role`. `shadow`, if there is one, scores the same rows after the answer has been sent."""

    loaded: LoadedModel
    role: AnsweringRole
    shadow: LoadedModel | None = None

    @property
    def plans(self) -> set[FeaturePlan]:
        """The feature plans of both versions: a single one where they have the same features."""
        return {self.loaded.plan} if self.shadow is None else {self.loaded.plan, self.shadow.plan}

    @cached_property
    def merged_views(self) -> MergedViews:
        """What both versions read from the online store."""
        return MergedViews(self.plans)


@dataclass(frozen=True)
class Traffic:
    """The loaded versions and how requests are divided between them.

    `weight` is the percentage of keys that the challenger answers; `stage` names the stage of the rollout. `unloaded`
    is the champion while no version is in memory: the next request loads it.
    """

    champion: LoadedModel | None = None
    challenger: LoadedModel | None = None
    previous: LoadedModel | None = None
    mode: Mode = "full"
    weight: float = 0.0
    stage: str = ""
    experiment: str = ""
    unloaded: LoadedVersion | None = None

    def route(self, key: Any) -> Route | None:
        """Who answers the request with this sticky `key`; None when no champion is loaded.

        The champion also scores what the challenger answers or shadows: signals compare them on the same requests.
        """
        if self._challenger_route is not None and bucket(str(key), self.experiment or self.mode) < self.weight:
            return self._challenger_route
        return self._champion_route

    @cached_property
    def _champion_route(self) -> Route | None:
        if self.champion is None:
            return None
        return Route(self.champion, "champion", self._other if self.mode == "shadow" else None)

    @cached_property
    def _challenger_route(self) -> Route | None:
        """None when the challenger answers no requests."""
        if self._other is None or self.mode not in ("canary", "ab"):
            return None
        return Route(self._other, "challenger", self.champion)

    @property
    def _other(self) -> LoadedModel | None:
        """The challenger, if there is one and it is another version than the champion."""
        champion, challenger = self.champion, self.challenger
        alone = champion is None or challenger is None or challenger.version == champion.version
        return None if alone else challenger

    @property
    def by_alias(self) -> dict[str, LoadedModel]:
        """Alias → its loaded version."""
        models = {CHAMPION: self.champion, CHALLENGER: self.challenger, PREVIOUS: self.previous}
        return {alias: loaded for alias, loaded in models.items() if loaded is not None}

    @property
    def versions(self) -> dict[str, LoadedVersion]:
        """Alias → the version that serves, also when it is unloaded."""
        if self.unloaded is not None:
            return {CHAMPION: self.unloaded}
        return {
            alias: LoadedVersion(version=loaded.version, digest=loaded.digest, since=loaded.since)
            for alias, loaded in self.by_alias.items()
        }

    @property
    def can_answer(self) -> bool:
        """Whether there is a champion, in memory or unloaded."""
        return self.champion is not None or self.unloaded is not None

    @property
    def state(self) -> Desired:
        """The traffic without the versions, as the tags of the registry describe it."""
        return Desired(mode=self.mode, weight=self.weight, stage=self.stage, experiment=self.experiment)

    def pinned(self, wanted: str) -> LoadedModel | None:
        """The loaded model with this alias or version number; None when it is not loaded."""
        found = [loaded for alias, loaded in self.by_alias.items() if wanted in (alias, str(loaded.version))]
        return found[0] if found else None


def bucket(key: str, salt: str) -> float:
    """The place of `key` in [0, 100): the same for the same key and salt in every process."""
    digest = hashlib.blake2b(f"{salt}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 * 100
