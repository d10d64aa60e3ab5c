"""What policies do in worlds whose drift, performance and verdicts are given."""

from collections.abc import Callable
from datetime import date, timedelta

import pytest

from training.contract.base import Days
from training.contract.messages import Degradation, DriftResult, PerformanceResult
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.replay import POLICIES, Judged, Replay, Served, look_days, replay, weeks

START = date(2026, 1, 5)
PERIOD = Days(start=START, end=START + timedelta(days=7 * 12 + 3))
LOOKS = look_days(PERIOD, 7)
FIRST = Served(model="first", version=1, since=START + timedelta(days=1))
Found = Callable[[date, Served], bool]


class GivenWorld:
    """Drift and a fall of performance come when these functions say so; a verdict promotes unless its day is kept."""

    def __init__(self, drifts: Found, falls: Found, keeps: set[date], fails: set[date]) -> None:
        self._drifts, self._falls, self._keeps, self._fails = drifts, falls, keeps, fails
        self.trained: list[tuple[date, str]] = []

    def drift(self, day: date, champion: Served) -> DriftResult:
        window = Days.ending(day, 7)
        return DriftResult(outcome="measured", window=window, drifted=self._drifts(day, champion), drifted_share=0.5)

    def performance(self, day: date, champion: Served) -> PerformanceResult:
        if not self._falls(day, champion):
            return PerformanceResult(outcome="measured")
        test = Degradation(
            metric="roc_auc", drop=0.3, standard_error=0.01, look=1, confidence=0.99, lowest_drop=0.2, allowed=0.1
        )
        return PerformanceResult(outcome="measured", test=test, degraded=True)

    def train(self, day: date, champion: Served, change: date | None) -> Judged:
        self.trained.append((day, champion.model))
        if day in self._fails:
            return Judged("", False, "thin labels")
        return Judged(f"as of {day}", day not in self._keeps, "the verdict")


def _never(day: date, champion: Served) -> bool:
    return False


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return load_model_spec("card_fraud")


def _replay(
    policy: str,
    spec: ModelSpec,
    drifts: Found = _never,
    falls: Found = _never,
    keeps: frozenset[date] = frozenset(),
    fails: frozenset[date] = frozenset(),
) -> Replay:
    world = GivenWorld(drifts, falls, set(keeps), set(fails))
    found = replay(POLICIES[policy], LOOKS, FIRST, world, spec)
    assert [day for day, _ in world.trained] == [each.day for each in found.trainings]
    assert [model for _, model in world.trained] == [each.before for each in found.trainings]
    return found


def test_looks_and_weeks_of_a_period() -> None:
    assert LOOKS[0] == START + timedelta(days=7)
    assert LOOKS[-1] == START + timedelta(days=84)
    assert [week.start for week in weeks(PERIOD)] == [START + timedelta(days=7 * n + 1) for n in range(12)]
    assert weeks(PERIOD)[-1].end <= PERIOD.end


@pytest.mark.parametrize(("policy", "trainings"), [("never", 0), ("weekly", 12), ("monthly", 3)])
def test_a_schedule(spec: ModelSpec, policy: str, trainings: int) -> None:
    found = _replay(policy, spec, drifts=lambda day, champion: True)
    assert len(found.trainings) == trainings
    assert {each.trigger for each in found.trainings} <= {"schedule"}


def test_a_new_champion_serves_from_the_day_after_its_training(spec: ModelSpec) -> None:
    found = _replay("monthly", spec, keeps=frozenset({START + timedelta(days=56)}))
    trained = START + timedelta(days=28)
    assert [each.outcome for each in found.asked] == ["promoted", "kept", "promoted"]
    assert (found.serving(trained).model, found.serving(START).model) == ("first", "first")
    assert found.serving(trained + timedelta(days=1)).model == f"as of {trained}"
    assert [each.version for each in found.served] == [1, 2, 3]


def test_the_broker_asks_for_as_many_windows_with_drift_as_the_spec(spec: ModelSpec) -> None:
    """Two of them, and two weeks between trainings: the reference model's spec. A new champion begins anew."""
    changed = START + timedelta(days=20)
    found = _replay("drift", spec, drifts=lambda day, champion: day > changed and champion.version == 1)
    assert [(each.day, each.outcome) for each in found.asked] == [
        (START + timedelta(days=21), "refused"),
        (START + timedelta(days=28), "promoted"),
    ]
    assert "1 of 2 successive windows" in found.asked[0].why


def test_a_fall_of_performance_cools_down_while_the_verdict_keeps_the_champion(spec: ModelSpec) -> None:
    found = _replay("performance", spec, falls=lambda day, champion: champion.version == 1, keeps=frozenset(LOOKS[:3]))
    outcomes = [each.outcome for each in found.asked]
    # The second training waits for the cooldown, the third for twice as long, as the fall has lasted since.
    assert outcomes == ["kept", "refused", "kept", "refused", "refused", "refused", "promoted"]
    assert "Cooldown" in found.asked[1].why
    assert "Not recovered: performance was granted 2 trainings" in found.asked[4].why


def test_combined_takes_the_stronger_reason(spec: ModelSpec) -> None:
    found = _replay("combined", spec, drifts=lambda *_: True, falls=lambda day, champion: day == LOOKS[2])
    assert [(each.trigger, each.outcome) for each in found.asked[:3]] == [
        ("drift", "refused"),
        ("drift", "promoted"),
        ("performance", "refused"),
    ]


def test_a_training_that_fails_changes_nothing_and_is_told(spec: ModelSpec) -> None:
    found = _replay("weekly", spec, fails=frozenset(LOOKS[:1]))
    assert (found.asked[0].outcome, found.asked[0].why) == ("failed", "thin labels")
    assert found.served[1].since == LOOKS[1] + timedelta(days=1)
