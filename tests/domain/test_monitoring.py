"""When a monitor has been unable to measure for too long, in days of data."""

from datetime import date, timedelta

import pytest

from training.contract.base import Days
from training.contract.messages import DriftResult, PerformanceResult
from training.contract.model_spec import ModelSpec
from training.domain.monitoring import MonitoringRun, monitoring_run, unmeasured_for_long

START = date(2026, 3, 1)
#: card_fraud: 7 days of delay and a window of 7, in which a new champion is not expected to be measured.
PATIENCE = 14


def runs(
    *unmeasured_days: int, of: str = "performance", seen: range = range(30), champion: int = 1
) -> list[MonitoringRun]:
    return [
        MonitoringRun(
            as_of=START + timedelta(days=day),
            champion_version=champion,
            unmeasured={of: f"lacking on day {day}"} if day in unmeasured_days else {},
        )
        for day in seen
    ]


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ((27, 28, 29), 3),
        ((20, 27, 28, 29), 3),
        (tuple(range(30)), 30 - PATIENCE),
        ((28, 29), None),
        ((26, 27, 28), None),
        ((), None),
    ],
)
def test_the_newest_runs_in_succession_count(days: tuple[int, ...], expected: int | None, spec: ModelSpec) -> None:
    found = unmeasured_for_long("performance", runs(*days), spec)
    assert (found and found.runs) == expected
    if found:
        assert found.since == START + timedelta(days=30 - found.runs)
        assert found.lacks == "lacking on day 29"


def test_each_monitor_has_its_own_count(spec: ModelSpec) -> None:
    assert unmeasured_for_long("drift", runs(27, 28, 29), spec) is None
    assert unmeasured_for_long("drift", runs(0, 1, 2, of="drift", seen=range(3)), spec) is not None


def test_a_day_counts_with_its_newest_run(spec: ModelSpec) -> None:
    again = runs(seen=range(28, 29))
    assert unmeasured_for_long("performance", runs(27, 28, 29) + again, spec) is None
    assert unmeasured_for_long("performance", again + runs(27, 28, 29), spec) is not None


def test_runs_that_are_days_apart_are_successive(spec: ModelSpec) -> None:
    assert unmeasured_for_long("performance", runs(*range(0, 60, 7), seen=range(0, 60, 7)), spec) is not None


def test_a_new_champion_gets_its_time_and_forgives_nothing(spec: ModelSpec) -> None:
    before = runs(20, 21, seen=range(22))
    waiting = runs(*range(22, 36), seen=range(22, 36), champion=2)
    assert unmeasured_for_long("performance", before + waiting, spec) is None
    found = unmeasured_for_long("performance", before + waiting + runs(36, seen=range(36, 37), champion=2), spec)
    assert found is not None
    assert (found.runs, found.since) == (3, START + timedelta(days=20))


def test_the_spec_says_how_many(spec: ModelSpec) -> None:
    strict = spec.model_copy(update={"monitoring": spec.monitoring.model_copy(update={"maximum_unmeasured_looks": 1})})
    assert unmeasured_for_long("performance", runs(29), strict) is not None


def test_what_was_lacking_is_told(spec: ModelSpec) -> None:
    window = Days.ending(START, 7)
    drift = DriftResult(outcome="no data", as_of=START, champion_version=4)
    few = PerformanceResult(
        outcome="too few labels", window=window, rows=30, lacks="2 positive, where 20 of each class are needed"
    )
    found = monitoring_run(drift, few, spec)
    assert found is not None
    assert found.unmeasured == {
        "drift": f"fewer than 1000 events in {window}",
        "performance": f"30 predictions with a label in {window}: 2 positive, where 20 of each class are needed",
    }
    none = monitoring_run(drift, PerformanceResult(outcome="no predictions", window=window), spec)
    assert none is not None
    assert none.unmeasured["performance"] == f"no predictions of version 4 in {window}"


@pytest.mark.parametrize(
    "drift",
    [
        DriftResult(outcome="no champion", as_of=START),
        DriftResult(outcome="no data", as_of=None),
    ],
)
def test_without_a_champion_there_is_nothing_to_monitor(drift: DriftResult, spec: ModelSpec) -> None:
    assert monitoring_run(drift, PerformanceResult(outcome="no champion"), spec) is None
