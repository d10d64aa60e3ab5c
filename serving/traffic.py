"""Who answers a request and who scores along, at one moment.

The watcher builds a new `Traffic` whenever the registry's aliases or tags change and swaps it in whole; a request
takes it once and keeps it.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from serving.loaded_model import LoadedModel
from training.adapters.features import Plan, Reads
from training.contract.traffic import Desired, Mode

Role = Literal["champion", "challenger", "previous", "pinned"]


@dataclass(frozen=True, eq=False)
class Route:
    """`loaded` answers as `role`; `shadow`, where there is one, scores the same rows after the answer has gone."""

    loaded: LoadedModel
    role: Role
    shadow: LoadedModel | None = None

    @property
    def plans(self) -> set[Plan]:
        """Those of the versions on it; one where both have the same features."""
        return {self.loaded.plan} if self.shadow is None else {self.loaded.plan, self.shadow.plan}

    @cached_property
    def reads(self) -> Reads:
        """What they need of the online store."""
        return Reads(self.plans)


@dataclass(frozen=True)
class Traffic:
    """`weight` is the percentage of keys that the challenger answers; `stage` names the rollout's stage."""

    champion: LoadedModel | None = None
    challenger: LoadedModel | None = None
    previous: LoadedModel | None = None
    mode: Mode = "full"
    weight: float = 0.0
    stage: str = ""
    experiment: str = ""

    def route(self, key: Any) -> Route | None:
        """Who serves the request with this sticky `key`; None when no champion is loaded.

        What the challenger answers or shadows, the champion scores too: signals compare them on the same requests.
        """
        if self._split is not None and bucket(str(key), self.experiment or self.mode) < self.weight:
            return self._split
        return self._usual

    @cached_property
    def _usual(self) -> Route | None:
        if self.champion is None:
            return None
        return Route(self.champion, "champion", self._other if self.mode == "shadow" else None)

    @cached_property
    def _split(self) -> Route | None:
        """Where the challenger answers its share of the keys."""
        if self._other is None or self.mode not in ("canary", "ab"):
            return None
        return Route(self._other, "challenger", self.champion)

    @property
    def _other(self) -> LoadedModel | None:
        """The challenger, where it is another version than the champion and there is one."""
        champion, challenger = self.champion, self.challenger
        alone = champion is None or challenger is None or challenger.version == champion.version
        return None if alone else challenger

    @property
    def loaded(self) -> dict[str, LoadedModel]:
        """Alias → the loaded version."""
        loaded = {"champion": self.champion, "challenger": self.challenger, "previous": self.previous}
        return {alias: each for alias, each in loaded.items() if each is not None}

    @property
    def state(self) -> Desired:
        """The state of traffic that this is."""
        return Desired(mode=self.mode, weight=self.weight, stage=self.stage, experiment=self.experiment)

    def pinned(self, wanted: str) -> LoadedModel | None:
        """The loaded model with this alias or version number; None when it is not loaded."""
        found = [each for alias, each in self.loaded.items() if wanted in (alias, str(each.version))]
        return found[0] if found else None


def bucket(key: str, salt: str) -> float:
    """Where `key` lies in [0, 100): the same for the same key and salt in every process."""
    digest = hashlib.blake2b(f"{salt}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 * 100
