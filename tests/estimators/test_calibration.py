"""Calibrated probabilities are closer to what comes true, and ONNX computes the same ones."""

import itertools

import numpy as np
import onnx
import pytest

from tests.cases import others_in_ci, others_long
from tests.estimators.test_estimators import QUICK
from tests.estimators.test_matrix import KINDS, exported, made, odd
from training.contract.errors import ConfigError, DataContractError
from training.contract.names import Target
from training.domain.parity import prove_parity
from training.estimators import base
from training.estimators.base.calibration import Isotonic, OneVersusRest, fit_calibrated

METHODS = ("sigmoid", "isotonic")
#: Both methods with all estimators; first a linear one and trees.
CALIBRATED = list(
    dict.fromkeys([("logistic_regression", "sigmoid"), ("xgboost", "isotonic"), *itertools.product(QUICK, METHODS)])
)


def calibrated(name: str, method: str, data: base.TrainingData, **given: object):  # type: ignore[no-untyped-def]
    estimator = base.load(name)
    parameters = base.parameters_for(name, estimator, data.target, {**QUICK[name], **given})
    return fit_calibrated(estimator, data, parameters, 7, method)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", others_long(["binary", "classes"]))
@pytest.mark.parametrize(("name", "method"), others_in_ci(CALIBRATED, first=2))
def test_onnx_computes_the_calibrated_probabilities(name: str, method: str, target: Target) -> None:
    data = made(target, KINDS["all"], 2000)
    fitted = calibrated(name, method, data)
    content = fitted.onnx()
    onnx.checker.check_model(onnx.load_from_string(content))
    for rows in (data.features, odd(data)):
        native = fitted.outputs(rows)
        assert ((native >= 0) & (native <= 1)).all()
        if target == "classes":
            np.testing.assert_allclose(native.sum(axis=1), 1)
        assert prove_parity(native, exported(content, rows), target) < 1e-4
    assert calibrated(name, method, data).onnx() == content


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_a_weighted_model_becomes_calibrated(method: str) -> None:
    """With a weight of 30, positive rows get far too large probabilities."""
    data = made("binary", KINDS["all"], 12_000)
    train, later = data.first(8000), slice(8000, None)
    name, weight = "hist_gradient_boosting", {"positive_weight": 30.0}
    estimator = base.load(name)
    plain = estimator.fit(train, base.parameters_for(name, estimator, "binary", {**QUICK[name], **weight}), 7)
    truth = data.labels[later]

    def brier(fitted: base.Fitted) -> float:
        return float(np.mean((fitted.outputs(data.features[later]) - truth) ** 2))

    better = calibrated(name, method, train, **weight)
    assert brier(better) < 0.8 * brier(plain)
    assert abs(better.outputs(data.features[later]).mean() - truth.mean()) < 0.03


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_classes_become_calibrated(method: str) -> None:
    """Trees that were fitted too closely are far too sure of themselves."""
    data = made("classes", KINDS["all"], 12_000)
    noisy = np.random.default_rng(3).random(12_000) < 0.3
    data.labels[noisy] = np.random.default_rng(4).integers(0, 3, noisy.sum())
    train, later = data.first(8000), slice(8000, None)
    name, close = "hist_gradient_boosting", {"max_iter": 150, "max_leaf_nodes": 60, "learning_rate": 0.3}
    estimator, truth = base.load(name), data.labels[later]
    plain = estimator.fit(train, base.parameters_for(name, estimator, "classes", {**QUICK[name], **close}), 7)

    def log_loss(fitted: base.Fitted) -> float:
        likely = fitted.outputs(data.features[later])[np.arange(len(truth)), truth]
        return float(-np.log(np.maximum(likely, 1e-9)).mean())

    better = calibrated(name, method, train, **close)
    assert log_loss(better) < 0.9 * log_loss(plain)
    shares = better.outputs(data.features[later]).mean(axis=0)
    np.testing.assert_allclose(shares, np.bincount(truth) / len(truth), atol=0.03)


def test_rows_that_no_curve_expects_get_the_shares_of_the_classes() -> None:
    never = Isotonic(np.array([0.1, 0.9], np.float32), np.array([0.0, 1.0], np.float32))
    curve = OneVersusRest((never, never, never), np.array([0.5, 0.3, 0.2], np.float32))
    np.testing.assert_allclose(curve(np.full((2, 3), 0.05)), [[0.5, 0.3, 0.2]] * 2, atol=1e-6)


def test_a_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="a regression has none"):
        fit_calibrated(base.load("lightgbm"), made("number", KINDS["numbers"]), {}, 7, "sigmoid")


@pytest.mark.parametrize("target", ["binary", "classes"])
def test_without_all_labels_in_both_parts_it_says_so(target: Target) -> None:
    data = made(target, KINDS["numbers"], 200)
    data.labels[-60:] = 0
    with pytest.raises(DataContractError, match="the last 40 training rows do not have all"):
        calibrated("logistic_regression", "sigmoid", data)
