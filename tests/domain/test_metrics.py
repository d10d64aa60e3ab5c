"""Comparing models on bootstrap samples, and the importance of features."""

import numpy as np
import pytest

from training.contract.errors import DataContractError
from training.contract.model_spec import load_model_spec
from training.domain.evaluation_set import EvaluationSet
from training.domain.importance import permutation_importance
from training.domain.metrics import paired_differences
from training.domain.task_kind import task_of
from training.domain.tasks.binary import ScoredBinary, ServedBinary

TASK = task_of(load_model_spec("card_fraud"))
SERVED = ServedBinary(0.5)


def scored(noise: float, n: int = 4000) -> tuple[EvaluationSet, np.ndarray]:
    random = np.random.default_rng(3)
    signal = random.random(n)
    labels = (random.random(n) < 0.2 * signal**3).astype(int)
    truth = EvaluationSet.of(labels, random.integers(0, 500, n), np.arange(n) * 7 // n)
    return truth, signal + np.random.default_rng(4).normal(0, noise, n)


def ranked(truth: EvaluationSet, scores: np.ndarray) -> ScoredBinary:
    return ScoredBinary(truth, scores, tuple(TASK.rules), 20, SERVED.decide(scores))


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "precision_at_k"])
def test_paired_differences_find_the_better_model(metric: str) -> None:
    truth, sharp = scored(0.0)
    _, blurred = scored(1.0)
    better, worse = ranked(truth, sharp), ranked(truth, blurred)
    differences = paired_differences(better, worse, metric, 200, seed=1)
    assert (differences > 0).mean() > 0.95
    assert differences.mean() == pytest.approx(better.value(metric) - worse.value(metric), abs=0.05)
    np.testing.assert_array_equal(differences, paired_differences(better, worse, metric, 200, seed=1))


def test_a_model_does_not_differ_from_itself() -> None:
    truth, scores = scored(0.5)
    ranking = ranked(truth, scores)
    assert (paired_differences(ranking, ranking, "average_precision", 60, seed=1) == 0).all()


def test_importance_is_of_the_feature_that_decides() -> None:
    truth, scores = scored(0.0)
    features = np.column_stack([np.zeros(len(scores)), scores]).astype(np.float32)
    falls = permutation_importance(lambda x: x[:, 1], features, truth, ["idle", "signal"], TASK, SERVED, seed=0)
    assert falls["idle"] == 0
    assert falls["signal"] > 0.02


def test_one_kind_of_label_cannot_be_measured() -> None:
    with pytest.raises(DataContractError, match="the 2 evaluation rows: 0 positive"):
        TASK.evaluation_set([0, 0], [1, 2], [0, 0], None)


def test_scores_must_be_finite_and_as_many_as_rows() -> None:
    truth = EvaluationSet.of([0, 1], [1, 2], [0, 0])
    for scores in (np.array([0.1, np.nan]), np.array([0.1])):
        with pytest.raises(DataContractError, match="2 rows"):
            TASK.scored(truth, scores, SERVED)
