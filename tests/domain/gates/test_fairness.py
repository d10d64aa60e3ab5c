"""Fairness: the rates are Fairlearn's, limits hold, and a gap that grew is named."""

import numpy as np
import pandas as pd
import pytest

from tests.cases import others_in_ci
from tests.domain.gates.models_on_rows import Made
from training.contract.messages.judged_groups import FairnessResult
from training.contract.verdict_spec import FairnessSpec, Grouping
from training.domain.gates import Gate
from training.domain.gates.fairness import judge_fairness
from training.domain.gates.groups import Group, groups_of
from training.domain.gates.scored_model import ScoredModel

SAMPLES = 200


def _judged(
    made: Made, model: ScoredModel, champion: ScoredModel | None, values: np.ndarray, **spec: object
) -> tuple[FairnessResult, list[Gate]]:
    fields = FairnessSpec.model_validate({"columns": {"shop": {}}, **spec})
    groups = {"shop": groups_of("shop", pd.Series(values), Grouping())}
    return judge_fairness(fields, model, champion, groups, SAMPLES, 1)


def _shops(made: Made) -> np.ndarray:
    return np.where(made.features[:, 2] > 0.5, "new", np.where(made.features[:, 0] > 0, "east", "west"))


def test_the_rates_and_gaps_are_fairlearns() -> None:
    metrics = pytest.importorskip("fairlearn.metrics")
    made = Made("binary")
    model, shops = made.model(), _shops(made)
    result, _ = _judged(made, model, None, shops)
    decided = (model.scored.values >= 0.5).astype(int)
    given = {"y_true": made.labels, "y_pred": decided, "sensitive_features": shops}
    gaps = {gap.measure: gap.gap for gap in result.gaps}
    assert gaps["selection_rate"] == pytest.approx(metrics.demographic_parity_difference(**given))
    assert gaps["true_positive_rate"] == pytest.approx(metrics.equal_opportunity_difference(**given))
    odds = max(gaps["true_positive_rate"], gaps["false_positive_rate"])
    assert odds == pytest.approx(metrics.equalized_odds_difference(**given))
    names = ("selection_rate", "true_positive_rate", "false_positive_rate")
    frame = metrics.MetricFrame(metrics={name: getattr(metrics, name) for name in names}, **given)
    rates = {(rate.measure, rate.group): rate.value for rate in result.rates}
    for name in names:
        for shop in ("new", "east", "west"):
            assert rates[name, f"shop is {shop}"] == pytest.approx(frame.by_group[name][shop])


def test_each_class_is_compared_with_all_others() -> None:
    metrics = pytest.importorskip("fairlearn.metrics")
    made = Made("multiclass")
    model, shops = made.model(), _shops(made)
    result, _ = _judged(made, model, None, shops)
    likeliest = np.array(["a", "b", "c"])[model.scored.values.argmax(axis=1)]
    for gap in result.gaps:
        of = gap.of
        if gap.measure == "selection_rate":
            expected = metrics.demographic_parity_difference(
                made.labels == of, likeliest == of, sensitive_features=shops
            )
            assert gap.gap == pytest.approx(expected)
    assert {gap.name for gap in result.gaps} >= {"selection_rate of a", "error_rate of c"}


def test_a_regression_has_gaps_of_errors() -> None:
    made = Made("regression")
    shops = _shops(made)
    result, _ = _judged(made, made.model(worse_where=shops == "new"), None, shops)
    gaps = {gap.measure: gap for gap in result.gaps}
    assert set(gaps) == {"mean_error", "mean_absolute_error"}
    assert gaps["mean_absolute_error"].highest == "shop is new"


@pytest.mark.parametrize("kind", others_in_ci(["binary", "regression", "multiclass"], first=2))
def test_a_limit_is_kept_or_refused_with_the_numbers(kind: str) -> None:
    made = Made(kind)
    measure = "mean_absolute_error" if kind == "regression" else "error_rate"
    shops = np.where(made.features[:, 2] > 0.5, "new", "old")
    fair, unfair = made.model(), made.model(worse_where=shops == "new")
    _, gates = _judged(made, fair, None, shops, limits={measure: 0.1})
    assert all(gate.passed for gate in gates)
    result, gates = _judged(made, unfair, None, shops, limits={measure: 0.1})
    failed = [gate for gate in gates if not gate.passed]
    assert failed
    assert {gate.name for gate in failed} == {"fairness"}
    gap = max((each for each in result.gaps if each.measure == measure), key=lambda each: each.gap)
    assert gap.low is not None
    assert gap.high is not None
    assert gap.low < gap.gap < gap.high
    sentence = f"the gap in {gap.name} by shop {gap.gap:.4f} must be at most 0.1000: {gap.highest} is the highest, "
    assert any(gate.sentence.startswith(sentence) for gate in failed)


