"""Metrics of regressions against scikit-learn, on all rows and on bootstrap samples, and prediction intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    mean_absolute_error,
    mean_pinball_loss,
    median_absolute_error,
    r2_score,
    root_mean_squared_error,
)

from training.domain.evaluation_set import EvaluationSet
from training.domain.resampling import Sample
from training.domain.tasks.regression import Regression, ScoredRegression, ServedRegression

METRICS = ("rmse", "mae", "median_absolute_error", "r2", "pinball_loss", "interval_coverage")
QUANTILE = 0.8

#: (label, score, weight) of each row, in quarters.
rows = st.lists(
    st.tuples(st.integers(-40, 40), st.integers(-40, 40), st.integers(0, 3)), min_size=2, max_size=60
).filter(lambda rows: len({label for label, _, _ in rows}) > 1)


def scored(labels: np.ndarray, scores: np.ndarray, half_width: float | None = 2.0) -> ScoredRegression:
    truth = EvaluationSet.of(labels, None, np.zeros(len(labels)))
    return ScoredRegression(truth, scores, METRICS, QUANTILE, half_width)


def expected(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    found = {
        "rmse": root_mean_squared_error(labels, scores),
        "mae": mean_absolute_error(labels, scores),
        "median_absolute_error": median_absolute_error(labels, scores),
        "pinball_loss": mean_pinball_loss(labels, scores, alpha=QUANTILE),
        "interval_coverage": float((np.abs(labels - scores) <= 2).mean()),
    }
    return found | ({"r2": r2_score(labels, scores)} if len(set(labels)) > 1 else {})


@given(rows)
@settings(max_examples=40, deadline=None)
def test_metrics_are_those_of_scikit_learn(rows: list[tuple[int, int, int]]) -> None:
    labels, scores, weights = (np.array(column) for column in zip(*rows, strict=True))
    labels, scores = labels / 4, (scores / 4).astype(np.float32)
    found = scored(labels, scores)
    assert found.measure() == pytest.approx(expected(labels, scores))
    repeated = np.repeat(np.arange(len(rows)), weights)
    if len(repeated):
        for metric, value in expected(labels[repeated], scores[repeated]).items():
            assert found.value(metric, Sample(weights)) == pytest.approx(value), metric


def test_without_an_interval_no_coverage_is_measured() -> None:
    assert "interval_coverage" not in scored(np.array([1.0, 2.0]), np.array([1.0, 2.0]), None).measure()


@pytest.mark.parametrize("served", [ServedRegression(), ServedRegression(1.5, 0.9)])
def test_what_an_artifact_holds_comes_back(served: ServedRegression) -> None:
    read = Regression.served(served.stored())
    assert read == served
    scores = np.array([1.0, -2.0], dtype=np.float32)
    logged = read.outputs(scores)
    assert logged.shape == (2, len(read.output_names))
    np.testing.assert_array_equal(read.scores(logged), scores)
    assert (read.decisions, read.decide(scores)) == ((), None)
    answer = read.answer(logged[1].tolist())
    assert answer["value"] == -2
    assert answer.get("interval") == ({"lower": -3.5, "upper": -0.5, "coverage": 0.9} if served.half_width else None)
    lacking = Regression.answer_schema.keys() - answer.keys()
    assert lacking == (set() if served.half_width else Regression.optional)
    assert answer.keys() <= Regression.answer_schema.keys()


def test_versions_agree_by_the_outer_bounds_where_the_quartiles_are_equal() -> None:
    """Most of the holdout has one output, such as 0 for what rarely happens."""
    scores, others = np.array([0.0, 0.0, 0.0]), np.array([0.5, 4.0, 6.0])

    def agreed(bounds: tuple[float, ...]) -> list[bool] | None:
        served = ServedRegression(bounds=bounds)
        found = served.agree(scores, served, others)
        return None if found is None else found.tolist()

    assert agreed(tuple(float(n) for n in range(19))) == [True, True, True]
    assert agreed((*[0.0] * 18, 5.0)) == [True, True, False]
    assert agreed((0.0,) * 19) is None
