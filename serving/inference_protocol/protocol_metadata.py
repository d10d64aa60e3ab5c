"""What the Open Inference Protocol says about the server and its models."""

from collections.abc import Sequence
from typing import Any

from serving.inference_protocol.infer_request import datatype_of, shape_of
from serving.inference_protocol.infer_response import output_tensors
from training.contract.model_spec import ModelSpec

NAME = "perennial"
#: `model_repository`: only its index. Versions are loaded and unloaded by the registry's aliases.
EXTENSIONS = ("binary_tensor_data", "model_repository")
PLATFORM = "onnxruntime_onnx"


def server_metadata(version: str) -> dict[str, Any]:
    """`GET /v2`."""
    return {"name": NAME, "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(spec: ModelSpec, versions: Sequence[int]) -> dict[str, Any]:
    """`GET /v2/models/{model}`: its inputs are the fields of an event. `versions`: those that are loaded."""
    inputs: list[dict[str, Any]] = []
    for name, column in spec.request_columns.items():
        tensor = {"name": name, "datatype": datatype_of(column), "shape": shape_of(column)}
        # The protocol has no word for an input that may be left out. Clients ignore parameters that they do not know.
        inputs.append(tensor | ({"parameters": {"optional": True}} if column.nullable else {}))
    return {
        "name": spec.name,
        "versions": [str(number) for number in versions],
        "platform": PLATFORM,
        "inputs": inputs,
        "outputs": [{"name": out.name, "datatype": out.datatype, "shape": out.shape} for out in output_tensors(spec)],
    }