@pytest.mark.parametrize("kind", others_in_ci(["binary", "regression", "multiclass"], first=2))
def test_a_gap_that_grew_against_the_champion_is_named(kind: str) -> None:
    made = Made(kind)
    shops = np.where(made.features[:, 2] > 0.5, "new", "old")
    fair, unfair = made.model(), made.model(worse_where=shops == "new")
    _, gates = _judged(made, unfair, fair, shops)
    assert {(gate.name, gate.passed) for gate in gates} == {("fairness_change", False)}
    assert gates[0].sentence.startswith("fairness changed: the gap in ")
    # A gap that becomes smaller is no change for the worse.
    (gate,) = _judged(made, fair, unfair, shops)[1]
    assert (gate.name, gate.passed) == ("fairness_change", True)
    allowed = {"selection_rate", "true_positive_rate", "false_positive_rate", "error_rate"}
    allowed = {"mean_error", "mean_absolute_error"} if kind == "regression" else allowed
    assert _judged(made, unfair, fair, shops, maximum_change=dict.fromkeys(allowed, 5.0))[1][0].passed


@pytest.mark.long
def test_equally_fair_challengers_are_refused_no_more_often_than_stated() -> None:
    refused, trials = 0, 40
    for seed in range(trials):
        made = Made("binary", n=2000, seed=seed)
        shops = made.random.choice(["a", "b", "c", "d"], made.n)
        _, gates = _judged(made, made.model(noise=0.5), made.model(noise=0.5), shops)
        refused += not all(gate.passed for gate in gates)
    assert refused < 5


@pytest.mark.parametrize("shops", [["one"] * 4000, [None] * 4000, ["a"] * 3950 + ["b"] * 50])
def test_groups_that_cannot_be_compared_fail_a_limit(shops: list) -> None:
    made = Made("binary")
    values = np.array(shops, dtype=object)
    result, gates = _judged(made, made.model(), made.model(), values, limits={"selection_rate": 0.5})
    assert result.gaps == []
    assert [(gate.name, gate.passed) for gate in gates] == [("fairness", False), ("fairness_change", True)]
    assert "cannot be measured: fewer than two groups have the 100 rows that are needed" in gates[0].sentence


def test_a_measure_that_the_kind_does_not_have_fails() -> None:
    made = Made("regression")
    _, gates = _judged(made, made.model(), None, _shops(made), limits={"selection_rate": 0.5})
    assert [(gate.name, gate.passed) for gate in gates] == [("fairness", False)]
    assert "the gap in selection_rate by shop cannot be measured: the groups have no such measure" in gates[0].sentence


def test_a_rate_among_positive_rows_needs_so_many_of_them() -> None:
    made = Made("binary")
    # The small shop has 200 rows, and no positive one.
    shops = np.full(made.n, "large", dtype=object)
    shops[np.flatnonzero(made.labels == 0)[:200]] = "small"
    result, _ = _judged(made, made.model(), None, shops)
    assert {gap.measure for gap in result.gaps} == {"selection_rate", "false_positive_rate", "error_rate"}
    rates = {(rate.measure, rate.group): (rate.rows, rate.value) for rate in result.rates}
    assert rates["true_positive_rate", "shop is small"] == (0, None)


def test_nothing_to_draw_gives_gaps_without_intervals() -> None:
    made = Made("regression", entities=np.zeros(4000))
    shops = _shops(made)
    result, gates = _judged(made, made.model(), made.model(), shops, limits={"mean_error": 9.0})
    assert result.gaps
    assert all(gap.low is None and gap.change is None for gap in result.gaps)
    assert gates[0].passed
    assert "interval unknown" in gates[0].sentence


def test_hundreds_of_groups_and_overlapping_names() -> None:
    made = Made("binary")
    groups = {"shop": [Group("shop", f"shop {i}", np.arange(i, made.n, 300)) for i in range(300)]}
    spec = FairnessSpec(columns={"shop": Grouping()}, minimum_rows=5)
    result, _ = judge_fairness(spec, made.model(), None, groups, 50, 1)
    assert len(result.rates) == 1200
    assert len(result.gaps) == 4
