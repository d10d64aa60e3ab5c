"""Every gate by example: what passes, what fails, and that nothing passes for want of a number."""

from dataclasses import replace

import numpy as np
import pytest

from training.contract.model_spec import EvaluationSpec
from training.contract.tasks import BinaryTask, RegressionTask, Relative
from training.domain.gates import Gate
from training.domain.verdict import Champion, Reference, Rules, interval, judge, skill

SPEC = EvaluationSpec(
    primary="average_precision",
    limits={"roc_auc": 0.7, "average_precision": 0.2},
    margins={"roc_auc": 0.01, "precision_at_k": 0.02},
    entity="customer_id",
    confidence=0.9,
)
RULES = Rules(SPEC, BinaryTask.METRICS, SPEC.limits)
REFERENCE = Reference("the share of positives in training", {"roc_auc": 0.5, "average_precision": 0.01})
GOOD = {"roc_auc": 0.85, "average_precision": 0.6, "precision_at_k": 0.3}
BETTER = np.linspace(0.01, 0.05, 100)


def test_the_first_model_meets_the_limits_and_beats_the_reference() -> None:
    verdict = judge(RULES, GOOD, REFERENCE, None)
    assert verdict.promote
    assert verdict.champion is None
    assert verdict.difference is None
    assert len(verdict.reasons) == 4
    assert verdict.reference == REFERENCE.metrics
    assert verdict.skill == pytest.approx((0.6 - 0.01) / (1 - 0.01))
    assert "0.6000 against 0.0100 of the naive reference, the share of positives in training" in verdict.reasons[2]


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision"])
@pytest.mark.parametrize("value", [0.1, float("nan")])
def test_below_a_limit_is_refused(metric: str, value: float) -> None:
    verdict = judge(RULES, {**GOOD, metric: value}, REFERENCE, None)
    assert not verdict.promote
    assert [reason for reason in verdict.reasons if reason.startswith(f"FAILED: {metric}")]


def test_a_limit_whose_metric_was_not_measured_fails() -> None:
    assert not judge(RULES, {"average_precision": 0.6}, REFERENCE, None).promote


def test_better_beyond_chance_is_promoted_with_its_numbers() -> None:
    champion = {**GOOD, "average_precision": 0.57}
    verdict = judge(RULES, GOOD, REFERENCE, Champion(4, champion, BETTER))
    assert verdict.promote
    assert verdict.champion == champion
    assert verdict.difference == pytest.approx((0.014, 0.046))
    assert "+0.0300" in verdict.reasons[-1]
    assert "[+0.0140, +0.0460]" in verdict.reasons[-1]


def test_better_by_chance_is_refused() -> None:
    differences = np.linspace(-0.02, 0.08, 100)
    verdict = judge(RULES, GOOD, REFERENCE, Champion(4, {**GOOD, "average_precision": 0.57}, differences))
    assert not verdict.promote
    assert [reason for reason in verdict.reasons if reason.startswith("FAILED")] == [verdict.reasons[-1]]


def test_the_confidence_decides_how_sure_is_sure() -> None:
    # 92 of 100 samples are above zero.
    differences = np.linspace(-0.008, 0.0911, 100)
    champion = Champion(4, {**GOOD, "average_precision": 0.57}, differences)
    surer = replace(RULES, spec=SPEC.model_copy(update={"confidence": 0.95}))
    assert judge(RULES, GOOD, REFERENCE, champion).promote
    assert not judge(surer, GOOD, REFERENCE, champion).promote


def test_the_best_of_several_must_be_surer() -> None:
    # 92 of 100 samples are above zero: enough for one candidate at 90%, too few for the best of three (96.7%).
    champion = Champion(4, {**GOOD, "average_precision": 0.57}, np.linspace(-0.008, 0.0911, 100))
    alone, best = judge(RULES, GOOD, REFERENCE, champion), judge(RULES, GOOD, REFERENCE, champion, candidates=3)
    assert (alone.promote, best.promote) == (True, False)
    assert (alone.confidence, best.confidence) == (pytest.approx(0.9), pytest.approx(1 - 0.1 / 3))
    assert alone.reasons[-1].endswith("each end at 90.0%")
    assert best.reasons[-1].endswith("each end at 96.7%, which is 90% for the best of 3 candidates")


@pytest.mark.parametrize(
    ("metric", "theirs", "promoted"),
    [
        ("roc_auc", 0.859, True),
        ("roc_auc", 0.861, False),
        ("precision_at_k", 0.319, True),
        ("precision_at_k", 0.321, False),
    ],
)
def test_no_metric_may_be_worse_beyond_its_margin(metric: str, theirs: float, promoted: bool) -> None:
    champion = {**GOOD, "average_precision": 0.57, metric: theirs}
    assert judge(RULES, GOOD, REFERENCE, Champion(4, champion, BETTER)).promote is promoted


def test_the_point_estimate_must_be_better_too() -> None:
    assert not judge(RULES, GOOD, REFERENCE, Champion(4, {**GOOD, "average_precision": 0.61}, BETTER)).promote


