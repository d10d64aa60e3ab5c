"""Calibrated probabilities are closer to what comes true, and ONNX computes the same ones."""

import numpy as np
import onnx
import pytest

from tests.estimators.test_estimators import QUICK
from tests.estimators.test_matrix import KINDS, exported, made, odd
from training.contract.errors import ConfigError, DataContractError
from training.domain.parity import prove_parity
from training.estimators import base
from training.estimators.base.calibration import fit_calibrated

METHODS = ("sigmoid", "isotonic")


def calibrated(name: str, method: str, data: base.TrainingData, **given: object):  # type: ignore[no-untyped-def]
    estimator = base.load(name)
    parameters = base.parameters_for(name, estimator, "binary", {**QUICK[name], **given})
    return fit_calibrated(estimator, data, parameters, 7, method)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", QUICK)
def test_onnx_computes_the_calibrated_probabilities(name: str, method: str) -> None:
    data = made("binary", KINDS["all"], 2000)
    fitted = calibrated(name, method, data)
    content = fitted.onnx()
    onnx.checker.check_model(onnx.load_from_string(content))
    for rows in (data.features, odd(data)):
        native = fitted.outputs(rows)
        assert ((native >= 0) & (native <= 1)).all()
        assert prove_parity(native, exported(content, rows), "binary") < 1e-4
    assert calibrated(name, method, data).onnx() == content


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


def test_another_target_is_refused() -> None:
    with pytest.raises(ConfigError, match="binary tasks only"):
        fit_calibrated(base.load("lightgbm"), made("number", KINDS["numbers"]), {}, 7, "sigmoid")


def test_without_both_labels_in_both_parts_it_says_so() -> None:
    data = made("binary", KINDS["numbers"], 200)
    data.labels[-60:] = 0
    with pytest.raises(DataContractError, match="the last 40 training rows have one label only"):
        calibrated("logistic_regression", "sigmoid", data)
