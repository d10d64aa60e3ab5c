"""Every gate by example: what passes, what fails, and that nothing passes for want of a number."""

import numpy as np
import pytest

from training.contract.model_spec import EvaluationSpec
from training.domain.verdict import Champion, interval, judge

SPEC = EvaluationSpec(
    primary="average_precision",
    floors={"roc_auc": 0.7, "average_precision": 0.2},
    margins={"roc_auc": 0.01, "card_precision_at_k": 0.02},
    entity="customer_id",
    confidence=0.9,
)
GOOD = {"roc_auc": 0.85, "average_precision": 0.6, "card_precision_at_k": 0.3}
BETTER = np.linspace(0.01, 0.05, 100)


def test_the_first_model_meets_only_the_floors() -> None:
    verdict = judge(SPEC, GOOD, None)
    assert verdict.promote
    assert verdict.champion is None
    assert verdict.difference is None
    assert len(verdict.reasons) == 3


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision"])
@pytest.mark.parametrize("value", [0.1, float("nan")])
def test_below_a_floor_is_refused(metric: str, value: float) -> None:
    verdict = judge(SPEC, {**GOOD, metric: value}, None)
    assert not verdict.promote
    assert [reason for reason in verdict.reasons if reason.startswith(f"FAILED: {metric}")]


def test_a_floor_whose_metric_was_not_measured_fails() -> None:
    assert not judge(SPEC, {"average_precision": 0.6}, None).promote


def test_better_beyond_chance_is_promoted_with_its_numbers() -> None:
    champion = {**GOOD, "average_precision": 0.57}
    verdict = judge(SPEC, GOOD, Champion(4, champion, BETTER))
    assert verdict.promote
    assert verdict.champion == champion
    assert verdict.difference == pytest.approx((0.014, 0.046))
    assert "+0.0300" in verdict.reasons[-1]
    assert "[+0.0140, +0.0460]" in verdict.reasons[-1]


def test_better_by_chance_is_refused() -> None:
    differences = np.linspace(-0.02, 0.08, 100)
    verdict = judge(SPEC, GOOD, Champion(4, {**GOOD, "average_precision": 0.57}, differences))
    assert not verdict.promote
    assert [reason for reason in verdict.reasons if reason.startswith("FAILED")] == [verdict.reasons[-1]]


def test_the_confidence_decides_how_sure_is_sure() -> None:
    # 92 of 100 samples are above zero.
    differences = np.linspace(-0.008, 0.0911, 100)
    champion = Champion(4, {**GOOD, "average_precision": 0.57}, differences)
    assert judge(SPEC, GOOD, champion).promote
    assert not judge(SPEC.model_copy(update={"confidence": 0.95}), GOOD, champion).promote


def test_the_best_of_several_must_be_surer() -> None:
    # 92 of 100 samples are above zero: enough for one candidate at 90%, too few for the best of three (96.7%).
    champion = Champion(4, {**GOOD, "average_precision": 0.57}, np.linspace(-0.008, 0.0911, 100))
    alone, best = judge(SPEC, GOOD, champion), judge(SPEC, GOOD, champion, candidates=3)
    assert (alone.promote, best.promote) == (True, False)
    assert (alone.confidence, best.confidence) == (pytest.approx(0.9), pytest.approx(1 - 0.1 / 3))
    assert alone.reasons[-1].endswith("each end at 90.0%")
    assert best.reasons[-1].endswith("each end at 96.7%, which is 90% for the best of 3 candidates")


@pytest.mark.parametrize(
    ("metric", "theirs", "promoted"),
    [
        ("roc_auc", 0.859, True),
        ("roc_auc", 0.861, False),
        ("card_precision_at_k", 0.319, True),
        ("card_precision_at_k", 0.321, False),
    ],
)
def test_no_metric_may_be_worse_beyond_its_margin(metric: str, theirs: float, promoted: bool) -> None:
    champion = {**GOOD, "average_precision": 0.57, metric: theirs}
    assert judge(SPEC, GOOD, Champion(4, champion, BETTER)).promote is promoted


def test_the_point_estimate_must_be_better_too() -> None:
    assert not judge(SPEC, GOOD, Champion(4, {**GOOD, "average_precision": 0.61}, BETTER)).promote


def test_a_champion_that_could_not_be_compared_stays() -> None:
    verdict = judge(SPEC, GOOD, Champion(4, problem="it needs a column that is gone"))
    assert not verdict.promote
    assert "version 4: it needs a column that is gone" in verdict.reasons[-1]


def test_no_usable_bootstrap_sample_proves_nothing() -> None:
    low, high = interval(np.array([]), 0.9)
    assert low < 0 < high
