"""Guards: what trips beyond chance and what is chance."""

import re
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from training.contract.predictions import ALERT, PASS
from training.contract.rollout_spec import GuardSpec
from training.contract.signals import NO_TIMES, TIME_BUCKETS, PairSignals, Signals, VersionSignals
from training.contract.traffic import Desired
from training.domain.evaluation_set import EvaluationSet
from training.domain.experiment import alert_rates, qualities
from training.domain.guards import Finding, beyond_chance, examine, p99, population_stability, quality
from training.domain.tasks.binary import ScoredBinary

ALERT_RATE = 0.005


def times(*seconds: float) -> tuple[int, ...]:
    counts = list(NO_TIMES)
    for each in seconds:
        counts[int(np.searchsorted(TIME_BUCKETS, each))] += 1
    return tuple(counts)


def signals(
    new: VersionSignals, old: VersionSignals | None = None, pair: PairSignals | None = None, mode: str = "canary"
) -> Signals:
    asked = Desired.model_validate({"mode": mode, "weight": 10 if mode == "canary" else 0})
    versions = {1: old or VersionSignals(), 2: new}
    return Signals(traffic=asked, champion=1, challenger=2, versions=versions, pair=pair or PairSignals())


def tripped(found: Signals, final: bool = False, **guards: float | None) -> set[str]:
    return {f.guard for f in examine(found, GuardSpec.model_validate(guards), ALERT_RATE, final) if f.tripped}


@given(st.integers(1, 400), st.integers(0, 400), st.floats(0.001, 0.999))
def test_chance_is_the_binomial_tail(total: int, count: int, limit: float) -> None:
    count = min(count, total)
    tail = float(binom.sf(count - 1, total, limit))
    if abs(tail - 0.001) > 1e-9:
        assert beyond_chance(count, total, limit, 0.999) == (count > limit * total and tail < 0.001)


@pytest.mark.parametrize(
    ("errors", "asked", "trips"), [(5, 5, True), (1, 5, False), (1, 500, False), (20, 500, True), (0, 0, False)]
)
def test_errors_trip_beyond_chance(errors: int, asked: int, trips: bool) -> None:
    assert tripped(signals(VersionSignals(asked=asked, errors=errors))) == ({"error_rate"} if trips else set())


@pytest.mark.parametrize(
    ("errors", "asked", "trips"),
    [(1, 1, True), (1, 2, True), (1, 20, True), (0, 20, False), (0, 0, False), (1, 500, False)],
)
def test_a_stage_that_ends_with_few_requests_is_judged_by_the_plain_share(errors: int, asked: int, trips: bool) -> None:
    new = signals(VersionSignals(asked=asked, errors=errors))
    assert tripped(new, final=True) == ({"error_rate"} if trips else set())
    assert "error_rate" not in tripped(new)


def test_silence_lets_no_share_pass_that_is_over_its_limit() -> None:
    new = signals(VersionSignals(asked=120, errors=2, scored=120, nans=2))
    guards = {"maximum_nan_share": 0.01}
    assert tripped(new, final=True, **guards) == set()
    found = examine(new, GuardSpec.model_validate(guards), ALERT_RATE, final=True, silent=True)
    assert {f.guard for f in found if f.tripped} == {"error_rate", "nan_share"}


@pytest.mark.parametrize(("errors", "trips"), [(3, False), (4, True)])
def test_most_requests_failed_is_too_much_also_where_errors_are_not_guarded(errors: int, trips: bool) -> None:
    new = signals(VersionSignals(asked=6, errors=errors))
    assert tripped(new, final=True, maximum_error_rate=None) == ({"error_rate"} if trips else set())
    assert tripped(new, maximum_error_rate=None) == set()


def test_a_stage_of_minutes_alone_that_failed_most_of_many_is_over_with_a_failure() -> None:
    most, some = (signals(VersionSignals(asked=960, errors=errors)) for errors in (960, 400))
    assert tripped(most, final=True, maximum_error_rate=None) == {"error_rate"}
    assert tripped(some, final=True, maximum_error_rate=None) == set()


def test_with_limit_0_any_nan_trips_the_guard() -> None:
    new = VersionSignals(scored=10_000, nans=1)
    assert tripped(signals(new)) == {"nan_share"}
    assert tripped(signals(new), maximum_nan_share=0.01) == set()
    assert tripped(signals(new), maximum_nan_share=None) == set()


def test_p99_is_that_of_the_times() -> None:
    seconds = np.random.default_rng(0).gamma(2, 0.01, 5000)
    assert p99(times(*seconds)) == pytest.approx(1000 * np.quantile(seconds, 0.99), rel=0.11)
    assert p99(NO_TIMES) == 0


