"""The demo of flight_delay needs flights that drift and a spec that asks for a training because of them. On Airflow it
takes minutes, and only `make demo MODEL=flight_delay` runs all of it."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest

from local.plans import plan_of
from testing.pipeline import Pipeline
from training.contract.base import Days
from training.contract.messages import BacktestInputs, ColumnDrift, DriftResult, PerformanceResult
from training.contract.model_spec import load_model_spec
from training.domain.drift import has_drifted
from training.domain.replay import POLICIES, Judged, Served, replay
from training.settings import Settings
from training.steps import backtest

PLAN = plan_of("flight_delay")
#: The demo's looks → how many of the 21 columns drifted, as the step drift measured it.
COLUMNS, DRIFTED = 21, dict(zip([PLAN.week(number).end for number in range(1, 7)], [0, 5, 6, 3, 4, 5], strict=True))


class DemoWorld:
    """The world of a replay that looks on these days. Each training gives a better model."""

    def __init__(self, drifted: Mapping[date, int], maximum_share: float | None) -> None:
        self._drifted, self._maximum = drifted, maximum_share

    def drift(self, day: date, champion: Served) -> DriftResult:
        columns = {
            f"column {number}": ColumnDrift(score=0, threshold=0.1, method="", drifted=number < self._drifted[day])
            for number in range(COLUMNS)
        }
        drifted, share = has_drifted(columns, self._maximum)
        window = Days.ending(day, 7)
        return DriftResult(outcome="measured", window=window, drifted=drifted, drifted_share=share, columns=columns)

    def performance(self, day: date, champion: Served) -> PerformanceResult:
        raise NotImplementedError

    def train(self, day: date, champion: Served, change: date | None) -> Judged:
        return Judged(f"as of {day}", True, "")


def test_the_spec_asks_for_a_training_when_the_flights_of_the_demo_drift() -> None:
    spec = load_model_spec(PLAN.model)
    assert spec.retraining.policy in ("combined", "drift")
    first = Served(model="first", version=1, since=PLAN.history.end)
    world = DemoWorld(DRIFTED, spec.monitoring.maximum_drifted_share)
    asked = replay(POLICIES["drift"], list(DRIFTED), first, world, spec).trainings
    assert asked, f"In no two successive weeks {spec.monitoring.maximum_drifted_share:.0%} of the columns drift"


@pytest.mark.long
def test_the_flights_of_the_demo_drift_until_the_broker_grants_a_training(
    tmp_path: Path, mlflow_database: Path
) -> None:
    settings = Settings(home=tmp_path, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    changed = Days(start=PLAN.history.end, end=PLAN.week(4).end)
    landed = {"labels": PLAN.first_labels, "events": PLAN.history}
    files = [PLAN.land(tmp_path / "landing", feed, days) for feed, first in landed.items() for days in (first, changed)]
    Pipeline(settings).ingest(PLAN.source, files)
    given = {
        "start": changed.start,
        "end": changed.end,
        "policies": ["drift"],
        "estimators": ["lightgbm"],
        "processes": 1,
    }
    found = backtest.run(BacktestInputs.model_validate({"model": PLAN.model, **given}), settings)
    assert found.days.start == changed.start, "The first champion is not that of the demo"
    assert found.standings[0].trainings >= 1
