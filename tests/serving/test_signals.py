"""Signals and traffic of one replica: what is counted, when counts begin anew, what it costs."""

import json
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from serving.batch import Batch, LookedUp
from serving.loaded_model import LoadedModel, MeasuredModel
from serving.shadows import Shadowed, Shadows
from serving.signals import RolloutSignals
from serving.traffic import Traffic, bucket
from training.adapters.features import MergedViews, OnlineFeatures
from training.contract.model_spec import ModelSpec
from training.contract.signals import Signals
from training.contract.traffic import Desired, desired
from training.domain.guards import p99


class Model(MeasuredModel):
    """Scores are the first feature; of a negative one, no number."""

    def __init__(self, threshold: float) -> None:
        task = {"kind": "binary", "threshold": threshold}
        metadata = type("Metadata", (), {"task": task, "feature_names": ["x"], "columns": ()})()
        scorer = type("Scorer", (), {"score": lambda _, x: np.where(x[:, 0] < 0, np.nan, x[:, 0])})()
        super().__init__(metadata, scorer)  # type: ignore[arg-type]


def loaded(version: int, threshold: float = 0.5) -> LoadedModel:
    model: Any = Model(threshold)
    return LoadedModel(version, f"d{version}", model, None, [0], datetime.now(UTC))  # type: ignore[arg-type]


@pytest.fixture
def traffic() -> Traffic:
    return Traffic(loaded(1), loaded(2, 0.8), None, "shadow", 0.0, "1.1-shadow")


@pytest.fixture
def signals(spec: ModelSpec, traffic: Traffic) -> RolloutSignals:
    made = RolloutSignals(spec, "r")
    made.begin(traffic)
    return made


def read(signals: RolloutSignals) -> Signals:
    return Signals.model_validate(signals.snapshot())


@pytest.fixture(autouse=True)
def _counting_has_begun(signals: RolloutSignals) -> None:
    signals._began -= 10.0  # requests below say that they took a while


