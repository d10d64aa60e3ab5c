"""Every estimator learns every target that it names from numbers, missing values and categories, and exports it."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from tests.cases import others_in_ci, others_long
from tests.estimators.test_estimators import learn
from training.contract.artifact import ONNX_INPUT
from training.contract.errors import ConfigError, DataContractError
from training.contract.feature_definitions import FeatureColumn
from training.contract.names import Target
from training.contract.registries import ESTIMATORS
from training.domain.parity import prove_parity
from training.estimators import base
from training.estimators.base.preparation import Preparation

NUMBERS = (FeatureColumn(name="amount"), FeatureColumn(name="count"))
MISSING = (
    FeatureColumn(name="speed", may_be_missing=True),
    FeatureColumn(name="never_missing_in_training", may_be_missing=True),
)
CATEGORIES = (
    FeatureColumn(name="carrier", categories=("UA", "AA", "DL", "B6"), may_be_missing=True),
    FeatureColumn(name="origin", categories=("EWR", "JFK"), may_be_missing=True),
)
KINDS = {
    "numbers": NUMBERS,
    "missing": NUMBERS + MISSING,
    "categories": NUMBERS + CATEGORIES,
    "categories only": CATEGORIES,
    "all": NUMBERS + MISSING + CATEGORIES,
}
#: Listed, because every worker process imports this file, and the libraries of all estimators take 4 s of CPU.
TARGETS: dict[str, list[Target]] = {
    "hist_gradient_boosting": ["binary", "classes", "number"],
    "lightgbm": ["binary", "classes", "number"],
    "linear_regression": ["number"],
    "logistic_regression": ["binary", "classes"],
    "mlp": ["binary", "classes", "number"],
    "random_forest": ["binary", "classes", "number"],
    "xgboost": ["binary", "classes", "number"],
}
CASES = [(name, target) for name, targets in TARGETS.items() for target in targets]


@pytest.mark.ci
def test_every_estimator_and_target_is_a_case() -> None:
    assert {name: list(base.load(name).DEFAULTS) for name in ESTIMATORS.names()} == TARGETS


def made(target: Target, columns: tuple[FeatureColumn, ...], n: int = 800) -> base.TrainingData:
    """Labels that depend on every column but the last of each kind, also on whether a value is missing."""
    random = np.random.default_rng(5)
    values = {
        "amount": np.round(random.lognormal(3, 1, n), 2),
        "count": random.integers(0, 20, n).astype(float),
        "speed": np.where(random.random(n) < 0.3, np.nan, random.normal(size=n)),
        "never_missing_in_training": random.normal(size=n),
        # Four categories, and a few that are not in the list.
        "carrier": np.where(random.random(n) < 0.1, np.nan, random.integers(0, 5, n)),
        "origin": random.integers(0, 2, n).astype(float),
    }
    z = values["amount"] / 30 + 0.3 * random.normal(size=n)
    z += np.where(np.isnan(values["speed"]), 2, values["speed"]) if columns[-1:] != NUMBERS[-1:] else 0
    effect = np.array([0.0, 3, -2, 1, 4, -3])
    z += effect[np.where(np.isnan(values["carrier"]), 5, values["carrier"]).astype(int)]
    labels = {"binary": (z > 2).astype(np.int64), "classes": np.digitize(z, [0.5, 3]), "number": 100 * z}[target]
    features = np.column_stack([values[column.name] for column in columns]).astype(np.float32)
    return base.TrainingData(features, labels, columns, target)


def odd(data: base.TrainingData) -> np.ndarray:
    """The training rows, with missing values and unseen categories wherever they may be."""
    rows = data.features.copy()
    for i, column in enumerate(data.columns):
        if column.may_be_missing:
            rows[i::7, i] = np.nan
        if column.categories:
            rows[i + 1 :: 5, i] = len(column.categories)
    return rows


def exported(content: bytes, rows: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {ONNX_INPUT: rows})
    return np.asarray(found)


#: `make test` learns one target with each estimator in one of the next two tests, and another one in the other. It
#: leaves `mlp` out: to import torch takes 2 s of CPU, and test_own_estimators.py learns from the same rows with it.
ONE: dict[str, Target] = {
    "hist_gradient_boosting": "binary",
    "lightgbm": "classes",
    "linear_regression": "number",
    "logistic_regression": "classes",
    "random_forest": "classes",
    "xgboost": "number",
}
OTHER: dict[str, Target] = {
    "hist_gradient_boosting": "number",
    "lightgbm": "binary",
    "linear_regression": "number",
    "logistic_regression": "binary",
    "random_forest": "number",
    "xgboost": "binary",
}


def chosen(targets: dict[str, Target]) -> list[Any]:
    """All cases. Those that are not in `targets` are marked `ci`."""
    cases = sorted(CASES, key=lambda case: targets.get(case[0]) != case[1])
    return others_in_ci(cases, first=len(targets))


@pytest.mark.parametrize("kind", others_long(reversed(KINDS)))
@pytest.mark.parametrize(("name", "target"), chosen(ONE))
def test_learns_exports_and_repeats_itself(name: str, target: Target, kind: str) -> None:
    data = made(target, KINDS[kind])
    data.check()
    fitted = learn(name, data)
    content = fitted.onnx()
    for rows in (data.features, odd(data)):
        native, found = fitted.outputs(rows), exported(content, rows)
        assert found.dtype == np.float32
        assert found.shape == native.shape == ((len(rows), 3) if target == "classes" else (len(rows),))
        assert np.isfinite(found).all()
        assert prove_parity(native, found, target) < 1e-2
    assert learn(name, data).onnx() == content


@pytest.mark.parametrize(("name", "target"), chosen(OTHER))
def test_a_column_may_have_been_missing_in_all_training_rows(name: str, target: Target) -> None:
    data = made(target, KINDS["missing"], 300)
    features = data.features.copy()
    features[:, 2] = np.nan
    data = replace(data, features=features)
    fitted = learn(name, data)
    rows = features.copy()
    rows[::2, 2] = 1.0
    assert prove_parity(fitted.outputs(rows), exported(fitted.onnx(), rows), target) < 1e-2


@pytest.mark.long
@pytest.mark.parametrize(("name", "target"), CASES, ids=[f"{name}-{target}" for name, target in CASES])
def test_a_category_and_a_missing_value_decide(name: str, target: Target) -> None:
    """The outputs follow the effect of each category, of unseen ones together and of missing ones."""
    data = made(target, KINDS["all"], 3000)
    fitted = learn(name, data)
    rows = np.repeat(data.features[:100], 6, axis=0).reshape(100, 6, -1)
    rows[:, :, 4] = [0, 1, 2, 3, 4, np.nan]
    found = fitted.outputs(rows.reshape(600, -1)).reshape(100, 6, -1).mean(axis=0)
    found = found @ np.arange(3) if target == "classes" else found[:, 0]
    assert list(np.argsort(found)) == [5, 2, 0, 3, 1, 4]


@pytest.mark.parametrize("name", others_in_ci(["linear_regression", "mlp"]))
def test_a_code_that_no_training_row_has_changes_nothing(name: str) -> None:
    """`origin` has only its two categories in the training rows. Other codes add nothing to the sums."""
    data = made("number", KINDS["categories"])
    unseen, missing = np.repeat(data.features[:2, None], 2, axis=1).transpose(1, 0, 2).copy()
    unseen[:, 3], missing[:, 3] = 2, np.nan
    assert Preparation.of(data).apply(unseen)[:, -4:].tolist() == [[0, 0, 1, 0]] * 2
    assert Preparation.of(data).apply(missing)[:, -4:].tolist() == [[0, 0, 0, 1]] * 2
    fitted = learn(name, data)
    np.testing.assert_allclose(fitted.outputs(unseen), fitted.outputs(missing), rtol=1e-5)


def test_an_estimator_that_cannot_learn_the_target_says_what_it_can() -> None:
    estimator = base.load("logistic_regression")
    with pytest.raises(ConfigError, match="cannot learn a number, only a binary label or classes"):
        base.parameters_for("logistic_regression", estimator, "number", {})


def test_only_a_column_that_may_be_missing_may_have_nan() -> None:
    data = made("binary", KINDS["all"])
    data.features[3, 0] = np.nan
    data.features[4, 3] = np.inf
    with pytest.raises(DataContractError, match=r"amount \(1 rows\), never_missing_in_training \(1 rows\)\n"):
        data.check()


@pytest.mark.parametrize(
    ("target", "labels", "found"),
    [
        ("classes", [0, 2, 2, 0], r"0, 1, … k-1 and all must occur; the 4 training rows have 0, 2"),
        ("classes", [0, 0, 0, 0], r"all must occur"),
        ("number", [1.5, 1.5, 1.5, 1.5], "All 4 training rows have the label 1.5"),
        ("number", [1.5, np.nan, 1.5, 1.5], "not finite"),
    ],
)
def test_labels_that_do_not_suit_the_target_are_refused(target: Target, labels: list[float], found: str) -> None:
    features = np.arange(8, dtype=np.float32).reshape(4, 2)
    with pytest.raises(DataContractError, match=found):
        base.TrainingData(features, np.array(labels), NUMBERS, target).check()
