"""Trees are fitted with thresholds in float64 and served with float32: no row may go the other way."""

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.cases import others_in_ci, others_long
from tests.estimators.test_estimators import data, learn, rows, scores_of
from training.contract.feature_definitions import FeatureColumn
from training.estimators import base
from training.estimators.base.graph import threshold_as_float32

LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
TREES = ("hist_gradient_boosting", "random_forest", "xgboost", "lightgbm")


def neighbours(threshold: float) -> np.ndarray:
    """float32 values around `threshold`, infinite ones included."""
    with np.errstate(over="ignore"):
        near = np.float32(threshold)
        below, above = np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))
    return np.array([-np.inf, below, near, above, np.inf, 0.0, -0.0], dtype=np.float32)


@given(st.floats(allow_nan=False))
@example(16777217.0)
@example(20260105.5)
@example(-20260105.5)
@example(SMALLEST / 2)
@example(-SMALLEST / 2)
@example(5e-324)
@example(-5e-324)
@example(LARGEST)
@example(1e300)  # scikit-learn's threshold above the last bin
@example(-1e300)
@example(float("inf"))
@example(1 + 2**-24)
@example(-1 - 2**-24)
def test_every_float32_lies_on_the_same_side_of_the_rounded_threshold(threshold: float) -> None:
    rounded = threshold_as_float32(threshold)
    assert rounded == np.float32(rounded)
    for value in neighbours(threshold):
        assert (float(value) <= threshold) == (value <= np.float32(rounded)), value


ONE = np.float32(1)
#: Features whose neighbouring values are neighbouring float32, and what else is at the edge of float32.
VALUES = {
    "dates": np.arange(20260101, 20260131),
    "negative dates": -np.arange(20260101, 20260131),
    "whole numbers above 2**24": 2**24 + 2 * np.arange(30),
    "seconds since 1970": 1.77e9 + 128 * np.arange(9),
    "around one": np.array([np.nextafter(ONE, np.float32(0)), ONE, np.nextafter(ONE, np.float32(2))]),
    "denormals": SMALLEST * np.arange(-5, 6),
    "tiny": 1e-38 * np.arange(-5, 6),
    "huge": 1e30 * np.arange(-5, 6),
    "the largest": np.array([LARGEST, np.nextafter(np.float32(LARGEST), ONE), -LARGEST]),
}


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("values", others_long(VALUES.values()), ids=VALUES)
def test_onnx_trees_of_neighbouring_floats_score_as_the_native_ones_do(name: str, values: np.ndarray) -> None:
    random = np.random.default_rng(1)
    x = random.choice(values.astype(np.float32), 2000)
    labels = ((x > np.median(values.astype(np.float32))) ^ (random.random(2000) < 0.1)).astype(np.int64)
    features = np.column_stack([x, random.normal(size=2000)]).astype(np.float32)
    fitted = learn(name, data(features, labels), 1)
    with np.errstate(over="ignore"):
        around = [np.nextafter(features, np.float32(side)) for side in (-np.inf, np.inf)]
    rows = np.concatenate([features, *around])
    rows = rows[np.isfinite(rows).all(axis=1)]
    native = fitted.outputs(rows)
    content = fitted.onnx()
    assert np.abs(scores_of(content, rows) - native).max() < 1e-5
    # The export rounds the graph's thresholds, not the fitted model's.
    np.testing.assert_allclose(fitted.outputs(rows), native, atol=1e-12)
    assert fitted.onnx() == content


def test_a_split_of_missing_values_from_the_others_stays_one() -> None:
    """Scikit-learn splits them off with an infinite threshold."""
    random = np.random.default_rng(1)
    features = random.normal(size=(2000, 2)).astype(np.float32)
    missing = random.random(2000) < 0.3
    features[missing, 0] = np.nan
    columns = (FeatureColumn(name="a", may_be_missing=True), FeatureColumn(name="b"))
    given = base.TrainingData(features, missing.astype(np.int64), columns, "binary")
    fitted = learn("hist_gradient_boosting", given, 1, max_iter=5)
    content = fitted.onnx()
    (trees,) = [node for node in onnx.load_from_string(content).graph.node if node.op_type.startswith("TreeEnsemble")]
    thresholds = next(a.floats for a in trees.attribute if a.name == "nodes_values")
    assert np.isinf(thresholds).any()
    assert np.abs(scores_of(content, features) - fitted.outputs(features)).max() < 1e-5


@pytest.mark.parametrize("name", others_in_ci(sorted(TREES, reverse=True)))
@pytest.mark.parametrize("missing", [False, True])
def test_trees_look_for_missing_values_only_where_there_may_be_some(name: str, missing: bool) -> None:
    """It takes an eighth of the time of the trees."""
    features, labels = rows(0)
    if missing:
        features[::7, 0] = np.nan
    columns = [FeatureColumn(name=f"f{at}", may_be_missing=missing) for at in range(features.shape[1])]
    fitted = learn(name, base.TrainingData(features, labels, columns, "binary"))
    content = fitted.onnx()
    [trees] = [node for node in onnx.load_from_string(content).graph.node if node.op_type.startswith("TreeEns")]
    looks = any(any(each.ints) for each in trees.attribute if each.name == "nodes_missing_value_tracks_true")
    # A forest gets an indicator instead.
    assert looks == (missing and name != "random_forest")
    np.testing.assert_allclose(scores_of(content, features), fitted.outputs(features), atol=2e-6)
