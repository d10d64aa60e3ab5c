"""Predictions become output tensors, which NVIDIA's client reads."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferResult

from serving.inference_protocol.infer_request import InferRequest
from serving.inference_protocol.infer_response import InferResponse, InferResponseWriter
from serving.schema import BadRequest
from testing.task_kinds import MODEL, models_of
from training.contract.model_spec import ModelSpec, load_model_spec

COMMON = ["prediction_id", "model_version", "role", "feature_timestamp", "features_defaulted"]
KINDS: dict[str, list[dict[str, Any]]] = {
    "binary": [{"score": 0.75, "decision": "alert", "threshold": 0.5}, {"score": 0.25, "decision": "pass"}],
    "multiclass": [
        {"class": "low", "probabilities": {"low": 0.9, "high": 0.1}, "decision": "low"},
        {"class": "new", "probabilities": {"low": 0.2, "new": 0.8}, "decision": "new"},
    ],
    "regression": [
        {"value": 90.0, "interval": {"lower": 60.0, "upper": 120.0, "coverage": 0.9}},
        {"value": 10.0},
    ],
}


def spec_of(kind: str, folder: Path) -> ModelSpec:
    return load_model_spec("card_fraud") if kind == "binary" else load_model_spec(MODEL, models_of(folder / kind, kind))


def predictions(kind: str) -> list[Any]:
    times = [datetime(2026, 1, 5, tzinfo=UTC), None]
    return [
        {
            "prediction_id": f"id{i}",
            **fields,
            "model": MODEL,
            "model_version": 3 + i,
            "role": "champion",
            "feature_timestamp": time,
            "features_defaulted": time is None,
        }
        for i, (fields, time) in enumerate(zip(KINDS[kind], times, strict=True))
    ]


def read(response: InferResponse) -> InferResult:
    return InferResult.from_response_body(response.content, header_length=response.header_length)


def asked(outputs: dict[str, bool] | None = None, binary: bool = True, id: str | None = None) -> InferRequest:
    return InferRequest([], id, outputs, binary)


@pytest.mark.parametrize("binary", [True, False])
def test_all_outputs_of_each_kind_are_tensors(tmp_path: Path, binary: bool) -> None:
    expected: dict[str, dict[str, list[Any]]] = {
        "binary": {"score": [0.75, 0.25], "decision": ["alert", "pass"], "threshold": [0.5, np.nan]},
        "multiclass": {
            "class": ["low", "new"],
            "probabilities": [[0.9, 0.1, np.nan], [0.2, np.nan, 0.8]],
            "probabilities.names": ["low", "high", "new"],
            "decision": ["low", "new"],
        },
        "regression": {
            "value": [90.0, 10.0],
            "interval.lower": [60.0, np.nan],
            "interval.upper": [120.0, np.nan],
            "interval.coverage": [0.9, np.nan],
        },
    }
    for kind, fields in expected.items():
        writer = InferResponseWriter(spec_of(kind, tmp_path))
        assert list(writer.outputs) == [*fields, *COMMON]
        result = read(writer.write(asked(binary=binary), predictions(kind)))
        assert [each["name"] for each in result.get_response()["outputs"]] == [*fields, *COMMON]
        fields |= {
            "prediction_id": ["id0", "id1"],
            "model_version": [3, 4],
            "role": ["champion", "champion"],
            "feature_timestamp": ["2026-01-05T00:00:00+00:00", ""],
            "features_defaulted": [False, True],
        }
        for name, values in fields.items():
            found = result.as_numpy(name)
            if found.dtype == object:
                found = np.array([value.decode() if isinstance(value, bytes) else value for value in found])
            np.testing.assert_array_equal(found, values)
        for output in result.get_response()["outputs"]:
            assert ("data" in output) is not binary


def test_an_optional_output_that_no_prediction_has_is_left_out(tmp_path: Path) -> None:
    writer = InferResponseWriter(spec_of("regression", tmp_path))
    bare = predictions("regression")[1:]
    assert read(writer.write(asked(), bare)).as_numpy("interval.lower") is None
    wanted = read(writer.write(asked({"interval.lower": False, "value": True}), bare))
    assert [each["name"] for each in wanted.get_response()["outputs"]] == ["interval.lower", "value"]
    assert (np.isnan(wanted.as_numpy("interval.lower")).tolist(), wanted.as_numpy("value").tolist()) == ([True], [10.0])


def test_the_response_names_model_version_and_id(tmp_path: Path) -> None:
    writer = InferResponseWriter(spec_of("binary", tmp_path))
    both = predictions("binary")
    one = json.loads(writer.write(asked({"score": False}, id="mine"), both[:1]).content)
    assert (one["model_name"], one["model_version"], one["id"]) == (MODEL, "3", "mine")
    assert one["outputs"] == [{"name": "score", "datatype": "FP64", "shape": [1], "data": [0.75]}]
    two = json.loads(writer.write(asked({"score": False}), both).content)
    assert "model_version" not in two
    assert "id" not in two


def test_an_unknown_output_is_refused(tmp_path: Path) -> None:
    writer = InferResponseWriter(spec_of("binary", tmp_path))
    writer.check(asked({"score": True}))
    with pytest.raises(BadRequest, match="colour: unknown output"):
        writer.check(asked({"score": True, "colour": True}))
