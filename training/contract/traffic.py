"""The state of traffic that is asked for, as the tags of a registered model say it, next to its aliases.

    alias champion     answers                            tag rollout.mode        shadow, canary, ab or full
    alias challenger   loaded beside it                   tag rollout.weight      percent of keys, 0 to 100
    alias previous     kept warm                          tag rollout.stage       the stage of a rollout, if one runs
                                                          tag rollout.experiment  of mode ab: its name

No tags: the champion answers everything. Tags that make no sense mean the same, and are reported.
"""

import math
from collections.abc import Mapping
from typing import Literal, get_args

from training.contract.base import Frozen

Mode = Literal["full", "shadow", "canary", "ab"]

MODE, WEIGHT, STAGE, EXPERIMENT = "rollout.mode", "rollout.weight", "rollout.stage", "rollout.experiment"
#: In the order in which to write them, so that whoever reads in between sees nothing worse than the state before with
#: another weight; who reports a stage has read all of it.
TAGS = (WEIGHT, EXPERIMENT, MODE, STAGE)


class Desired(Frozen):
    """`weight` in percent."""

    mode: Mode = "full"
    weight: float = 0.0
    stage: str = ""
    experiment: str = ""

    @property
    def tags(self) -> dict[str, str | None]:
        """Tag → value, in the order in which to write them; None removes a tag."""
        split = self.mode in ("canary", "ab")
        values = {
            WEIGHT: f"{self.weight:g}" if split else None,
            EXPERIMENT: self.experiment or None,
            MODE: None if self.mode == "full" and not self.stage else self.mode,
            STAGE: self.stage or None,
        }
        # Traffic that ends, ends first: its weight means nothing without its mode.
        order = TAGS if split else (MODE, WEIGHT, EXPERIMENT, STAGE)
        return {tag: values[tag] for tag in order}


#: The champion answers everything, and no rollout is under way.
FULL = Desired()


def desired(tags: Mapping[str, str], challenger: bool) -> tuple[Desired, str | None]:
    """What `tags` ask for, and what is wrong with them, if anything: then the champion answers everything.

    `challenger`: whether there is a version of that alias.
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
