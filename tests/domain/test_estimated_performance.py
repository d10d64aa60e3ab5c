"""Performance before labels come: NannyML's published examples, and what an estimate sees and does not see.

The published values are those of the tutorials of NannyML 0.13 ("Estimating Standard Performance Metrics" for binary
classification, "Estimating Performance" for multiclass classification and for regression). Its example data, from the
package (Apache License 2.0), is in the folder `published`: numbers of rows by score, and of the regression a sample.
"""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cases import others_in_ci
from training.contract.base import Days
from training.contract.messages import ComparedEstimate
from training.contract.model_spec import load_model_spec
from training.contract.spec_sections import MonitoringSpec
from training.domain.estimated_performance import (
    Curves,
    Estimate,
    Estimator,
    Known,
    Losses,
    Unlabelled,
    compared,
    estimated_performance,
    have_been_right,
)
from training.domain.evaluation_set import EvaluationSet
from training.domain.metrics import standard_error
from training.domain.performance import judge_drop
from training.domain.resampling import clusters_of
from training.domain.task_kind import Scored, task_of
from training.domain.tasks.binary import ServedBinary
from training.domain.tasks.multiclass import ExpectedMulticlass, ServedMulticlass
from training.domain.tasks.regression import ServedRegression

PUBLISHED = Path(__file__).parent / "published"
TASK, SERVED = task_of(load_model_spec("card_fraud")), ServedBinary(0.5)
AVERAGE_PRECISION = TASK.rules["average_precision"]
WINDOW = Days(start=date(2026, 3, 2), end=date(2026, 3, 9))

#: ROC AUC, accuracy and F1 of the ten chunks; accuracy as far as the tutorial shows it.
CAR_LOAN = [
    (0.970744, 0.941792, 0.943030),
    (0.971011, 0.943321, 0.941324),
    (0.971407, 0.945492, 0.943574),
    (0.971091, 0.944816, 0.943159),
    (0.971123, 0.944645, 0.944204),
    (0.961090, 0.910714, 0.911753),
    (0.961825, None, 0.911766),
    (0.961073, None, 0.911661),
    (0.962533, None, 0.913763),
    (0.961316, None, 0.914751),
]


def rows_of(n: int) -> EvaluationSet:
    return EvaluationSet(np.zeros(n, np.int64), None, np.zeros(n, np.int64))


@pytest.mark.parametrize("chunk", others_in_ci(range(10), every=5))
def test_binary_estimates_are_those_that_nannyml_publishes(chunk: int) -> None:
    counts = pd.read_csv(PUBLISHED / "car_loan.csv")
    scores, of_chunk = counts["score"].to_numpy(), counts[f"chunk_{chunk}"].to_numpy()
    shares = (counts["reference_positive"] / counts["reference"]).to_numpy()
    estimation = Curves({"positive": shares}, scores, np.empty(0)).fit(counts["reference"].to_numpy())
    drawn = np.repeat(scores, of_chunk)
    expected = TASK.expected(rows_of(len(drawn)), drawn, ServedBinary(0.645), estimation(drawn, np.empty(0)))
    found, (auc, accuracy, f1) = expected.measure(), CAR_LOAN[chunk]
    precision, recall = found["precision_at_decision"], found["recall_at_decision"]
    assert found["roc_auc"] == pytest.approx(auc, abs=2e-6)
    assert 2 * precision * recall / (precision + recall) == pytest.approx(f1, abs=2e-6)
    if accuracy is not None:
        alerts, positives = (drawn > 0.645).mean(), estimation(drawn, np.empty(0))["positive"].mean()
        assert 1 - alerts - positives + 2 * precision * alerts == pytest.approx(accuracy, abs=2e-6)


@pytest.mark.parametrize(("chunk", "auc", "f1"), [(0, 0.906962, 0.753301), (5, 0.819359, 0.630985)])
def test_multiclass_estimates_are_those_that_nannyml_publishes(chunk: int, auc: float, f1: float) -> None:
    counts = pd.read_parquet(PUBLISHED / "credit_card.parquet")
    classes = ("prepaid_card", "highstreet_card", "upmarket_card")
    scores, reference = counts[[f"p_{name}" for name in classes]].to_numpy(), counts[list(classes)].to_numpy()
    rows = reference.sum(axis=1)
    shares = np.divide(reference, rows[:, None], out=np.zeros(reference.shape), where=rows[:, None] > 0)
    estimation = Curves(dict(zip(classes, shares.T, strict=True)), scores, np.empty(0)).fit(rows)
    drawn = np.repeat(scores, counts[f"chunk_{chunk}"], axis=0)
    likely = np.column_stack(list(estimation(drawn, np.empty(0)).values()))
    likely /= likely.sum(axis=1, keepdims=True)
    served = ServedMulticlass(classes)
    expected = ExpectedMulticlass(rows_of(len(drawn)), drawn, served, ("ovr_auc", "macro_f1"), 2, likely)
    assert expected.measure() == pytest.approx({"ovr_auc": auc, "macro_f1": f1}, abs=2e-6)


