"""Every estimator keeps the protocol: learns, exports the one form of graph, agrees with it, repeats itself."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.cases import others_in_ci
from training.contract.artifact import ONNX_INPUT, ONNX_OUTPUT
from training.contract.errors import ConfigError, DataContractError
from training.estimators import base

#: Parameters that make each quick on a few thousand rows.
QUICK = {
    "hist_gradient_boosting": {"max_iter": 30},
    "logistic_regression": {},
    "random_forest": {"n_estimators": 20},
    "mlp": {"hidden": [16], "max_epochs": 8, "batch_size": 256, "learning_rate": 0.01},
    "xgboost": {"n_estimators": 30},
    "lightgbm": {"n_estimators": 60},
}
NAMES = list(QUICK)


def rows(seed: int, n: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Amounts with cents, counts and shares: many values lie exactly on split thresholds."""
    random = np.random.default_rng(seed)
    amount = np.round(random.lognormal(3, 1, n), 2)
    count = random.integers(0, 20, n)
    share = np.where(random.random(n) < 0.1, random.random(n), 0)
    chance = 1 / (1 + np.exp(5 - amount / 30 - 6 * share))
    constant = np.ones(n)
    features = np.column_stack([amount, count, share, constant]).astype(np.float32)
    return features, (random.random(n) < chance).astype(np.int64)


def data(features: np.ndarray, labels: np.ndarray) -> base.TrainingData:
    """To learn 0 or 1 from numbers."""
    names = ["amount", "count", "share", "constant"][: features.shape[1]]
    return base.TrainingData(features, labels, base.number_columns(names), "binary")


def learn(name: str, given: base.TrainingData, seed: int = 7, **parameters: object) -> base.Fitted:
    estimator = base.load(name)
    return estimator.fit(
        given, base.parameters_for(name, estimator, given.target, {**QUICK.get(name, {}), **parameters}), seed
    )


def fit(name: str, seed: int = 7) -> base.Fitted:
    return learn(name, data(*rows(0)), seed)


@pytest.fixture(scope="module")
def fitted() -> dict[str, base.Fitted]:
    return {name: fit(name) for name in NAMES}


def scores_of(content: bytes, features: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run([ONNX_OUTPUT], {ONNX_INPUT: features})[0]


@pytest.mark.parametrize("name", NAMES)
def test_learns_to_rank(fitted: dict[str, base.Fitted], name: str) -> None:
    features, labels = rows(1)
    scores = fitted[name].outputs(features)
    assert scores.shape == labels.shape
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores[labels == 1].mean() > 3 * scores[labels == 0].mean()


@pytest.mark.parametrize("name", NAMES)
def test_onnx_scores_as_the_native_model_does(fitted: dict[str, base.Fitted], name: str) -> None:
    features, _ = rows(2, 5000)
    exported = scores_of(fitted[name].onnx(), features)
    assert exported.shape == (len(features),)
    assert exported.dtype == np.float32
    assert np.abs(exported - fitted[name].outputs(features)).max() < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_onnx_agrees_next_to_every_split(fitted: dict[str, base.Fitted], name: str) -> None:
    """Values that are neighbours in float32 may lie on different sides of a double-precision threshold."""
    features, _ = rows(0)
    around = np.concatenate([np.nextafter(features, -np.inf), features, np.nextafter(features, np.inf)])
    assert np.abs(scores_of(fitted[name].onnx(), around) - fitted[name].outputs(around)).max() < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_one_row_scores_as_it_does_among_many(fitted: dict[str, base.Fitted], name: str) -> None:
    features, _ = rows(3, 200)
    content = fitted[name].onnx()
    alone = np.concatenate([scores_of(content, features[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(alone, scores_of(content, features)[:5], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_graph_has_the_one_form(fitted: dict[str, base.Fitted], name: str) -> None:
    model = onnx.load_from_string(fitted[name].onnx())
    (taken,), (given,) = model.graph.input, model.graph.output
    assert (taken.name, given.name) == (ONNX_INPUT, ONNX_OUTPUT)
    assert [d.dim_value for d in taken.type.tensor_type.shape.dim] == [0, 4]
    assert len(given.type.tensor_type.shape.dim) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_same_inputs_give_the_same_bytes(fitted: dict[str, base.Fitted], name: str) -> None:
    assert fit(name).onnx() == fitted[name].onnx()


@pytest.mark.parametrize(
    "name", others_in_ci(["hist_gradient_boosting", "mlp", "xgboost", "lightgbm", "random_forest"], first=2)
)
def test_another_seed_gives_another_model(fitted: dict[str, base.Fitted], name: str) -> None:
    parameters = {
        "hist_gradient_boosting": {"max_features": 0.5},
        "xgboost": {"subsample": 0.5},
        "lightgbm": {"subsample": 0.5},
    }.get(name, {})
    one, other = (learn(name, data(*rows(0, 500)), seed, **parameters).onnx() for seed in (1, 2))
    assert one != other


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(ConfigError, match="no parameter depth") as error:
        base.parameters_for("random_forest", base.load("random_forest"), "binary", {"depth": 3})
    assert "max_depth" in error.value.hint


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_named(value: float) -> None:
    features, labels = rows(0, 100)
    features[[3, 5], 1] = value
    with pytest.raises(DataContractError, match=r"count \(2 rows\)"):
        data(features, labels).check()


@pytest.mark.parametrize(
    ("labels", "found"), [(np.zeros(100), "100 training rows have 0"), (np.arange(100) % 3, "rows have 0, 1, 2")]
)
def test_labels_of_one_kind_or_of_three_are_refused(labels: np.ndarray, found: str) -> None:
    features, _ = rows(0, 100)
    with pytest.raises(DataContractError, match=f"both must occur; the .*{found}"):
        data(features, labels).check()


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataContractError, match="no training rows"):
        data(np.empty((0, 2), np.float32), np.empty(0)).check()


def test_features_that_never_vary_are_refused_with_their_names() -> None:
    with pytest.raises(DataContractError, match="No feature varies over the 100 training rows: amount, count"):
        data(np.full((100, 2), 0.1, np.float32), np.arange(100) % 2).check()


@pytest.mark.parametrize("name", NAMES)
def test_two_rows_are_enough_to_fit_and_export(name: str) -> None:
    features = np.array([[0.1, 5.0], [0.1, 7.0]], dtype=np.float32)
    fitted = learn(name, data(features, np.array([0, 1])), 1)
    assert np.abs(scores_of(fitted.onnx(), features) - fitted.outputs(features)).max() < 1e-5


def test_a_feature_that_was_constant_in_training_does_not_decide_when_it_moves() -> None:
    """The deviation of a constant float32 column is not exactly 0 in double precision."""
    features, labels = rows(0)
    features[:, 3] = 0.1
    fitted = learn("mlp", data(features, labels))
    moved = features.copy()
    moved[:, 3] = 0.2
    assert (fitted.outputs(moved) == fitted.outputs(features)).all()
