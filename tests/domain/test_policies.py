"""What each policy advises, and what the cost-aware one makes of a champion's looks."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml

from training.contract.base import Days
from training.contract.implementations import Implementations
from training.contract.messages import (
    ColumnDrift,
    Degradation,
    DriftResult,
    EstimatedPerformance,
    PerformanceResult,
    Shift,
)
from training.contract.model_spec import MODELS_DIR, ModelSpec, load_model_spec
from training.contract.registries import POLICIES
from training.contract.retraining_spec import CostsSpec
from training.domain.monitoring import Look
from training.domain.retraining import History
from training.domain.retraining_policy import Advice, Evidence, advise
from training.domain.staleness import SPEEDS, staleness

START = date(2026, 1, 5)
DRIFTED = DriftResult(outcome="measured", drifted=True, drifted_share=0.5, window=Days.ending(START, 7))
QUIET = DriftResult(outcome="measured", drifted_share=0.1, window=Days.ending(START, 7))
NO_HISTORY = History({}, {}, {})
#: 1,000 predictions lose 50 for each unit of the metric. With 7,000 a week and 30 days, 1,500 per unit.
COSTS = CostsSpec(unit="EUR", training=60, loss_per_1000_predictions=50)
PER_UNIT = 1500.0


def _test(look: int, drop: float, error: float = 0.05, allowed: float = 0.1) -> Degradation:
    return Degradation(
        metric="average_precision",
        drop=drop,
        standard_error=error,
        look=look,
        confidence=0.99,
        lowest_drop=drop - 3 * error,
        allowed=allowed,
    )


def _performance(test: Degradation | None, **fields) -> PerformanceResult:
    window = Days.ending(START, 7)
    degraded = test is not None and test.degraded
    return PerformanceResult(
        **({"outcome": "measured", "window": window, "rows": 7000, "test": test, "degraded": degraded} | fields)
    )


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return load_model_spec("card_fraud")


def _advice(
    spec: ModelSpec,
    policy: str,
    drift: DriftResult | None = QUIET,
    performance: PerformanceResult | None = None,
    history: History = NO_HISTORY,
    costs: CostsSpec = COSTS,
) -> Advice:
    retraining = spec.retraining.model_copy(update={"policy": policy, "costs": costs})
    asked = spec.model_copy(update={"retraining": retraining})
    return advise(Evidence(START, 1, drift, performance), history, asked)


def test_the_policies() -> None:
    assert {"fixed", "drift", "performance", "combined", "cost_aware"} <= set(POLICIES.names())


BAD = _performance(_test(2, 0.5))


@pytest.mark.parametrize(
    ("policy", "drift", "performance", "triggers"),
    [
        ("fixed", DRIFTED, BAD, ()),
        ("drift", DRIFTED, BAD, ("drift",)),
        ("drift", QUIET, BAD, ()),
        ("performance", DRIFTED, BAD, ("performance",)),
        ("performance", DRIFTED, _performance(_test(2, 0.1)), ()),
        ("combined", DRIFTED, BAD, ("performance", "drift")),
        ("combined", DRIFTED, None, ("drift",)),
        ("combined", QUIET, _performance(_test(2, 0.1)), ()),
    ],
)
def test_what_each_policy_asks_for(
    spec: ModelSpec,
    policy: str,
    drift: DriftResult,
    performance: PerformanceResult | None,
    triggers: tuple[str, ...],
) -> None:
    advice = _advice(spec, policy, drift, performance)
    assert advice.triggers == triggers
    assert advice.text


def test_advice_against_a_training_says_what_would_be_a_reason(spec: ModelSpec) -> None:
    text = _advice(spec, "combined", QUIET, _performance(_test(2, 0.12))).text
    assert "worse than on the holdout by 0.120" in text
    assert "0.100 is allowed" in text
    assert "10% of the features drifted, one drifted column would be a reason" in text


@pytest.mark.parametrize(("trusted", "triggers"), [(True, ("performance",)), (False, ())])
def test_an_estimate_asks_once_it_has_been_right_before(spec: ModelSpec, trusted: bool, triggers: tuple) -> None:
    estimated = EstimatedPerformance(
        window=Days.ending(START, 7),
        rows=7000,
        metrics={"average_precision": 0.2},
        standard_error=0.03,
        low=0.1,
        high=0.3,
        test=_test(3, 0.4),
        degraded=True,
        trusted=trusted,
    )
    found = _performance(_test(2, 0.0), estimated=estimated, reference={"average_precision": 0.6})
    advice = _advice(spec, "performance", QUIET, found)
    assert advice.triggers == triggers
    assert not trusted or advice.text.startswith("average_precision 0.200 is estimated for ")


PATIENT = """
from training.domain.retraining_policy import Advice


