"""A feature that knows the label is found, good features are not suspected, and history has a say."""

import numpy as np
import pytest

from training.contract.feature_definitions import FeatureColumn
from training.contract.gate_limits import LeakageSpec
from training.contract.tasks import MetricRule
from training.domain.gates.leakage import Explained, explained_alone, gates, leakage, measurable
from training.domain.tasks._ranking import explained as ranked
from training.domain.tasks.regression import Regression

SPEC = LeakageSpec()
AP, RMSE = MetricRule(True, 0, 1), MetricRule(False, 0, float("inf"))
RANDOM = np.random.default_rng(0)
N = 4000


def r2(actual: np.ndarray, scores: np.ndarray) -> float:
    return Regression.explained(None, actual, scores)  # type: ignore[arg-type]


def alone(
    values: np.ndarray, actual: np.ndarray, explained: Explained = ranked, categories: tuple[str, ...] | None = None
) -> float:
    """What one column explains of `actual`; the first half is for training."""
    matrix = values.astype(np.float32)[:, np.newaxis]
    column, half = FeatureColumn(name="x", categories=categories, may_be_missing=True), len(values) // 2
    train, holdout = ((matrix[part], {"y": actual[part]}) for part in (slice(0, half), slice(half, None)))
    return explained_alone([column], train, holdout, explained)["x"].get("y", float("nan"))


LABELS = (RANDOM.random(N) < 0.05).astype(np.float64)
NUMBERS = RANDOM.lognormal(2, 1, N)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("the label", LABELS),
        ("its opposite", 1 - LABELS),
        ("missing unless it is positive", np.where(LABELS == 1, 7.0, np.nan)),
        ("a number that is highest for it", LABELS * 10 + RANDOM.normal(0, 1, N)),
        ("both ends of a number", np.where(LABELS == 1, np.sign(RANDOM.normal(0, 1, N)) * 50, RANDOM.normal(0, 1, N))),
    ],
)
def test_a_feature_that_knows_the_class_explains_it(name: str, values: np.ndarray) -> None:
    assert alone(values, LABELS) > 0.95


