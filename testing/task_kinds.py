"""Models of each kind of task whose scores depend on the amount of an event only, and specs for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper

from testing.serving_artifacts import artifact
from training.adapters.features import Features
from training.adapters.onnx_model import OnnxModel, OnnxScorer, digest, write_artifact
from training.contract.artifact import ONNX_INPUT, ONNX_OUTPUT, ArtifactMetadata
from training.contract.model_spec import MODELS_DIR
from training.domain.task_kind import ServedTask
from training.domain.tasks.multiclass import ServedMulticlass
from training.domain.tasks.regression import ServedRegression

SOURCE, MODEL, AMOUNT = "card_payments", "card_fraud", "payment_amount"
#: The likeliest class is low up to an amount of 30, and high from 60 on.
CLASSES = ("low", "middle", "high")
SLOPES, OFFSETS = (0.0, 0.5, 1.0), (0.0, -15.0, -45.0)
#: Twice the amount is predicted; amounts of the callers in tests are between 0 and 100.
HALF_WIDTH, COVERAGE = 30.0, 0.9
TASKS: dict[str, ServedTask] = {
    "multiclass": ServedMulticlass(CLASSES, reject_below=0.6),
    "regression": ServedRegression(HALF_WIDTH, COVERAGE, tuple(np.linspace(10, 190, 19).tolist())),
}
_EVALUATION = {"multiclass": {"limits": {"log_loss": 1.0}}, "regression": {"limits": {"rmse": 100.0}}}
_SECTIONS: dict[str, dict[str, Any]] = {
    "multiclass": {"kind": "multiclass", "decision": {"reject_below": 0.6}},
    "regression": {"kind": "regression", "interval": {"coverage": COVERAGE}},
}


def models_of(folder: Path, kind: str) -> Path:
    """A folder with the spec of MODEL, as a task of this kind."""
    folder.mkdir(parents=True)
    (folder / f"{MODEL}.yaml").write_text(yaml.safe_dump(spec_of(kind)))
    return folder


def spec_of(kind: str, model: str = MODEL) -> dict[str, Any]:
    """The fields of the spec of MODEL, as a task of this kind, under the name `model`."""
    spec: dict[str, Any] = yaml.safe_load((MODELS_DIR / f"{MODEL}.yaml").read_text()) | {"name": model}
    if kind in _SECTIONS:
        spec["task"] = _SECTIONS[kind]
        spec["evaluation"] = {"entity": spec["evaluation"]["entity"], **_EVALUATION[kind]}
    spec.pop("rollout")
    return spec


def artifact_of(
    folder: Path,
    kind: str,
    features: Features,
    shift: float = 0.0,
    classes: Sequence[str] = CLASSES,
    model: str = MODEL,
) -> Path:
    """An artifact of this kind for the features of `features`. `shift` is added to every amount.

    Other `classes` are the names of the three.
    """
    names = features.names()
    task = ServedMulticlass(tuple(classes), reject_below=0.6) if kind == "multiclass" else TASKS[kind]
    content = _graph(names, kind, shift)
    # A binary artifact has the golden events and their features already.
    binary = artifact(folder.with_name(f"{folder.name}-binary"), names, 0.0, features=features, model=model)
    made = OnnxModel.load(binary).metadata
    scores = OnnxScorer(content).score(np.asarray(made.golden.features, np.float32))
    fields = made.model_dump() | {
        "schema_version": 3,
        "digest": digest(content),
        "task": task.stored(),
        "outputs": list(task.output_names),
        "golden": made.golden.model_dump() | {"scores": scores.tolist(), "tolerance": 1e-3},
    }
    return write_artifact(folder, content, ArtifactMetadata.model_validate(fields))


def _graph(names: list[str], kind: str, shift: float) -> bytes:
    """Of a number: [rows]. Of classes: [rows, 3]."""
    slopes, offsets = (SLOPES, OFFSETS) if kind == "multiclass" else ((2.0,), (0.0,))
    weights = [slope * (name == AMOUNT) for name in names for slope in slopes]
    biases = [offset + shift * slope for slope, offset in zip(slopes, offsets, strict=True)]
    nodes = [
        helper.make_node("MatMul", [ONNX_INPUT, "weights"], ["product"]),
        helper.make_node("Add", ["product", "biases"], ["sums"]),
    ]
    if kind == "multiclass":
        nodes.append(helper.make_node("Softmax", ["sums"], [ONNX_OUTPUT], axis=1))
    else:
        nodes.append(helper.make_node("Reshape", ["sums", "flat"], [ONNX_OUTPUT]))
    graph = helper.make_graph(
        nodes,
        kind,
        [helper.make_tensor_value_info(ONNX_INPUT, TensorProto.FLOAT, ["rows", len(names)])],
        [
            helper.make_tensor_value_info(
                ONNX_OUTPUT, TensorProto.FLOAT, ["rows", 3] if kind == "multiclass" else ["rows"]
            )
        ],
        [
            helper.make_tensor("weights", TensorProto.FLOAT, [len(names), len(slopes)], weights),
            helper.make_tensor("biases", TensorProto.FLOAT, [len(slopes)], biases),
            helper.make_tensor("flat", TensorProto.INT64, [1], [-1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