def test_regression_estimates_are_near_those_that_nannyml_publishes() -> None:
    """It learns the losses with LightGBM on 60,000 rows, we with scikit-learn on 6,000 of them."""
    table = pd.read_parquet(PUBLISHED / "car_price.parquet")
    table = table.assign(fuel=table["fuel"].cat.codes, transmission=table["transmission"].cat.codes)
    features = table.drop(columns=["y_true", "y_pred", "chunk"]).to_numpy(np.float64)
    known = (table["chunk"] == -1).to_numpy()
    predicted = table["y_pred"].to_numpy(np.float64)
    squared = (table["y_true"][known].to_numpy(np.float64) - predicted[known]) ** 2
    estimation = Losses({"rmse": squared}, predicted[known], features[known]).fit(np.ones(known.sum()))
    for chunk, rmse in ((0, 1067.212885), (5, 928.513388)):
        wanted = (table["chunk"] == chunk).to_numpy()
        found = np.sqrt(estimation(predicted[wanted], features[wanted])["rmse"].mean())
        assert found == pytest.approx(rmse, rel=0.02), chunk


def made(
    random: np.random.Generator, n: int = 4000, share: float = 0.1, sharpness: float = 3.0, broken: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of n rows. The score is a distorted probability. Less `sharpness`: the rows are harder to tell
    apart, and the scores say so. `broken`: labels follow another rule than the scores (concept drift)."""
    logits = random.normal(np.log(share / (1 - share)), sharpness, n)
    probability = 1 / (1 + np.exp(-logits))
    labels = (random.random(n) < (random.permutation(probability) if broken else probability)).astype(np.int64)
    return labels, probability**2


def estimator(labels: np.ndarray, scores: np.ndarray) -> Estimator:
    truth = EvaluationSet(labels, None, np.zeros(len(labels), np.int64))
    scored = TASK.scored(truth, scores, SERVED)
    drawn = [clusters_of(np.arange(len(labels)) // 2, truth.days, None)]
    error = standard_error(scored, "average_precision", drawn, seed=0)
    assert error is not None
    return Estimator(Known(np.empty((len(labels), 0)), scored, SERVED, drawn, error), TASK, seed=0)


def unlabelled(scores: np.ndarray) -> Unlabelled:
    drawn = [clusters_of(np.arange(len(scores)) // 2, np.zeros(len(scores), np.int64), None)]
    return Unlabelled(np.empty((len(scores), 0)), scores, drawn)


def realised(labels: np.ndarray, scores: np.ndarray) -> float:
    return TASK.scored(EvaluationSet(labels, None, np.zeros(len(labels), np.int64)), scores, SERVED).value(
        "average_precision"
    )


@pytest.mark.parametrize("times", others_in_ci([3, 6]))
def test_an_estimate_is_near_what_labels_show_later_and_its_interval_says_how_near(times: int) -> None:
    random, spec = np.random.default_rng(0), MonitoringSpec()
    found = []
    for _ in range(times):
        estimates = estimator(*made(random))
        for sharpness in (3.0, 3.0, 1.5):
            labels, scores = made(random, sharpness=sharpness)
            estimate = estimates(unlabelled(scores))
            assert estimate is not None
            found.append(compared(estimate, WINDOW, "average_precision", realised(labels, scores), spec))
    assert np.mean([each.inside for each in found]) >= 0.85
    assert np.mean([abs(each.error) for each in found]) < 0.03
    assert np.mean([each.standard_error for each in found]) < 0.04


@pytest.mark.parametrize("times", others_in_ci([4, 10]))
def test_harder_rows_degrade_an_estimate_and_the_same_rows_do_not(times: int) -> None:
    random = np.random.default_rng(1)
    estimates = estimator(*made(random))

    def degraded(sharpness: float) -> bool:
        estimate = estimates(unlabelled(made(random, sharpness=sharpness)[1]))
        assert estimate is not None
        test = judge_drop(
            estimate.drop, estimate.drop_error, 0.5, "average_precision", AVERAGE_PRECISION, 1, MonitoringSpec()
        )
        return estimated_performance(estimate, WINDOW, 1, test, AVERAGE_PRECISION, [], MonitoringSpec()).degraded

    assert not any(degraded(3.0) for _ in range(times))
    assert degraded(1.0)


def test_labels_that_no_longer_follow_the_features_are_not_seen_before_they_come() -> None:
    random = np.random.default_rng(2)
    estimates = estimator(*made(random))
    labels, scores = made(random, broken=True)
    estimate = estimates(unlabelled(scores))
    assert estimate is not None
    assert abs(estimate.drop) < 0.05
    found = compared(estimate, WINDOW, "average_precision", realised(labels, scores), MonitoringSpec())
    assert not found.inside
    assert found.error < -0.3


def earlier(*errors: float, inside: bool = True) -> list[ComparedEstimate]:
    weeks = [Days.ending(WINDOW.start - timedelta(days=7 * i), 7) for i in range(len(errors))]
    return [
        ComparedEstimate(window=week, estimated=0.5, realised=0.5 + error, standard_error=0.05, inside=inside)
        for week, error in zip(weeks, errors, strict=True)
    ]


@pytest.mark.parametrize(
    ("compared_before", "right"),
    [
        ([], False),
        (earlier(0.0, 0.0), False),
        (earlier(0.05, -0.05, 0.0), True),
        (earlier(0.15, -0.15, 0.15), False),
        (earlier(0.15, -0.1, 0.04), True),
        (earlier(0.0, 0.0) + earlier(0.0, inside=False), False),
        (earlier(0.0, 0.0, 0.0, 0.0) + earlier(0.0, inside=False), True),
    ],
)
def test_estimates_are_trusted_when_three_have_been_right(compared_before: list[ComparedEstimate], right: bool) -> None:
    assert have_been_right(compared_before, allowed=0.1) is right


def test_an_interval_does_not_leave_the_metrics_range() -> None:
    estimate = Estimate({"average_precision": 0.98}, 0.0, 0.05, 0.1)
    spec = MonitoringSpec()
    test = judge_drop(0.0, 0.05, 0.98, "average_precision", AVERAGE_PRECISION, 1, spec)
    found = estimated_performance(estimate, WINDOW, 100, test, AVERAGE_PRECISION, [], spec)
    assert found.low == pytest.approx(0.784, abs=0.001)
    assert found.high == 1.0


@pytest.mark.long
def test_a_regression_is_estimated_from_its_features() -> None:
    """Rows with a larger feature have larger errors, which neither labels nor scores show."""
    task, served = task_of(load_model_spec("flight_delay")), ServedRegression()
    random, n = np.random.default_rng(4), 800

    def made(power: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        features = 2 * random.random((n, 1)) ** power
        scores = random.normal(10, 5, n)
        return features, scores, scores + random.normal(0, 1, n) * (5 + 10 * features[:, 0])

    def scored(scores: np.ndarray, labels: np.ndarray) -> Scored:
        return task.scored(EvaluationSet(labels, None, np.zeros(n, np.int64)), scores, served)

    features, scores, labels = made(1.0)
    drawn = [clusters_of(np.arange(n) // 2, np.zeros(n, np.int64), None)]
    known = scored(scores, labels)
    primary = task.evaluation.primary
    error = standard_error(known, primary, drawn, seed=0)
    assert error is not None
    estimates = Estimator(Known(features, known, served, drawn, error), task, seed=0)
    for power, worse in ((1.0, False), (0.3, True)):
        features, scores, labels = made(power)
        estimate = estimates(Unlabelled(features, scores, drawn))
        assert estimate is not None
        assert {"rmse", "mae", "pinball_loss"} <= estimate.metrics.keys()
        assert "r2" not in estimate.metrics
        value = scored(scores, labels).value(primary)
        assert abs(estimate.metrics[primary] - value) < 3 * estimate.error
        assert (estimate.drop > 3 * estimate.drop_error) is worse


def test_classes_are_estimated_from_the_scores_of_all() -> None:
    task, classes = task_of(load_model_spec("flight_outcome")), ("cancelled", "late", "on time")
    served, random, n = ServedMulticlass(classes), np.random.default_rng(5), 3000

    def made(sharpness: float) -> tuple[np.ndarray, np.ndarray]:
        logits = sharpness * random.normal(0, 1, (n, 3))
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        drawn = (random.random((n, 1)) > probabilities.cumsum(axis=1)[:, :2]).sum(axis=1)
        return probabilities.astype(np.float32), np.array(classes, dtype=object)[drawn]

    def scored(scores: np.ndarray, labels: np.ndarray) -> Scored:
        return task.scored(EvaluationSet(labels, None, np.zeros(n, np.int64)), scores, served)

    clusters = [clusters_of(np.arange(n) // 2, np.zeros(n, np.int64), None)]
    known, primary = scored(*made(3.0)), task.evaluation.primary
    error = standard_error(known, primary, clusters, seed=0)
    assert error is not None
    estimates = Estimator(Known(np.empty((n, 0)), known, served, clusters, error), task, seed=0)
    for sharpness, worse in ((3.0, False), (1.5, True)):
        scores, labels = made(sharpness)
        estimate = estimates(Unlabelled(np.empty((n, 0)), scores, clusters))
        assert estimate is not None
        realised = scored(scores, labels).measure()
        assert estimate.metrics == pytest.approx(realised, abs=0.05)
        assert (estimate.drop > 3 * estimate.drop_error) is worse


def test_rows_of_which_none_is_expected_to_be_positive_have_no_estimate() -> None:
    labels, scores = made(np.random.default_rng(7))
    labels[scores < 0.001] = 0
    assert estimator(labels, scores)(unlabelled(np.full(200, 0.0))) is None


def test_a_metric_that_needs_the_labels_of_entities_has_no_estimate() -> None:
    spec = load_model_spec("card_fraud")
    task = task_of(
        spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"primary": "precision_at_k"})})
    )
    labels, scores = made(np.random.default_rng(6))
    scored = task.scored(EvaluationSet(labels, None, np.zeros(len(labels), np.int64)), scores, SERVED)
    with pytest.raises(KeyError, match="precision_at_k"):
        Estimator(Known(np.empty((len(labels), 0)), scored, SERVED, [], 0.1), task, seed=0)
