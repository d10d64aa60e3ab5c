"""Predictions as the output tensors of the Open Inference Protocol.

The outputs are the fields of a prediction: a number or a text for each event, [events]. A field that is an object with
known keys is a tensor for each of them, `interval.lower`. One with open keys, as the probabilities of classes, is a
matrix [events, keys], and `<field>.names` [keys] has its keys.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from serving.inference_protocol.infer_request import InferRequest
from serving.inference_protocol.tensors import BOOL, BYTES, FP64, INT64, to_binary
from serving.schema import BadRequest, Problem, prediction_schema
from training.contract.model_spec import ModelSpec
from training.contract.predictions import Prediction
from training.contract.registries import TASKS

#: Follows the name of a matrix in the name of the tensor of its keys.
NAMES = ".names"
#: The fields of every prediction that are outputs. `model` is the response's own `model_name`.
COMMON = ("prediction_id", "model_version", "role", "feature_timestamp", "features_defaulted")
_DATATYPES = {"number": FP64, "integer": INT64, "boolean": BOOL, "string": BYTES}
#: What a row has that lacks the field.
_MISSING: dict[str, Any] = {FP64: float("nan"), BYTES: ""}


class OutputTensor(NamedTuple):
    """One output of a model. `path`: of its values in a prediction."""

    name: str
    datatype: str
    shape: list[int]
    path: tuple[str, ...]
    #: Whether a prediction may lack it.
    optional: bool = False


class InferResponse(NamedTuple):
    content: bytes
    #: The length of the JSON part, when binary data follow it.
    header_length: int | None


class InferResponseWriter:
    """Of one model."""

    def __init__(self, spec: ModelSpec) -> None:
        self._model = spec.name
        self.outputs = {output.name: output for output in output_tensors(spec)}

    def check(self, request: InferRequest) -> None:
        """Raises BadRequest (422) when `request` wants an output that the model does not have."""
        for name in request.outputs or ():
            if name not in self.outputs:
                message = f"unknown output; the outputs are {', '.join(self.outputs)}"
                raise BadRequest(422, Problem(error=f"{name[:100]}: {message}", fields={name: message}))

    def write(self, request: InferRequest, predictions: Sequence[Prediction]) -> InferResponse:
        """The body of the response. An optional output that no prediction has is left out, unless it was requested."""
        wanted = request.outputs
        if wanted is None:
            wanted = {
                name: request.binary
                for name, output in self.outputs.items()
                if not output.optional or any(output.path[0] in each for each in predictions)
            }
        tensors, parts = list[dict[str, Any]](), list[bytes]()
        for name, binary in wanted.items():
            tensor, values = _tensor(self.outputs[name], predictions)
            if binary:
                parts.append(to_binary(tensor["datatype"], values))
                tensor["parameters"] = {"binary_data_size": len(parts[-1])}
            else:
                tensor["data"] = values
            tensors.append(tensor)
        body: dict[str, Any] = {"model_name": self._model}
        versions = {prediction["model_version"] for prediction in predictions}
        if len(versions) == 1:  # In a rollout two versions may answer one request; the output model_version tells.
            body["model_version"] = str(versions.pop())
        if request.id is not None:
            body["id"] = request.id
        header = orjson.dumps(body | {"outputs": tensors})
        return InferResponse(b"".join([header, *parts]), len(header) if parts else None)


def output_tensors(spec: ModelSpec) -> list[OutputTensor]:
    """The outputs of the model of `spec`: the fields of its kind of task, then those of every prediction.

    Raises ConfigError for an unknown kind of task.
    """
    kind, common = TASKS.find(spec.task.kind), prediction_schema()["properties"]
    found = list[OutputTensor]()
    for name, schema in kind.answer_schema.items():
        optional = name in kind.optional
        if schema["type"] != "object":
            found.append(OutputTensor(name, _DATATYPES[schema["type"]], [-1], (name,), optional))
        elif "properties" in schema:
            for key, part in schema["properties"].items():
                found.append(OutputTensor(f"{name}.{key}", _DATATYPES[part["type"]], [-1], (name, key), optional))
        else:
            of = _DATATYPES[schema["additionalProperties"]["type"]]
            found.append(OutputTensor(name, of, [-1, -1], (name,), optional))
            found.append(OutputTensor(name + NAMES, BYTES, [-1], (name,), optional))
    # A field that may be null has several types. The only such field is a time, which is written as text.
    return found + [
        OutputTensor(name, _DATATYPES[common[name].get("type", "string")], [-1], (name,)) for name in COMMON
    ]


def _tensor(output: OutputTensor, predictions: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[Any]]:
    """The head of the tensor `output`, and its values row by row."""
    field, *key = output.path
    missing = _MISSING.get(output.datatype)
    found = [prediction.get(field) for prediction in predictions]
    shape = [len(found)]
    if len(output.shape) == 2 or output.name.endswith(NAMES):
        # Two versions of a model may know different classes.
        names = list(dict.fromkeys(name for row in found for name in row or ()))
        if output.name.endswith(NAMES):
            found, shape = names, [len(names)]
        else:
            found, shape = [(row or {}).get(name, missing) for row in found for name in names], [len(found), len(names)]
    elif key:
        found = [(row or {}).get(key[0], missing) for row in found]
    values = [missing if value is None else _written(value) for value in found]
    return {"name": output.name, "datatype": output.datatype, "shape": shape}, values


def _written(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