def test_a_category_that_knows_the_class_explains_it() -> None:
    codes = np.where(LABELS == 1, RANDOM.integers(0, 3, N), RANDOM.integers(3, 9, N)).astype(np.float64)
    assert alone(codes, LABELS, categories=tuple("abcdefghi")) > 0.95
    unseen = np.where(np.arange(N) < N // 2, codes, 9.0)
    assert alone(unseen, LABELS, categories=tuple("abcdefghi")) == pytest.approx(0, abs=1e-9)


def test_a_feature_that_knows_the_number_explains_it_also_in_the_tails() -> None:
    assert alone(NUMBERS, NUMBERS, r2) > 0.999
    assert alone(NUMBERS + RANDOM.normal(0, 0.5, N), NUMBERS, r2) > 0.95
    assert alone(NUMBERS**2, NUMBERS, r2) > 0.9


@pytest.mark.parametrize(
    "values",
    [
        np.full(N, 3.0),
        np.full(N, np.nan),
        np.full(N, np.inf),
        RANDOM.normal(0, 1, N),
        RANDOM.integers(0, 2, N).astype(np.float64),
        np.where(RANDOM.random(N) < 0.9, np.nan, RANDOM.normal(0, 1, N)),
        np.clip(RANDOM.normal(0, 1, N), -3, 3) * 1e38,
    ],
)
def test_what_says_nothing_explains_nothing(values: np.ndarray) -> None:
    assert abs(alone(values, LABELS)) < 0.25
    assert abs(alone(values, NUMBERS, r2)) < 0.1


def test_few_rows_say_nothing() -> None:
    few = np.zeros(N)
    few[-5:] = 1
    assert np.isnan(alone(few, few))
    assert not measurable(np.array([1.0]))
    assert not measurable(np.zeros(100))
    assert not measurable(np.arange(29.0))
    assert measurable(np.arange(30.0))
    found = leakage(SPEC, {"x": {}}, {}, {})
    (gate, _) = gates(found, SPEC, AP, "average_precision", 0.5)
    assert gate.passed
    assert "cannot be told" in gate.sentence


def _gate(explains: dict[str, dict[str, float]], whole: float, spec: LeakageSpec = SPEC) -> tuple[bool, str]:
    found = leakage(spec, explains, {"score": whole}, {})
    gate = next(gates(found, spec, AP, "average_precision", 0.5))
    return gate.passed, gate.sentence


def test_suspicious_is_what_explains_almost_all_and_hardly_less_than_the_model() -> None:
    passed, sentence = _gate({"good": {"score": 0.7}, "leak": {"score": 0.99}}, 0.995)
    assert not passed
    assert "leak (0.990 of score, the whole model 0.995)" in sentence
    assert "good" not in sentence
    passed, sentence = _gate({"good": {"score": 0.7}, "other": {"score": 0.2}}, 0.72)
    assert passed, "nearly as good as the model, but far from everything"
    assert "the most is good (0.700 of score" in sentence
    spec = SPEC.model_copy(update={"maximum_explained": 0.6, "share_of_model": 0.9})
    assert _gate({"good": {"score": 0.7}}, 0.95, spec)[0], "the model explains much more"
    assert not _gate({"good": {"score": 0.7}}, 0.75, spec)[0]


def test_a_person_may_expect_a_feature_to_explain_everything() -> None:
    spec = SPEC.model_copy(update={"expected": ("leak",)})
    passed, sentence = _gate({"leak": {"score": 0.99}, "good": {"score": 0.4}}, 0.995, spec)
    assert passed
    assert "leak may explain more" in sentence


@pytest.mark.parametrize(("value", "whole"), [(float("nan"), 0.9), (0.5, float("nan"))])
def test_a_number_that_is_missing_is_suspicious(value: float, whole: float) -> None:
    passed, sentence = _gate({"x": {"score": value}}, whole)
    assert not passed
    assert "x (" in sentence


def _history(rule: MetricRule, former: dict[int, float], value: float | None) -> tuple[bool, str]:
    found = leakage(SPEC, {}, {}, former)
    gate = list(gates(found, SPEC, rule, "m", value))[-1]
    return gate.passed, gate.sentence


def test_a_metric_that_is_too_good_beside_former_champions() -> None:
    former = {1: 0.34, 2: 0.75, 3: 0.5}
    assert _history(AP, former, 0.9)[0]
    passed, sentence = _history(AP, former, 0.95)
    assert not passed
    best = "as far from perfect (1) as the best of 3 former champions, version 2 with 0.7500"
    assert f"m 0.9500 must be at least 25% {best}" in sentence
    assert _history(RMSE, {1: 40.0, 2: 60.0}, 10.1)[0]
    assert not _history(RMSE, {1: 40.0, 2: 60.0}, 9.9)[0]
    assert not _history(AP, former, None)[0], "without the metric nothing can be said"
    passed, sentence = _history(AP, {}, 0.99)
    assert passed
    assert "there is none yet" in sentence
    assert _history(AP, {1: 1.0}, 1.0)[0], "a champion that was perfect, too"


def test_both_rules_can_be_switched_off() -> None:
    spec = LeakageSpec(maximum_explained=None, least_error_left=None)
    found = leakage(spec, {"leak": {"score": 1.0}}, {"score": 1.0}, {1: 0.1})
    assert found.suspects == []
    assert list(gates(found, spec, AP, "m", 1.0)) == []


def test_a_verdict_is_small_also_with_hundreds_of_features_and_classes() -> None:
    names = [f"class {number}" for number in range(300)]
    explains = {f"f{feature}": {name: feature / 1000 for name in names} for feature in range(300)}
    found = leakage(SPEC, explains, dict.fromkeys(names, 0.9), {})
    assert len(found.model_dump_json()) < 5000
    assert next(iter(found.explains)) == "f299"
