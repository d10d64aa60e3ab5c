"""Explanations sum to the score, and say what is true of a model whose parts are known."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from testing.serving_artifacts import artifact
from training.adapters.onnx_model import OnnxModel, OnnxScorer
from training.contract.artifact import ONNX_INPUT, ONNX_OUTPUT, Golden
from training.domain.explanation import explain
from training.domain.tasks.multiclass import ServedMulticlass
from training.domain.tasks.regression import ServedRegression

NAMES = ["a", "b", "c"]


def linear(weights: list[float]) -> OnnxScorer:
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", [ONNX_INPUT, "weights"], ["column"]),
            helper.make_node("Reshape", ["column", "flat"], [ONNX_OUTPUT]),
        ],
        "linear",
        [helper.make_tensor_value_info(ONNX_INPUT, TensorProto.FLOAT, ["rows", len(weights)])],
        [helper.make_tensor_value_info(ONNX_OUTPUT, TensorProto.FLOAT, ["rows"])],
        [
            helper.make_tensor("weights", TensorProto.FLOAT, [len(weights), 1], weights),
            helper.make_tensor("flat", TensorProto.INT64, [1], [-1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return OnnxScorer(model.SerializeToString())


@pytest.fixture
def model(tmp_path: Path) -> OnnxModel:
    return OnnxModel.load(artifact(tmp_path / "model", NAMES, bias=-1.0))


def test_of_a_linear_model_they_are_its_terms(model: OnnxModel) -> None:
    reference = np.array([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]], np.float32)
    metadata = model.metadata.model_copy(update={"golden": Golden(features=reference.tolist(), scores=[0, 0])})
    row = np.array([3.0, 2.0, 7.0], np.float32)
    found = explain(OnnxModel(metadata, linear([0.5, -0.25, 0.0])).score, ServedRegression(), metadata, row)
    assert found["contributions"] == pytest.approx({"a": 0.5 * (3 - 1), "b": -0.25 * (2 - 1), "c": 0.0}, abs=1e-6)
    assert (found["output"], found["base_score"]) == ("value", pytest.approx(0.25, abs=1e-6))


def test_of_classes_the_likeliest_is_explained(model: OnnxModel) -> None:
    """Two classes whose probabilities sum to one: what speaks for one speaks against the other."""
    metadata, row = model.metadata, np.array([30.0, -20.0, 5.0], np.float32)

    def both(features: np.ndarray) -> np.ndarray:
        scores = model.score(features)
        return np.stack([1 - scores, scores], axis=1)

    found = explain(both, ServedMulticlass(("no", "yes")), metadata, row)
    probability = float(both(row[None])[0].max())
    assert found["output"] == "no"
    assert found["base_score"] + sum(found["contributions"].values()) == pytest.approx(probability, abs=1e-6)
    of_score = explain(model.score, model.task, metadata, row)["contributions"]
    assert found["contributions"] == pytest.approx({name: -value for name, value in of_score.items()}, abs=1e-6)


def test_they_sum_to_the_score_and_are_the_same_again(model: OnnxModel) -> None:
    row = np.array([30.0, -20.0, 5.0], np.float32)
    found = explain(model.score, model.task, model.metadata, row)
    score = float(model.score(row[None])[0])
    assert found["base_score"] + sum(found["contributions"].values()) == pytest.approx(score, abs=1e-6)
    assert explain(model.score, model.task, model.metadata, row) == found
    assert list(found["contributions"]) == NAMES