def scores(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_answers_failures_and_comparisons_are_counted(signals: RolloutSignals) -> None:
    signals.answered(1, "champion", [0.004], {"pass": 1, "alert": 2})
    signals.compared(1, 2, 0.0, scores(0.1, 0.6, 0.9), scores(0.2, 0.3, 0.95))
    signals.compared(1, 2, 0.0, scores(*[0.1] * 96), None)
    signals.failed(1, "champion", 0.1, 96)
    signals.answered(2, "pinned", [0.004], {"pass": 1})
    seen = read(signals)
    assert (seen.traffic.stage, seen.champion, seen.challenger) == ("1.1-shadow", 1, 2)
    one, two, pair = seen.of(1), seen.of(2), seen.pair
    # A batch of 96 rows that cannot be scored counts as 96, as it would if it could.
    assert (one.asked, one.errors, one.answered, one.decisions["alert"], one.rows) == (99, 96, 3, 2, 3)
    assert (two.asked, two.errors, two.answered, two.rows) == (99, 96, 0, 3)
    assert (pair.rows, pair.comparable, pair.agreed) == (3, 3, 2)
    assert (pair.champion_decisions, pair.challenger_decisions) == ({"pass": 1, "alert": 2}, {"pass": 2, "alert": 1})
    assert sum(pair.champion_groups.values()) == sum(pair.challenger_groups.values()) == 3
    assert sum(one.times) == 2


def test_signals_of_the_release_before_are_read() -> None:
    pair = {"rows": 30, "both_flagged": 1, "champion_flagged": 2, "challenger_flagged": 4, "champion_scores": [0, 30]}
    before = {"versions": {"1": {"answered": 9, "flagged": 4}}, "pair": pair}
    seen = Signals.model_validate_json(json.dumps(before))
    assert (seen.of(1).answered, seen.of(1).decisions) == (9, {"alert": 4, "pass": 5})
    assert (seen.pair.rows, seen.pair.comparable, seen.pair.agreed) == (30, 30, 24)
    assert seen.pair.champion_decisions == {"alert": 3, "pass": 27}
    assert seen.pair.challenger_decisions == {"alert": 5, "pass": 25}


def test_in_a_canary_the_champion_is_the_one_beside(spec: ModelSpec, traffic: Traffic) -> None:
    signals = RolloutSignals(spec)
    signals.begin(replace(traffic, mode="canary", weight=10.0))
    signals.compared(2, 1, 0.0, scores(0.95), scores(0.1))
    pair = read(signals).pair
    assert (pair.challenger_decisions, pair.champion_decisions) == ({"alert": 1}, {"pass": 1})


def test_what_the_model_does_is_counted_whoever_calls_it(signals: RolloutSignals, traffic: Traffic) -> None:
    assert traffic.challenger is not None
    traffic.challenger.model.score(np.array([[0.5], [-1.0]], np.float32))
    two = read(signals).of(2)
    assert (two.scored, two.nans, sum(two.scoring_times)) == (2, 1, 1)


def test_counts_begin_anew_with_another_state_of_traffic_and_no_other(
    signals: RolloutSignals, traffic: Traffic
) -> None:
    signals.answered(1, "champion", [0.004], {"pass": 1})
    assert traffic.champion is not None
    assert traffic.challenger is not None
    traffic.challenger.model.score(np.array([[-1.0]], np.float32))
    since = read(signals).since
    signals.begin(replace(traffic, previous=loaded(3), champion=traffic.champion.since_now()))
    assert (read(signals).of(1).answered, read(signals).since) == (1, since)
    signals.begin(replace(traffic, stage="1.2-canary"))
    fresh = read(signals)
    assert (fresh.of(1).answered, fresh.of(2).scored, fresh.of(2).nans) == (0, 0, 0)
    # Requests from before the change: one of a version that is not there now, one that took until now, one beside
    # which the challenger scored.
    signals.answered(7, "champion", [0.0], {"pass": 1})
    signals.answered(1, "champion", [60.0], {"pass": 1})
    signals.begin(replace(traffic, mode="canary", weight=10.0))
    signals.compared(1, 2, 0.0, scores(0.1), scores(0.1))
    signals.compared(2, 1, 60.0, scores(0.1), scores(0.1))
    assert read(signals).of(1).asked == read(signals).pair.rows == 0
    assert 7 not in read(signals).versions


class Slow(Model):
    """Scores once it is `let`."""

    def __init__(self, threshold: float) -> None:
        super().__init__(threshold)
        self.let = threading.Event()

    def score(self, features: np.ndarray) -> np.ndarray:
        assert self.let.wait(60)
        return super().score(features)


def shadowed(traffic: Traffic) -> Shadowed:
    """A row that just came, for the challenger of `traffic` to score along."""
    assert traffic.champion is not None
    assert traffic.challenger is not None
    features = OnlineFeatures(np.array([[0.5]], np.float32), [None])
    batch = Batch(
        [{}], LookedUp(MergedViews([]), []), [time.perf_counter()], _features={traffic.challenger.plan: features}
    )
    return Shadowed(traffic.challenger, traffic.champion, batch, scores(0.5), ["id"], datetime.now(UTC), 1)


@pytest.mark.parametrize("same", [False, True])
def test_a_backlog_of_shadows_does_not_hold_up_the_next_stage(spec: ModelSpec, traffic: Traffic, same: bool) -> None:
    signals, dropped, logged = RolloutSignals(spec), list[int](), list[float]()
    shadows = Shadows(signals, lambda _, made, seconds: logged.extend(made), dropped.append)
    model = Slow(0.5)
    slow = replace(loaded(2), model=model)
    first = replace(traffic, challenger=slow)
    then = replace(first, stage="2.1-shadow", challenger=slow if same else loaded(3))
    signals.begin(first)
    for _ in range(50):
        shadows.put(shadowed(first))
    signals.begin(then)
    shadows.put(shadowed(then))
    model.let.set()
    shadows.close(60)
    assert model.work.scored <= 2
    assert (read(signals).of(2 if same else 3).asked, read(signals).pair.rows) == (1, 1)
    assert sum(dropped) + len(logged) == 51


def test_replicas_add_up(spec: ModelSpec, traffic: Traffic) -> None:
    parts = []
    for seconds in (0.001, 0.1):
        signals = RolloutSignals(spec, f"r{seconds}")
        signals.begin(traffic)
        signals._began -= 10.0
        for _ in range(50):
            signals.answered(1, "champion", [seconds], {"pass": 1, "alert": 1})
        signals.compared(1, 2, 0.0, scores(0.1), scores(0.9))
        parts.append(read(signals))
    both = Signals.merged(parts)
    assert (both.of(1).answered, both.of(1).decisions["alert"], both.pair.challenger_decisions["alert"]) == (
        200,
        100,
        2,
    )
    assert p99(both.of(1).times) == pytest.approx(100, rel=0.1)
    assert both.replica == "r0.001, r0.1"


def test_nothing_is_lost_between_threads(signals: RolloutSignals) -> None:
    def work() -> None:
        for _ in range(500):
            signals.answered(1, "champion", [0.004], {"alert": 1})
            signals.compared(1, 2, 0.0, scores(0.1), scores(0.1))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = read(signals)
    assert (seen.of(1).decisions["alert"], seen.pair.rows, sum(seen.of(1).times)) == (2000, 2000, 2000)


# --- traffic ---


def test_a_key_stays_where_it_is_and_weights_only_add_keys(traffic: Traffic) -> None:
    keys = [str(i) for i in range(2000)]

    def challenged(weight: float) -> set[str]:
        canary = replace(traffic, mode="canary", weight=weight)
        return {key for key in keys if (route := canary.route(key)) and route.role == "challenger"}

    ten, half = challenged(10), challenged(50)
    assert ten < half
    assert len(ten) == pytest.approx(200, abs=60)
    assert len(half) == pytest.approx(1000, abs=120)
    assert challenged(0) == set()
    assert len(challenged(100)) == 2000


def test_an_experiment_draws_its_own_keys() -> None:
    assert bucket("7", "a") != bucket("7", "b")


def test_who_answers_and_who_scores_beside(traffic: Traffic) -> None:
    shadow = traffic.route("k")
    assert shadow is not None
    assert shadow.shadow is not None
    assert (shadow.loaded.version, shadow.role, shadow.shadow.version) == (1, "champion", 2)
    assert Traffic().route("k") is None
    promoted = replace(traffic, champion=traffic.challenger, mode="canary", weight=100.0)
    route = promoted.route("k")
    assert route is not None
    assert (route.role, route.shadow) == ("champion", None)
    assert traffic.pinned("challenger") is traffic.pinned("2") is traffic.challenger
    assert traffic.pinned("9") is None


# --- what the registry asks for ---


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ({}, Desired()),
        ({"rollout.mode": "Shadow "}, Desired(mode="shadow")),
        ({"rollout.mode": "canary", "rollout.weight": "12.5%"}, Desired(mode="canary", weight=12.5)),
        (
            {"rollout.mode": "ab", "rollout.weight": "50", "rollout.experiment": "x", "rollout.stage": "s"},
            Desired(mode="ab", weight=50, experiment="x", stage="s"),
        ),
    ],
)
def test_tags_are_read_and_written(tags: dict[str, str], wanted: Desired) -> None:
    assert desired(tags, challenger=True) == (wanted, None)
    written = {tag: value for tag, value in wanted.tags.items() if value is not None}
    assert desired(written, challenger=True) == (wanted, None)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"rollout.mode": "blue-green"}, "not one of full, shadow, canary, ab"),
        ({"rollout.mode": "canary"}, "not a percentage"),
        ({"rollout.mode": "canary", "rollout.weight": "nan"}, "not a percentage"),
        ({"rollout.mode": "canary", "rollout.weight": "101"}, "not a percentage"),
        ({"rollout.mode": "ab", "rollout.weight": "5"}, "names no experiment"),
    ],
)
def test_nonsense_fails_closed_and_is_said(tags: dict[str, str], said: str) -> None:
    wanted, problem = desired(tags, challenger=True)
    assert wanted.mode == "full"
    assert said in (problem or "")


def test_a_split_without_a_challenger_is_no_split() -> None:
    wanted, problem = desired({"rollout.mode": "shadow"}, challenger=False)
    assert (wanted.mode, "no version has the alias challenger" in (problem or "")) == ("full", True)


@pytest.mark.parametrize(
    "before", [Desired(), Desired(mode="shadow", stage="a"), Desired(mode="canary", weight=9, stage="a")]
)
@pytest.mark.parametrize(
    "after", [Desired(), Desired(mode="shadow", stage="b"), Desired(mode="ab", weight=50, experiment="e", stage="b")]
)
def test_whoever_reads_between_two_writes_sees_no_more_traffic_than_before_or_after(
    before: Desired, after: Desired
) -> None:
    tags = {tag: value for tag, value in before.tags.items() if value is not None}
    for tag, value in after.tags.items():
        tags = {name: kept for name, kept in tags.items() if name != tag} | ({tag: value} if value is not None else {})
        seen, _ = desired(tags, challenger=True)
        assert seen.weight <= max(before.weight, after.weight)
        if seen.stage == after.stage != "":
            assert seen == after
