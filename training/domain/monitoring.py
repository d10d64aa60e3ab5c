"""Has monitoring been able to measure? One look after another that could not is a monitor that is blind.

Counted in days of data (`as_of`), as all policy is: looks as of the same day are one, and the newest of them counts.
"""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Literal, NamedTuple

from training.contract.base import Frozen
from training.contract.messages import DriftResult, PerformanceResult
from training.contract.model_spec import ModelSpec
from training.domain.drift import current_window

Monitor = Literal["drift", "performance"]
MONITORS: tuple[Monitor, ...] = ("drift", "performance")


class Look(Frozen):
    """What one look at a champion could not measure: the body of a ledger entry of kind `look`."""

    as_of: date
    champion_version: int
    unmeasured: dict[Monitor, str] = {}
    """Monitor → what it lacked; empty when all was measured."""


class Blindness(NamedTuple):
    """A monitor that could not measure in the last `looks` looks, as of `since` and later; what it lacks now."""

    monitor: Monitor
    looks: int
    since: date
    lacks: str


def look(drift: DriftResult, performance: PerformanceResult | None, spec: ModelSpec) -> Look | None:
    """What these results amount to. None without a champion: there is nothing to monitor yet."""
    if drift.as_of is None or drift.champion_version is None:
        return None
    unmeasured: dict[Monitor, str] = {}
    if drift.outcome != "measured":
        window = current_window(drift.as_of, spec.drift.window_days)
        unmeasured["drift"] = f"fewer than {spec.drift.minimum_rows} events in {window}"
    if performance is not None and performance.outcome == "no predictions":
        unmeasured["performance"] = f"no predictions of version {drift.champion_version} in {performance.window}"
    elif performance is not None and performance.outcome == "too few labels":
        unmeasured["performance"] = (
            f"{performance.rows} predictions with a label in {performance.window}, {performance.positives} of them "
            f"positive, where {spec.drift.minimum_positives} are needed and some negative"
        )
    return Look(as_of=drift.as_of, champion_version=drift.champion_version, unmeasured=unmeasured)


def blind(monitor: Monitor, looks: Iterable[Look], spec: ModelSpec) -> Blindness | None:
    """The blindness of `monitor` as of the newest of `looks`, given in the order in which they were made; None when it
    is within `drift.maximum_unmeasured_looks`.

    Looks at the performance of a champion whose predictions cannot have matured yet are passed over: until the label
    delay and a whole window have gone by since the first look at it. One that measures all the same ends a blindness.
    """
    newest = {each.as_of: each for each in looks}
    patience = timedelta(days=spec.label.delay_days + spec.drift.window_days if monitor == "performance" else 0)
    successive: list[Look] = []
    champion, first = None, date.min
    for each in sorted(newest.values(), key=lambda each: each.as_of):
        if each.champion_version != champion:
            champion, first = each.champion_version, each.as_of
        waiting = each.as_of < first + patience
        if monitor not in each.unmeasured:
            successive = []
        elif not waiting:
            successive.append(each)
    if not successive or waiting or len(successive) < spec.drift.maximum_unmeasured_looks:
        return None
    return Blindness(monitor, len(successive), successive[0].as_of, successive[-1].unmeasured[monitor])
