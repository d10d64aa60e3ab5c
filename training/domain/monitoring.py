"""What monitoring found, and whether it could measure. Several runs in a row that could not are an error.

Counted in days of data (`as_of`), as all policy is: of several runs as of one day the newest counts.
"""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any, Literal, NamedTuple

from training.contract.base import Days, Frozen
from training.contract.messages import Degradation, DriftResult, PerformanceResult
from training.contract.model_spec import ModelSpec
from training.domain.drift import current_window

Monitor = Literal["drift", "performance"]
MONITORS: tuple[Monitor, ...] = ("drift", "performance")


class TableRead(Frozen):
    """A version of a table: its number, and the digest of the commit that made it (training/delta_log.py)."""

    number: int
    commit: str


class Look(Frozen):
    """What monitoring found of a champion on one day of data. Policies and the broker read the looks of the past."""

    as_of: date
    champion_version: int
    drifted: bool | None = None
    """None: drift was not measured."""
    drifted_share: float = 0.0
    degraded: bool | None = None
    """What was measured, or an estimate that is trusted, says. None: neither does."""
    window: Days | None = None
    """The days whose labels performance was measured on."""
    rows: int = 0
    """Labelled predictions of that window."""
    test: Degradation | None = None

    @classmethod
    def of(
        cls, as_of: date, champion_version: int, drift: DriftResult | None, performance: PerformanceResult | None
    ) -> "Look":
        """The look with these results; None for a monitor that does not look."""
        fields: dict[str, Any] = {}
        if drift is not None and drift.outcome == "measured":
            fields |= {"drifted": drift.drifted, "drifted_share": drift.drifted_share}
        if performance is not None and performance.outcome == "measured":
            fields |= {name: getattr(performance, name) for name in ("degraded", "window", "rows", "test")}
        estimated = performance.estimated if performance is not None else None
        if estimated is not None and estimated.degraded and estimated.trusted:
            fields["degraded"] = True
        return cls(as_of=as_of, champion_version=champion_version, **fields)


class MonitoringRun(Frozen):
    """What one monitoring run found and could not measure: the body of a ledger entry of kind `monitoring_run`."""

    as_of: date
    champion_version: int
    unmeasured: dict[Monitor, str] = {}
    """Monitor → what it lacked; empty when all was measured."""
    tables: dict[str, TableRead] = {}
    """The tables of its snapshot. A later run finds in them whether the lake was restored from an older copy."""
    look: Look | None = None
    """None: an entry of an earlier version."""


class Unmeasured(NamedTuple):
    """A monitor that could not measure in the last `runs` runs, as of `since` and later; what it lacks now."""

    monitor: Monitor
    runs: int
    since: date
    lacks: str


def monitoring_run(drift: DriftResult, performance: PerformanceResult | None, spec: ModelSpec) -> MonitoringRun | None:
    """What the run with these results could not measure. None without a champion: there is nothing to monitor yet."""
    if drift.as_of is None or drift.champion_version is None:
        return None
    unmeasured: dict[Monitor, str] = {}
    if drift.outcome != "measured":
        window = current_window(drift.as_of, spec.monitoring.window_days)
        unmeasured["drift"] = f"fewer than {spec.monitoring.minimum_rows} events in {window}"
    if performance is not None and performance.outcome == "no predictions":
        unmeasured["performance"] = f"no predictions of version {drift.champion_version} in {performance.window}"
    elif performance is not None and performance.outcome == "too few labels":
        unmeasured["performance"] = (
            f"{performance.rows} predictions with a label in {performance.window}: {performance.lacks}"
        )
    look = Look.of(drift.as_of, drift.champion_version, drift, performance)
    return MonitoringRun(as_of=drift.as_of, champion_version=drift.champion_version, unmeasured=unmeasured, look=look)


def unmeasured_for_long(monitor: Monitor, runs: Iterable[MonitoringRun], spec: ModelSpec) -> Unmeasured | None:
    """How long `monitor` has been unable to measure; None while that is within `monitoring.maximum_unmeasured_looks`.

    `runs` are in the order in which they were made. A new champion's predictions need time until their labels are in:
    the label delay and a whole window, from the first run that monitored it. Until then a run that cannot measure its
    performance is passed over, and one that can resets the count.
    """
    newest = {each.as_of: each for each in runs}
    patience = timedelta(
        days=spec.label_spec.delay_days + spec.monitoring.window_days if monitor == "performance" else 0
    )
    successive: list[MonitoringRun] = []
    champion, first = None, date.min
    for each in sorted(newest.values(), key=lambda each: each.as_of):
        if each.champion_version != champion:
            champion, first = each.champion_version, each.as_of
        waiting = each.as_of < first + patience
        if monitor not in each.unmeasured:
            successive = []
        elif not waiting:
            successive.append(each)
    if not successive or waiting or len(successive) < spec.monitoring.maximum_unmeasured_looks:
        return None
    return Unmeasured(monitor, len(successive), successive[0].as_of, successive[-1].unmeasured[monitor])
