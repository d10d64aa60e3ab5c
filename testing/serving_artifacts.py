"""Tiny real models for tests of serving and of rollouts, also faulty ones."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from training.adapters.features import Features, golden_events
from training.adapters.onnx_model import OnnxScorer, digest, write_artifact
from training.contract.artifact import ONNX_INPUT, ONNX_OUTPUT, ArtifactMetadata, Golden
from training.contract.base import Days
from training.contract.model_spec import load_model_spec

#: The amount from which on a model made with `nan` gives no number.
NAN_FROM = 90.0
MODEL = "card_fraud"
#: Known to the online store.
CUSTOMER, TERMINAL = 7, 11
#: Of a golden event: an hour at which code that takes the night for shorter gives another feature.
GOLDEN_TIME = "2026-01-05T06:30:00+00:00"
EVENT: dict[str, Any] = {
    "transaction_id": 1,
    "event_time": "2026-01-05T12:30:00Z",
    "customer_id": CUSTOMER,
    "terminal_id": TERMINAL,
    "amount": 25.0,
}


def artifact(
    folder: Path,
    names: list[str],
    bias: float,
    golden_error: float = 0.0,
    features: Features | None = None,
    model: str = MODEL,
    **faults: Any,
) -> Path:
    """A logistic regression with weights 0.01 for every feature and `bias`, and what `_nodes` makes of `faults`.

    `features` were those of its training; without, it is an artifact from before they were part of one.
    """
    graph = helper.make_graph(
        _nodes(**faults),
        "tiny",
        [helper.make_tensor_value_info(ONNX_INPUT, TensorProto.FLOAT, ["rows", len(names)])],
        [helper.make_tensor_value_info(ONNX_OUTPUT, TensorProto.FLOAT, ["rows"])],
        [
            helper.make_tensor("weights", TensorProto.FLOAT, [len(names), 1], [0.01] * len(names)),
            helper.make_tensor("bias", TensorProto.FLOAT, [1], [bias]),
            helper.make_tensor("flat", TensorProto.INT64, [1], [-1]),
            *(_faulty(names) if faults.get("nan") or faults.get("raises") else []),
            *(_large() if faults.get("slow") else []),
            *(_heavy(faults["megabytes"]) if faults.get("megabytes") else []),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content = proto.SerializeToString()
    onnx.checker.check_model(proto)
    rows = np.ones((2, len(names)), np.float32)
    made_of: dict[str, Any] = {}
    if features is not None:
        definitions = features.definitions.needed_for(names)
        columns = [column.name for view in definitions.views for column in view.columns]
        events = [EVENT, EVENT | {"event_time": GOLDEN_TIME, "amount": 40.0}]
        made_of = {"events": events, "batch": [dict.fromkeys(columns, 0.5), dict.fromkeys(columns)]}
        rows = (
            features.plan(names)
            .replay(
                golden_events(Golden(features=[], scores=[], **made_of), load_model_spec("card_fraud")),
                made_of["batch"],
            )
            .values
        )
    scores = OnnxScorer(content).score(rows) + golden_error
    metadata = ArtifactMetadata(
        model=model,
        estimator="logistic_regression",
        digest=digest(content),
        feature_service=model,
        feature_names=names,
        task={"kind": "binary", "threshold": 0.5},
        outputs=["score"],
        golden=Golden(features=rows.tolist(), scores=scores.tolist(), **made_of),
        schema_version=1 if features is None else 2,
        features=None if features is None else definitions,
        dataset_id="tiny",
        as_of=date(2026, 1, 5),
        train_days=Days(start=date(2025, 12, 1), end=date(2025, 12, 8)),
        holdout_days=Days(start=date(2025, 12, 15), end=date(2025, 12, 22)),
        table_versions={},
        holdout_metrics={},
        parameters={},
        config_hash="",
    )
    return write_artifact(folder, content, metadata)


def _faulty(names: list[str]) -> list[TensorProto]:
    return [
        helper.make_tensor("worth", TensorProto.FLOAT, [len(names), 1], [float(n == "payment_amount") for n in names]),
        helper.make_tensor("limit", TensorProto.FLOAT, [1], [NAN_FROM]),
        helper.make_tensor("nan", TensorProto.FLOAT, [1], [float("nan")]),
        helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
    ]


def _large() -> list[TensorProto]:
    shapes = {"wide": [1, 1200], "square": [1200, 1200], "narrow": [1200, 1]}
    return [
        helper.make_tensor(name, TensorProto.FLOAT, shape, np.full(shape, 1e-6, np.float32).tobytes(), raw=True)
        for name, shape in shapes.items()
    ]


def _heavy(megabytes: int) -> list[TensorProto]:
    numbers = megabytes * 2**20 // 8
    shapes = {"spread": [1, numbers], "gathered": [numbers, 1]}
    return [
        helper.make_tensor(name, TensorProto.FLOAT, shape, np.full(numbers, 1e-9, np.float32).tobytes(), raw=True)
        for name, shape in shapes.items()
    ]


def _nodes(
    nan: bool = False, worse: bool = False, slow: int = 0, raises: bool = False, megabytes: int = 0
) -> list[onnx.NodeProto]:
    """`nan`: no number for amounts from NAN_FROM on. `raises`: ONNX Runtime raises for them. `worse`: risky is safe and
    safe is risky. `slow`: so many products of large matrices for every row. `megabytes`: of weights."""
    nodes = [
        helper.make_node("MatMul", [ONNX_INPUT, "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
    ]
    logits = "sum"
    if worse:
        nodes.append(helper.make_node("Neg", ["sum"], ["turned"]))
        logits = "turned"
    if slow:
        nodes.append(helper.make_node("MatMul", ["sum", "wide"], ["wide0"]))
        nodes += [helper.make_node("MatMul", [f"wide{i}", "square"], [f"wide{i + 1}"]) for i in range(slow)]
        nodes += [helper.make_node("MatMul", [f"wide{slow}", "narrow"], ["nothing"])]
        nodes += [helper.make_node("Add", [logits, "nothing"], ["late"])]
        logits = "late"
    if megabytes:
        nodes += [helper.make_node("MatMul", ["sum", "spread"], ["many"])]
        nodes += [helper.make_node("MatMul", ["many", "gathered"], ["few"])]
        nodes += [helper.make_node("Add", [logits, "few"], ["heavy"])]
        logits = "heavy"
    nodes.append(helper.make_node("Sigmoid", [logits], ["probability"]))
    column = "probability"
    if nan or raises:
        nodes += [
            helper.make_node("MatMul", [ONNX_INPUT, "worth"], ["amount"]),
            helper.make_node("GreaterOrEqual", ["amount", "limit"], ["large"]),
        ]
    if nan:  # after the sigmoid, whose kernel makes a number of it
        nodes += [helper.make_node("Where", ["large", "nan", column], ["faulty"])]
        column = "faulty"
    if raises:  # `zero` has no second element
        nodes += [
            helper.make_node("Cast", ["large"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["zero", "index"], ["gathered"]),
            helper.make_node("Add", [column, "gathered"], ["checked"]),
        ]
        column = "checked"
    return [*nodes, helper.make_node("Reshape", [column, "flat"], [ONNX_OUTPUT])]
