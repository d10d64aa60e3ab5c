"""Metrics against scikit-learn and against cases worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from training.contract.errors import DataContractError
from training.domain.importance import permutation_importance
from training.domain.metrics import EvaluationSet, Ranking, measure, paired_differences, threshold_at
from training.domain.resampling import Sample

labelled_scores = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 10), st.integers(0, 4)), min_size=2, max_size=60
).filter(lambda rows: 0 < sum(label for label, _, _ in rows) < len(rows))


@given(labelled_scores)
@settings(max_examples=60, deadline=None)
def test_auc_and_average_precision_are_scikit_learns(rows: list[tuple[int, int, int]]) -> None:
    labels, scores, entities = (np.array(column) for column in zip(*rows, strict=True))
    found = measure(labels, scores / 10, entities, np.zeros(len(rows)), 1)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(labels, scores))
    assert found["average_precision"] == pytest.approx(average_precision_score(labels, scores))


@given(labelled_scores, st.lists(st.integers(0, 3), min_size=5, max_size=5))
@settings(max_examples=60, deadline=None)
def test_copies_of_an_entity_are_copies_of_its_rows(rows: list[tuple[int, int, int]], copies: list[int]) -> None:
    labels, scores, entities = (np.array(column) for column in zip(*rows, strict=True))
    truth = EvaluationSet.of(labels, entities, np.zeros(len(rows)))
    weights = np.array(copies)[: truth.entity_count]
    ranking, sample = Ranking(truth, scores, 1), Sample(weights[truth.entities])
    repeated = np.repeat(np.arange(len(rows)), sample.entity_weights)
    positives = labels[repeated].sum()
    if 0 < positives < len(repeated):
        assert ranking.value("roc_auc", sample) == pytest.approx(roc_auc_score(labels[repeated], scores[repeated]))
    if positives:
        expected = average_precision_score(labels[repeated], scores[repeated])
        assert ranking.value("average_precision", sample) == pytest.approx(expected)
    else:
        assert np.isnan(ranking.value("average_precision", sample))


# Day 0: card 1 (0.9, fraud), card 2 (0.8), card 3 (0.1, fraud). Day 1: card 1 again (0.9, fraud), card 3 (0.7, fraud),
# card 2 (0.2).
LABELS, SCORES = [1, 0, 1, 1, 1, 0], np.array([0.9, 0.8, 0.1, 0.9, 0.7, 0.2])
CARDS, DAYS = [1, 2, 3, 1, 3, 2], [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        # Card 1 is checked and found on day 0, so on day 1 card 3 is first.
        (1, (1 / 1 + 1 / 1) / 2),
        # Day 0: cards 1 and 2, one fraud. Day 1: cards 3 and 2, one fraud.
        (2, (1 / 2 + 1 / 2) / 2),
        # Day 0: all three, two frauds. Day 1: only card 2 is left; k stays the divisor.
        (3, (2 / 3 + 0 / 3) / 2),
    ],
)
def test_card_precision_drops_cards_detected_earlier(k: int, expected: float) -> None:
    assert measure(LABELS, SCORES, CARDS, DAYS, k)["card_precision_at_k"] == pytest.approx(expected)


def test_a_card_counts_with_its_highest_score_and_label_of_the_day() -> None:
    labels, scores, cards = [0, 1, 0], np.array([0.9, 0.1, 0.5]), ["a", "a", "b"]
    assert measure(labels, scores, cards, [0, 0, 0], 1)["card_precision_at_k"] == 1.0


def test_card_precision_of_a_card_drawn_twice() -> None:
    truth = EvaluationSet.of([1, 0, 1], [0, 1, 2], [0, 0, 0])
    ranking = Ranking(truth, np.array([0.9, 0.8, 0.7]), 2)
    assert ranking.value("card_precision_at_k") == 0.5
    assert ranking.value("card_precision_at_k", Sample(np.array([2, 1, 0]))) == 1.0
    assert ranking.value("card_precision_at_k", Sample(np.array([0, 3, 1]))) == 0.0


def test_one_kind_of_label_cannot_be_measured() -> None:
    with pytest.raises(DataContractError, match="0 of the 2 evaluation rows"):
        measure([0, 0], np.array([0.1, 0.2]), [1, 2], [0, 0], 1)


def test_scores_must_be_finite_and_as_many_as_rows() -> None:
    for scores in (np.array([0.1, np.nan]), np.array([0.1])):
        with pytest.raises(DataContractError, match="2 rows"):
            measure([0, 1], scores, [1, 2], [0, 0], 1)


def scored(noise: float, n: int = 4000) -> tuple[EvaluationSet, np.ndarray]:
    random = np.random.default_rng(3)
    signal = random.random(n)
    labels = (random.random(n) < 0.2 * signal**3).astype(int)
    truth = EvaluationSet.of(labels, random.integers(0, 500, n), np.arange(n) * 7 // n)
    return truth, signal + np.random.default_rng(4).normal(0, noise, n)


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "card_precision_at_k"])
def test_paired_differences_find_the_better_model(metric: str) -> None:
    truth, sharp = scored(0.0)
    _, blurred = scored(1.0)
    better, worse = Ranking(truth, sharp, 20), Ranking(truth, blurred, 20)
    differences = paired_differences(better, worse, truth, metric, 200, seed=1)
    assert (differences > 0).mean() > 0.95
    assert differences.mean() == pytest.approx(better.value(metric) - worse.value(metric), abs=0.05)
    np.testing.assert_array_equal(differences, paired_differences(better, worse, truth, metric, 200, seed=1))


def test_a_model_does_not_differ_from_itself() -> None:
    truth, scores = scored(0.5)
    ranking = Ranking(truth, scores, 20)
    assert (paired_differences(ranking, ranking, truth, "average_precision", 60, seed=1) == 0).all()


@given(st.lists(st.integers(0, 20), min_size=1, max_size=200), st.floats(0.001, 0.5))
def test_threshold_flags_at_most_the_alert_rate(values: list[int], rate: float) -> None:
    scores = np.array(values, dtype=np.float32) / 20
    flagged = (scores >= threshold_at(scores, rate)).sum()
    tied_at_the_top = (scores == scores.max()).sum()
    assert 1 <= flagged <= max(1, int(rate * len(scores)), tied_at_the_top)


def test_threshold_flags_the_alert_rate_when_scores_differ() -> None:
    scores = np.random.default_rng(0).permutation(1000) / 1000
    assert (scores >= threshold_at(scores, 0.005)).sum() == 5


def test_importance_is_of_the_feature_that_decides() -> None:
    truth, scores = scored(0.0)
    features = np.column_stack([np.zeros(len(scores)), scores]).astype(np.float32)
    falls = permutation_importance(
        lambda x: x[:, 1], features, truth, ["idle", "signal"], "average_precision", 20, seed=0
    )
    assert falls["idle"] == 0
    assert falls["signal"] > 0.02
