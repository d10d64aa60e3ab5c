"""Metrics of binary tasks against scikit-learn, on all rows and on bootstrap samples, and the decision."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from training.contract.tasks import BinaryTask
from training.domain.evaluation_set import EvaluationSet
from training.domain.metrics import paired_differences
from training.domain.resampling import Sample
from training.domain.tasks.binary import Binary, ScoredBinary, ServedBinary, threshold_at

METRICS = tuple(BinaryTask.METRICS)
THRESHOLD = 0.5

#: Metric → the same by scikit-learn, of labels and scores.
EXPECTED: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "roc_auc": roc_auc_score,
    "average_precision": average_precision_score,
    "log_loss": lambda labels, scores: log_loss(labels, scores, labels=[0, 1]),
    "brier": brier_score_loss,
    "precision_at_decision": lambda labels, scores: precision_score(labels, scores >= THRESHOLD, zero_division=0),
    "recall_at_decision": lambda labels, scores: recall_score(labels, scores >= THRESHOLD),
}

#: (label, score in tenths, entity, weight) of each row.
rows = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 10), st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=60
).filter(lambda rows: 0 < sum(label for label, _, _, _ in rows) < len(rows))


def scored(
    labels: np.ndarray, scores: np.ndarray, entities: np.ndarray | None, days: np.ndarray, k: int
) -> ScoredBinary:
    alerts = ServedBinary(THRESHOLD).decide(scores)
    return ScoredBinary(EvaluationSet.of(labels, entities, days), scores, METRICS, k, alerts)


@given(rows)
@settings(max_examples=40, deadline=None)
def test_metrics_are_those_of_scikit_learn(rows: list[tuple[int, int, int, int]]) -> None:
    labels, tenths, entities, weights = (np.array(column) for column in zip(*rows, strict=True))
    scores = (tenths / 10).astype(np.float32)
    found = scored(labels, scores, entities, np.zeros(len(rows)), 1)
    repeated = np.repeat(np.arange(len(rows)), weights)
    for metric, expected in EXPECTED.items():
        assert found.value(metric) == pytest.approx(expected(labels, scores)), metric
        if 0 < labels[repeated].sum() < len(repeated):
            weighted = found.value(metric, Sample(weights))
            assert weighted == pytest.approx(expected(labels[repeated], scores[repeated])), metric


def test_metrics_of_a_sample_without_a_positive_row_are_not_numbers() -> None:
    found = scored(np.array([0, 1]), np.array([0.1, 0.9]), None, np.zeros(2), 1)
    for metric in ("roc_auc", "average_precision", "recall_at_decision"):
        assert np.isnan(found.value(metric, Sample(np.array([1, 0]))))


# Day 0: entity 1 (0.9, positive), 2 (0.8), 3 (0.1, positive). Day 1: 1 again (0.9, positive), 3 (0.7, positive), 2
# (0.2).
LABELS, SCORES = np.array([1, 0, 1, 1, 1, 0]), np.array([0.9, 0.8, 0.1, 0.9, 0.7, 0.2])
ENTITIES, DAYS = np.array([1, 2, 3, 1, 3, 2]), np.array([0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        # Entity 1 is checked and found on day 0, so on day 1 entity 3 is first.
        (1, (1 / 1 + 1 / 1) / 2),
        # Day 0: entities 1 and 2, one positive. Day 1: 3 and 2, one positive.
        (2, (1 / 2 + 1 / 2) / 2),
        # Day 0: all three, two positive. Day 1: only entity 2 is left; k stays the divisor.
        (3, (2 / 3 + 0 / 3) / 2),
    ],
)
def test_precision_at_k_drops_entities_detected_earlier(k: int, expected: float) -> None:
    assert scored(LABELS, SCORES, ENTITIES, DAYS, k).value("precision_at_k") == pytest.approx(expected)


@pytest.mark.parametrize("entities", [ENTITIES, None])
def test_more_places_than_entities_lower_it_equally_for_every_model(entities: np.ndarray | None) -> None:
    here = scored(LABELS, SCORES, entities, np.zeros(6), 100)
    positive = 2 if entities is not None else 4
    assert here.value("precision_at_k") == positive / 100
    assert scored(LABELS, -SCORES, entities, np.zeros(6), 100).value("precision_at_k") == positive / 100
    nobody = scored(LABELS, SCORES, entities, np.zeros(6), 100).value("precision_at_k", Sample(np.zeros(6)))
    assert nobody == 0.0


def test_the_order_of_the_rows_does_not_matter() -> None:
    order = np.array([5, 3, 1, 4, 0, 2])
    found = scored(LABELS[order], SCORES[order], ENTITIES[order], DAYS[order], 2)
    assert found.value("precision_at_k") == pytest.approx(0.5)


def test_an_entity_counts_with_its_highest_score_and_label_of_the_day() -> None:
    labels, scores, entities = np.array([0, 1, 0]), np.array([0.9, 0.1, 0.5]), np.array(["a", "a", "b"])
    assert scored(labels, scores, entities, np.zeros(3), 1).value("precision_at_k") == 1.0


def test_without_an_entity_each_row_is_one() -> None:
    labels, scores = np.array([0, 1, 0]), np.array([0.9, 0.8, 0.5])
    assert scored(labels, scores, None, np.zeros(3), 2).value("precision_at_k") == 0.5


def test_precision_at_k_of_an_entity_drawn_twice() -> None:
    found = scored(np.array([1, 0, 1]), np.array([0.9, 0.8, 0.7]), np.array([0, 1, 2]), np.zeros(3), 2)
    assert found.value("precision_at_k") == 0.5
    assert found.value("precision_at_k", Sample(np.array([2, 1, 0]))) == 1.0
    assert found.value("precision_at_k", Sample(np.array([0, 3, 1]))) == 0.0


@given(st.lists(st.integers(0, 20), min_size=1, max_size=200), st.floats(0.001, 0.5))
def test_at_most_the_alert_rate_has_an_alert(values: list[int], rate: float) -> None:
    scores = np.array(values, dtype=np.float32) / 20
    alerts = (scores >= threshold_at(scores, rate)).sum()
    tied_at_the_top = (scores == scores.max()).sum()
    assert 1 <= alerts <= max(1, int(rate * len(scores)), tied_at_the_top)


def test_the_alert_rate_is_met_when_scores_differ() -> None:
    scores = np.random.default_rng(0).permutation(1000) / 1000
    assert (scores >= threshold_at(scores, 0.005)).sum() == 5


def test_what_an_artifact_holds_comes_back_and_decides() -> None:
    served = Binary.served(ServedBinary(0.3).stored())
    scores = np.array([0.2, 0.3, 0.9], dtype=np.float32)
    decided = [served.decisions[number] for number in served.decide(scores)]
    assert decided == ["pass", "alert", "alert"]
    logged = served.outputs(scores)
    assert (served.output_names, logged.shape) == (("score",), (3, 1))
    np.testing.assert_array_equal(served.scores(logged).astype(np.float32), scores)
    assert served.answer(logged[2].tolist()) == {"score": pytest.approx(0.9), "threshold": 0.3}
    assert Binary.answer_schema.keys() - {"decision"} == served.answer(logged[2].tolist()).keys()


#: What the version before task kinds measured on `earlier_rows`: entities → metric → (on all rows, challenger minus
#: champion in the first bootstrap sample, and the sum over 60 samples).
EARLIER: dict[int, dict[str, tuple[float, float, float]]] = {
    400: {
        "roc_auc": (0.7586404442198847, 0.013512746097264272, 0.46557337016908695),
        "average_precision": (0.07961283372590575, -0.004723486047419692, 0.0615840813398863),
        "precision_at_k": (0.12857142857142856, -0.07142857142857142, -0.6785714285714288),
    },
    # Too few entities: blocks of time.
    5: {
        "roc_auc": (0.7586404442198847, -0.015378322407942013, 0.5650078792261288),
        "average_precision": (0.07961283372590575, -0.012208928212263465, 0.022696030098286635),
        "precision_at_k": (0.03571428571428571, -0.019642857142857142, 0.019855397953640504),
    },
}


def earlier_rows(n: int = 5000) -> tuple[np.ndarray, ...]:
    """Labels, the scores of two models, entities, days and times of n rows."""
    random = np.random.default_rng(11)
    signal = random.random(n)
    labels = (random.random(n) < 0.15 * signal**4).astype(np.int64)
    scores = np.round(signal + random.normal(0, 0.3, n), 3).astype(np.float32)
    scores = np.clip((scores - scores.min()) / (scores.max() - scores.min()), 0, 1).astype(np.float32)
    entities, days = random.integers(0, 400, n), np.sort(random.integers(0, 7, n))
    seconds = days * 86_400 + random.integers(0, 86_400, n)
    other = np.round(scores + random.normal(0, 0.1, n), 3).astype(np.float32)
    return labels, scores, other, entities, days, np.datetime64("2026-01-05") + seconds * np.timedelta64(1, "s")


@pytest.mark.parametrize("count", EARLIER)
def test_metrics_and_samples_are_those_of_the_version_before(count: int) -> None:
    labels, scores, other, entities, days, times = earlier_rows()
    truth = EvaluationSet.of(labels, entities % count, days, times)
    challenger, champion = (ScoredBinary(truth, each, METRICS, 20, each >= 0.5) for each in (scores, other))
    for metric, (value, first, total) in EARLIER[count].items():
        differences = paired_differences(challenger, champion, metric, 60, 3)
        found = (challenger.value(metric), differences[0], differences.sum())
        assert found == pytest.approx((value, first, total), rel=1e-12), metric
    assert threshold_at(scores, 0.005) == 0.8884119987487793
