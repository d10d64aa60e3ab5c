"""How traffic is divided between versions. The aliases and tags of a registered model define it:

    alias champion     answers requests               tag rollout.mode        shadow, canary, ab or full
    alias challenger   shadows, or answers a part     tag rollout.weight      percent of keys, 0 to 100
    alias previous     kept loaded for a rollback     tag rollout.stage       the stage of a rollout, if one runs
                                                      tag rollout.experiment  of mode ab: its name
                                                      tag rollout.first       who loads a version before the others

Without tags, the champion answers all requests. It also does so when the tags are invalid; the replicas report that.
"""

import math
from collections.abc import Mapping
from typing import Literal, get_args

from training.contract.base import Frozen

Mode = Literal["full", "shadow", "canary", "ab"]

MODE, WEIGHT, STAGE, EXPERIMENT = "rollout.mode", "rollout.weight", "rollout.stage", "rollout.experiment"
#: The order in which to write the tags. A replica that reads them in between sees at worst the old state with the new
#: weight. The stage is last, so a replica that reports the stage has read all tags.
TAGS = (WEIGHT, EXPERIMENT, MODE, STAGE)


#: `<version>`, or `<version> <replica>`: see FirstLoad.
FIRST = "rollout.first"


class FirstLoad(Frozen):
    """The version that `replica` loads before the others do. They do not load it as challenger while the tag is there.

    Without a name no replica does: the version waits for its rollout.
    """

    version: int
    replica: str = ""

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> "FirstLoad | None":
        """What the tag says; None when it is missing or does not begin with a version."""
        version, _, replica = tags.get(FIRST, "").strip().partition(" ")
        return cls(version=int(version), replica=replica.strip()) if version.isdecimal() else None

    def __str__(self) -> str:
        return f"{self.version} {self.replica}".strip()


class Desired(Frozen):
    """The desired state of traffic. `weight`: percent of keys that the challenger answers."""

    mode: Mode = "full"
    weight: float = 0.0
    stage: str = ""
    experiment: str = ""

    @property
    def tags(self) -> dict[str, str | None]:
        """Tag → value, in the order in which to write them. None removes the tag."""
        split = self.mode in ("canary", "ab")
        values = {
            WEIGHT: f"{self.weight:g}" if split else None,
            EXPERIMENT: self.experiment or None,
            MODE: None if self.mode == "full" and not self.stage else self.mode,
            STAGE: self.stage or None,
        }
        # To end a split of traffic, the mode is changed first, because the weight has no effect without it.
        order = TAGS if split else (MODE, WEIGHT, EXPERIMENT, STAGE)
        return {tag: values[tag] for tag in order}


#: The champion answers all requests, and no rollout is under way.
FULL = Desired()


def desired(tags: Mapping[str, str], challenger: bool) -> tuple[Desired, str | None]:
    """The state that `tags` define, and what is wrong with them (None: nothing). With invalid tags the state is FULL.

    `challenger`: whether a version has that alias.
    """
    mode, stage = tags.get(MODE, "full").strip().lower() or "full", tags.get(STAGE, "").strip()
    experiment = tags.get(EXPERIMENT, "").strip()
    if mode not in get_args(Mode):
        return FULL, f"tag {MODE} is {tags[MODE]!r}, not one of {', '.join(get_args(Mode))}"
    if mode == "full":
        return Desired(stage=stage), None
    if not challenger:
        return FULL, f"tag {MODE} is {mode}, but no version has the alias challenger"
    weight = 0.0
    if mode in ("canary", "ab"):
        try:
            weight = float(tags.get(WEIGHT, "").strip().removesuffix("%"))
        except ValueError:
            weight = math.nan
        if not 0 <= weight <= 100:
            return FULL, f"tag {WEIGHT} is {tags.get(WEIGHT, '')!r}, not a percentage from 0 to 100"
    if mode == "ab" and not experiment:
        return FULL, f"tag {MODE} is ab, but tag {EXPERIMENT} names no experiment"
    return Desired.model_validate({"mode": mode, "weight": weight, "stage": stage, "experiment": experiment}), None