def test_a_champion_that_could_not_be_compared_stays() -> None:
    verdict = judge(RULES, GOOD, REFERENCE, Champion(4, problem="it needs a column that is gone"))
    assert not verdict.promote
    assert "version 4: it needs a column that is gone" in verdict.reasons[-1]


def test_no_usable_bootstrap_sample_proves_nothing() -> None:
    low, high = interval(np.array([]), 0.9)
    assert low < 0 < high


@pytest.mark.parametrize(
    ("value", "minimum", "promoted"),
    # 0.01 is what the reference itself reaches: a model must be better.
    [(0.6, 0.5, True), (0.6, 0.6, False), (0.01, 0.0, False), (0.009, 0.0, False)],
)
def test_the_first_model_must_have_the_skill(value: float, minimum: float, promoted: bool) -> None:
    spec = SPEC.model_copy(update={"minimum_skill": minimum, "limits": {"average_precision": 0.0}})
    verdict = judge(Rules(spec, BinaryTask.METRICS, spec.limits), {"average_precision": value}, REFERENCE, None)
    assert verdict.promote is promoted


def test_a_first_model_without_a_reference_to_compare_with_is_refused() -> None:
    verdict = judge(RULES, GOOD, Reference("nothing", {}), None)
    assert not verdict.promote
    assert "the skill in average_precision cannot be computed" in verdict.reasons[2]


def test_skill_is_the_share_of_the_way_to_a_perfect_model() -> None:
    metrics = RegressionTask.METRICS
    assert skill(metrics["rmse"], 6.0, 8.0) == pytest.approx(0.25)
    assert skill(metrics["rmse"], 10.0, 8.0) == pytest.approx(-0.25)
    assert skill(metrics["r2"], 0.5, -1.0) == pytest.approx(0.75)
    assert skill(metrics["rmse"], 6.0, 0.0) is None


#: Lower values of the primary metric are better.
ERRORS = EvaluationSpec(primary="rmse", limits={"rmse": 12.0}, margins={"mae": Relative(relative=0.1)}, confidence=0.9)
ERROR_RULES = Rules(ERRORS, RegressionTask.METRICS, {"interval_coverage": 0.85, **ERRORS.limits})
SMALL = {"rmse": 10.0, "mae": 7.0, "interval_coverage": 0.9}
MEAN = Reference("the mean of the labels in training", {"rmse": 15.0})


def test_smaller_errors_are_promoted() -> None:
    champion = Champion(4, {**SMALL, "rmse": 10.5}, np.linspace(-0.9, -0.1, 100))
    verdict = judge(ERROR_RULES, SMALL, MEAN, champion)
    assert verdict.promote
    assert "rmse 10.0000 must be below the champion's 10.5000 beyond chance: difference -0.5000" in verdict.reasons[-1]
    assert "rmse 10.0000 must be at most 12.0000" in verdict.reasons[1]


@pytest.mark.parametrize(
    ("ours", "theirs", "differences"),
    [
        ({}, {"rmse": 9.5}, np.linspace(0.1, 0.9, 100)),
        ({}, {"rmse": 10.5}, np.linspace(-0.9, 0.1, 100)),
        ({"rmse": 12.5}, {"rmse": 13.0}, np.linspace(-0.9, -0.1, 100)),
        # The margin of 10 % of the champion's 6 is 0.6.
        ({"mae": 6.7}, {"rmse": 10.5, "mae": 6.0}, np.linspace(-0.9, -0.1, 100)),
        # The intervals cover too little.
        ({"interval_coverage": 0.8}, {"rmse": 10.5}, np.linspace(-0.9, -0.1, 100)),
    ],
)
def test_larger_errors_are_refused(ours: dict, theirs: dict, differences: np.ndarray) -> None:
    champion = Champion(4, {**SMALL, **theirs}, differences)
    verdict = judge(ERROR_RULES, {**SMALL, **ours}, MEAN, champion)
    assert len([reason for reason in verdict.reasons if reason.startswith("FAILED")]) >= 1
    assert not verdict.promote


def test_a_relative_margin_is_of_the_champions_value() -> None:
    champion = Champion(4, {**SMALL, "rmse": 10.5, "mae": 6.5}, np.linspace(-0.9, -0.1, 100))
    verdict = judge(ERROR_RULES, SMALL, MEAN, champion)
    assert verdict.promote
    assert "may be at most 0.6500 (10.0%) above the champion's 6.5000" in verdict.reasons[-2]


def test_further_gates_count_and_the_failed_ones_are_named() -> None:
    slices, cost = Gate("slices", False, "worse on country FR"), Gate("cost", True, "3 seconds")
    verdict = judge(RULES, {**GOOD, "average_precision": 0.01}, REFERENCE, None, more=[slices, cost])
    assert not verdict.promote
    assert verdict.failed == ["limits", "skill", "slices"]
    assert verdict.reasons[-2:] == ["FAILED: worse on country FR", "passed: 3 seconds"]
    assert judge(RULES, GOOD, REFERENCE, None, more=[cost]).failed == []