def patient(evidence, history, spec):
    return Advice(f"{len(history.looks)} looks", ("drift",) if len(history.looks) >= 2 else ())
"""


def test_a_policy_of_another_package_joins_with_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "patience.py").write_text(PATIENT)
    metadata = tmp_path / "outside-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[perennial.policy]\npatient = patience:patient\n")
    fields = yaml.safe_load((MODELS_DIR / "card_fraud.yaml").read_text())
    fields["retraining"] = {"policy": "patient"}
    (tmp_path / "card_fraud.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    # Installed, as far as Python can tell. What has been looked up before is kept and not looked up again.
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(POLICIES, "_registered", dict(POLICIES._registered))
    monkeypatch.setitem(vars(POLICIES), "_entry_points", Implementations(POLICIES.kind, POLICIES.package)._entry_points)
    spec, look = load_model_spec("card_fraud", tmp_path), Look(as_of=START, champion_version=1)
    advice = [advise(Evidence(START, 1), History({}, {}, {}, looks=[look] * n), spec) for n in (1, 2)]
    assert [(each.text, each.asks) for each in advice] == [("1 looks", False), ("2 looks", True)]


# --- costs ---


def _looks(*drops: float, champion: int = 1) -> History:
    """One look a week, the last of them on START."""
    found = [
        Look(
            as_of=START - timedelta(days=7 * (len(drops) - number)),
            champion_version=champion,
            degraded=False,
            window=Days.ending(START - timedelta(days=7 * (len(drops) - number + 1)), 7),
            rows=7000,
            test=_test(number, drop),
        )
        for number, drop in enumerate(drops, 1)
    ]
    return History({}, {}, {}, looks=found)


def test_a_training_is_asked_for_when_it_saves_more_than_it_costs(spec: ModelSpec) -> None:
    fell = _looks(0.0, 0.02, 0.3, 0.32)
    cheap = _advice(spec, "cost_aware", history=fell)
    assert cheap.triggers == ("performance",)
    assert cheap.numbers["pays_from_staleness"] == pytest.approx(60 / PER_UNIT)
    assert cheap.numbers["saves"] == pytest.approx(PER_UNIT * cheap.numbers["staleness"])
    assert 0.2 < cheap.numbers["staleness"] < 0.33
    assert cheap.text.startswith("a training saves 4")
    assert "costs 60 EUR" in cheap.text
    dear = _advice(spec, "cost_aware", history=fell, costs=COSTS.model_copy(update={"training": 600.0}))
    assert not dear.asks
    assert "from 0.4 on a training pays" in dear.text


def test_it_must_be_as_sure_as_the_spec_says(spec: ModelSpec) -> None:
    history = _looks(0.0, 0.02, 0.07)
    chance = _advice(spec, "cost_aware", history=history).numbers["pays_with_probability"]
    assert 0.1 < chance < 0.9
    for confidence, asks in ((chance - 0.01, True), (chance + 0.01, False)):
        costs = COSTS.model_copy(update={"confidence": confidence})
        assert _advice(spec, "cost_aware", history=history, costs=costs).asks is asks


def test_only_the_looks_at_this_champion_until_today_count(spec: ModelSpec) -> None:
    before = _looks(0.5, 0.5, champion=7)
    now = _performance(_test(1, 0.0))
    alone = _advice(spec, "cost_aware", performance=now)
    assert not alone.asks
    assert _advice(spec, "cost_aware", performance=now, history=before) == alone
    later = Look(as_of=START + timedelta(days=7), champion_version=1, window=Days.ending(START, 7), rows=7000)
    history = History({}, {}, {}, looks=[later.model_copy(update={"test": _test(2, 0.9)})])
    assert _advice(spec, "cost_aware", performance=now, history=history) == alone
    # The look of today may be in the history already.
    own = Look.of(START, 1, QUIET, now)
    assert _advice(spec, "cost_aware", performance=now, history=History({}, {}, {}, looks=[own])) == alone


def test_without_a_test_of_the_champion_combined_decides_and_says_so(spec: ModelSpec) -> None:
    advice = _advice(spec, "cost_aware", DRIFTED, PerformanceResult(outcome="too few labels"))
    assert advice.triggers == ("drift",)
    assert advice.text.endswith(
        "(cost_aware: no performance of this champion has been tested yet, so the policy combined decides)"
    )


# --- staleness ---


def test_one_window_is_shared_between_holdout_staleness_and_chance() -> None:
    """By hand, for the one speed that weighs all: y = 0.3, common 0.005, own 0.005, step 0.3 per window."""
    found = staleness([_test(1, 0.3, error=0.1)])
    fastest = 0.09 / (0.005 + 0.005 + 0.09)
    assert found.means[-1] == pytest.approx(0.3 * fastest)
    assert found.standard_errors[-1] == pytest.approx((0.09 - 0.09 * fastest) ** 0.5)
    assert found.weights.sum() == pytest.approx(1)
    assert found.mean == pytest.approx(float(found.weights @ found.means))


def test_a_lucky_holdout_is_not_staleness_and_a_fall_is() -> None:
    lucky = staleness([_test(number, 0.15, error=0.1) for number in range(1, 9)])
    fell = staleness([_test(number, 0.0 if number < 7 else 0.3, error=0.1) for number in range(1, 9)])
    assert lucky.mean < 0.06
    assert fell.mean > 0.15
    assert fell.chance_above(0.05) > 0.9 > lucky.chance_above(0.05)


def test_the_interval_covers_the_staleness_of_simulated_champions() -> None:
    """Over worlds of all speeds, 80 % intervals cover 80 %."""
    random, inside = np.random.default_rng(3), []
    for _ in range(800):
        walk = np.cumsum(random.normal(0, 0.1 * random.choice(SPEEDS), 12))
        drops = walk + random.normal(0, 0.05) + random.normal(0, 0.05, 12)
        found = staleness([_test(k, float(d), error=0.05 * 2**0.5) for k, d in enumerate(drops, 1)])
        inside.append(0.1 < found.chance_above(float(walk[-1])) < 0.9)
    assert 0.76 < np.mean(inside) < 0.84


def test_no_test_is_an_error() -> None:
    with pytest.raises(ValueError, match="no test of performance"):
        staleness([])


def test_drift_says_what_it_rests_on_and_what_would_have_been_a_reason(spec: ModelSpec) -> None:
    shift = Shift(
        part="equal to 0",
        reference=0,
        current=0.05,
        minimum=0.02,
        p_value=1e-9,
        adjusted_p_value=1e-8,
        chance=1e-3,
        design_effect=3,
    )
    column = ColumnDrift(score=0.04, threshold=0.1, method="wasserstein", drifted=True, shift=shift)
    found = DRIFTED.model_copy(update={"columns": {"amount": column}})
    advice = _advice(spec, "drift", found)
    assert advice.triggers == ("drift",)
    assert advice.text.endswith(f": amount. amount: {shift}")
    assert advice.numbers["amount: adjusted p-value"] == 1e-8
    quiet = column.model_copy(update={"drifted": False, "shift": shift.model_copy(update={"adjusted_p_value": 0.3})})
    advice = _advice(spec, "drift", QUIET.model_copy(update={"columns": {"amount": quiet}}))
    assert not advice.asks
    assert "one drifted column would be a reason. amount: 5.0% of the rows" in advice.text