def test_slowness_is_judged_absolutely_and_against_the_champion() -> None:
    quick, slow, very_slow = (VersionSignals(times=times(*[s] * 100)) for s in (0.01, 0.2, 0.5))
    assert tripped(signals(very_slow, very_slow)) == {"p99"}
    assert tripped(signals(slow, quick)) == {"p99"}
    assert tripped(signals(slow, slow)) == set()
    assert tripped(signals(slow, quick), maximum_p99_ratio=None) == set()
    assert tripped(signals(slow, quick), p99_slack_ms=300) == set()
    # Times in the tail that one in a hundred has are no p99.
    assert tripped(signals(VersionSignals(times=times(*[0.01] * 990, *[1.0] * 9)), quick)) == set()


def test_few_times_wait_for_the_end_of_the_stage() -> None:
    new = signals(VersionSignals(times=times(*[1.0] * 20)))
    assert tripped(new) == set()
    assert tripped(new, final=True) == {"p99"}


def test_in_a_shadow_the_scoring_is_timed() -> None:
    new = VersionSignals(scoring_times=times(*[1.0] * 100), times=NO_TIMES)
    assert tripped(signals(new, mode="shadow")) == {"p99"}


@pytest.mark.parametrize(
    ("both", "champion", "challenger", "guards", "trips"),
    [
        (5, 0, 0, {}, set()),
        (5, 0, 95, {}, {"alert_rate"}),
        (0, 0, 6, {}, set()),  # 6 of 1,000 where the champion has none: alert_rate says that 5 are as made
        (0, 0, 60, {}, {"alert_rate"}),
        (200, 0, 200, {}, set()),  # twice, where thrice is the limit
        (100, 300, 300, {}, {"agreement"}),
        (100, 300, 0, {"minimum_alert_ratio": 0.5, "minimum_agreement": None}, {"alert_rate"}),
    ],
)
def test_decisions_are_compared_on_the_same_requests(
    both: int, champion: int, challenger: int, guards: dict[str, Any], trips: set[str]
) -> None:
    old, new = both + champion, both + challenger
    pair = PairSignals(
        rows=1000,
        comparable=1000,
        agreed=1000 - champion - challenger,
        champion_decisions={"alert": old, "pass": 1000 - old},
        challenger_decisions={"alert": new, "pass": 1000 - new},
    )
    assert tripped(signals(VersionSignals(), pair=pair), **guards) == trips


def histogram(scores: np.ndarray) -> dict[str, int]:
    counts, bounds = np.histogram(scores, np.linspace(0, 1, 43))
    return {f"{low:.3f}": int(count) for low, count in zip(bounds, counts, strict=False)}


def test_a_shift_of_the_scores_is_told_from_noise() -> None:
    random = np.random.default_rng(1)
    for rows in (60, 500, 5000):
        same = [histogram(random.beta(2, 5, rows)) for _ in range(2)]
        moved = histogram(random.beta(3.5, 4, rows))
        for challenger, trips in ((same[1], set()), (moved, {"score_shift"} if rows > 60 else set())):
            pair = PairSignals(rows=rows, champion_groups=same[0], challenger_groups=challenger)
            found = signals(VersionSignals(), pair=pair)
            assert tripped(found, maximum_score_shift=0.2) == trips, rows
            assert tripped(found) == set()


@pytest.mark.parametrize("rows", [500, 5000])
def test_the_noise_of_a_score_shift_is_the_chi_square_quantile(rows: int) -> None:
    random = np.random.default_rng(5)
    same = [histogram(random.beta(2, 5, rows)) for _ in range(2)]
    pair = PairSignals(rows=rows, champion_groups=same[0], challenger_groups=same[1])
    spec = GuardSpec(maximum_score_shift=0.2)
    [found] = [f for f in examine(signals(VersionSignals(), pair=pair), spec, ALERT_RATE) if f.guard == "score_shift"]
    # Wilson and Hilferty's closed form (1931) of the quantile for 9 degrees of freedom.
    z = NormalDist().inv_cdf(spec.confidence)
    quantile = 9 * (1 - 2 / 81 + z * (2 / 81) ** 0.5) ** 3
    noise = float(re.search(r"and ([\d.]+) by chance", found.sentence)[1])  # type: ignore[index]
    assert noise == pytest.approx(quantile * 2 / rows, abs=1e-3)


def test_population_stability_is_zero_for_the_same_and_grows() -> None:
    scores = histogram(np.random.default_rng(2).beta(2, 5, 5000))
    assert population_stability(scores, scores)[0] == 0
    assert population_stability(scores, dict(zip(scores, reversed(scores.values()), strict=True)))[0] > 1
    assert population_stability({}, {}) == (0.0, 1)


def test_neighbouring_ranges_are_merged_and_classes_are_not() -> None:
    many = {str(number): 100 for number in range(40)}
    assert population_stability(many, many) == (0.0, 10)
    old, new = {"late": 60, "on time": 900, "cancelled": 40}, {"on time": 900, "late": 40, "diverted": 60}
    index, groups = population_stability(old, new, ordered=False)
    assert groups == 4
    e, f = np.array([60, 900, 40, 0.5]) / 1000.5, np.array([40, 900, 0.5, 60]) / 1000.5
    assert index == pytest.approx(float(((f - e) * np.log(f / e)).sum()))


@pytest.mark.parametrize(("alerts", "trips"), [(1, False), (40, True)])
def test_a_champion_without_alerts_leaves_room_where_the_spec_sets_no_rate(alerts: int, trips: bool) -> None:
    """A binary task with `decision.threshold` has no alert rate."""
    none, some = {PASS: 100}, {ALERT: alerts, PASS: 100 - alerts}
    pair = PairSignals(rows=100, champion_decisions=none, challenger_decisions=some)
    found = examine(signals(VersionSignals(), pair=pair), GuardSpec(minimum_agreement=None), alert_rate=0.0)
    assert ({f.guard for f in found if f.tripped} == {"alert_rate"}) == trips


def test_without_decisions_the_alert_rate_is_no_guard() -> None:
    pair = PairSignals(rows=1000, comparable=1000, agreed=700)
    assert tripped(signals(VersionSignals(), pair=pair), minimum_alert_ratio=0.5) == {"agreement"}
    nothing_to_compare = PairSignals(rows=1000)
    assert tripped(signals(VersionSignals(), pair=nothing_to_compare)) == set()
    assert alert_rates(VersionSignals(answered=80), VersionSignals(answered=70), 0.95) is None


def test_classes_that_are_named_like_alerts_are_none() -> None:
    old, new = {"pass": 900, "fail": 100}, {"pass": 100, "alert": 400, "fail": 500}
    pair = PairSignals(rows=1000, comparable=1000, agreed=1000, champion_decisions=old, challenger_decisions=new)
    assert tripped(signals(VersionSignals(), pair=pair), minimum_alert_ratio=0.5) == set()
    versions = [VersionSignals(answered=1000, decisions=each) for each in (old, new)]
    assert alert_rates(*versions, 0.95) is None


def test_quality_trips_when_the_whole_interval_is_below() -> None:
    random, guards = np.random.default_rng(3), GuardSpec(maximum_quality_drop=0.05)

    def found(middle: float) -> Finding:
        return quality(random.normal(middle, 0.01, 500), "average_precision", 900, {"positive": 40}, guards)

    assert found(-0.2).tripped
    assert not found(-0.06).tripped
    assert not found(0.1).tripped
    assert "on 900 labelled requests, 40 positive" in found(-0.2).sentence


def test_in_a_full_stage_the_champion_is_the_new_one() -> None:
    seen = Signals(champion=2, versions={2: VersionSignals(asked=50, errors=50)}, traffic=Desired(stage="1.4-full"))
    assert tripped(seen) == {"error_rate"}


def test_alert_rates_are_compared_by_newcombes_interval() -> None:
    # Newcombe 1998, table II, case (a): 56/70 − 48/80, method 10: 0.0524, 0.3339.
    found = alert_rates(answered(80, 48), answered(70, 56), 0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert found.beyond_chance
    assert alert_rates(VersionSignals(), answered(70, 0), 0.95) is None


def answered(rows: int, alerts: int) -> VersionSignals:
    return VersionSignals(answered=rows, decisions={"alert": alerts, "pass": rows - alerts})


def test_qualities_of_two_groups() -> None:
    random = np.random.default_rng(4)

    def group(noise: float) -> ScoredBinary:
        labels = (random.random(3000) < 0.1).astype(int)
        truth = EvaluationSet.of(labels, np.arange(3000), np.zeros(3000))
        scores = labels + random.normal(0, noise, 3000)
        return ScoredBinary(truth, scores, ["roc_auc", "average_precision"], 100, scores > 0.5)

    good, bad, as_bad = group(0.3), group(1.5), group(1.5)
    better = qualities(bad, good, "average_precision", 0.9, 100, 0)
    assert better.low > 0.1
    assert not qualities(bad, as_bad, "roc_auc", 0.99, 100, 0).beyond_chance
