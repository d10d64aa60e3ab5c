"""The body of `POST /v2/models/{model}/infer`: a tensor for each field of an event, with a value for each event.

A field that may be null has three ways to be so: leave its tensor out (null in all events); null in JSON data; or a
BOOL tensor `<field>.null`, true where the value is to be ignored, which works with binary data too. In a tensor of
floats NaN is null as well, where the field may be null.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from math import isnan
from typing import Annotated, Any, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from serving.inference_protocol.tensors import BOOL, BYTES, FLOATS, INTEGERS, from_binary, from_json, shown
from serving.schema import MAXIMUM_BATCH, BadRequest, Problem, RequestSchema, Row, checked, unique_keys
from training.contract.model_spec import Column, ModelSpec

#: Kind of column → the datatypes that its tensor may have, besides that of the metadata.
ACCEPTED: Mapping[str, tuple[str, ...]] = {
    "int": INTEGERS,
    "float": (*FLOATS, *INTEGERS),
    "decimal": (BYTES, *FLOATS, *INTEGERS),
    "bool": (BOOL,),
    "string": (BYTES,),
    "date": (BYTES,),
    "timestamp": (BYTES,),
    "list": (*FLOATS, *INTEGERS),
}
#: Follows the name of a field in the name of the tensor that says where it is null.
NULL = ".null"
#: Parameters that would change the answer, and that this service does not know.
REFUSED_PARAMETERS = ("sequence_id", "shared_memory_region", "classification")
#: The most tensors and outputs of a request. Far more columns than that make no event.
MAXIMUM_TENSORS = 2000

_CONFIG = ConfigDict(strict=True, frozen=True)
Parameters = Annotated[dict[str, Any], Field(default_factory=dict)]


class InputTensor(BaseModel):
    model_config = _CONFIG

    name: str
    shape: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    datatype: str
    parameters: Parameters
    data: Any = None


class RequestedOutput(BaseModel):
    model_config = _CONFIG

    name: str
    parameters: Parameters


class InferBody(BaseModel):
    """The JSON part. The protocol leaves room for extensions, so unknown fields and parameters are ignored."""

    model_config = _CONFIG

    id: str | None = None
    parameters: Parameters
    inputs: list[InputTensor] = Field(min_length=1, max_length=MAXIMUM_TENSORS)
    outputs: list[RequestedOutput] | None = Field(None, max_length=MAXIMUM_TENSORS)


class InferRequest(NamedTuple):
    rows: list[Row]
    id: str | None
    #: Name of each requested output → whether its values are wanted as binary data. None: all outputs.
    outputs: dict[str, bool] | None
    #: Whether all outputs are wanted as binary data, where `outputs` names none.
    binary: bool


_BODY = TypeAdapter(InferBody)


class InferRequestParser:
    """Of one model: `schema` checks the events as it does those of `/predict_batch`."""

    def __init__(self, spec: ModelSpec, schema: RequestSchema) -> None:
        self._columns, self._schema = spec.request_columns, schema

    def parse(self, body: bytes, header_length: bytes | None) -> InferRequest:
        """The request of `body`. `header_length`: of the header Inference-Header-Content-Length, where it has one.

        Raises BadRequest.
        """
        length = _header_length(header_length, body)
        found = _parsed(body[:length])
        for parameters in (found.parameters, *(each.parameters for each in (*found.inputs, *(found.outputs or ())))):
            for name in REFUSED_PARAMETERS:
                if parameters.get(name):
                    raise _refused(f"parameters.{name}", "is not supported")
        binary = _boolean(found.parameters, "binary_data_output", False)
        outputs = None
        if found.outputs:
            outputs = {each.name: _boolean(each.parameters, "binary_data", binary) for each in found.outputs}
        return InferRequest(self._rows(found.inputs, body[length:]), found.id, outputs, binary)

    def _rows(self, inputs: list[InputTensor], content: bytes) -> list[Row]:
        count = inputs[0].shape[0]
        if count > MAXIMUM_BATCH:
            raise BadRequest(413, Problem(error=f"inputs: {count} events, but at most {MAXIMUM_BATCH} are allowed"))
        values = _values(self._checked(inputs, count), content)
        fields = {name: found for name, found in values.items() if not name.endswith(NULL)}
        for name, found in fields.items():
            column = self._columns[name]
            if column.nullable and column.kind == "float":
                fields[name] = found = [None if isinstance(value, float) and isnan(value) else value for value in found]
            if column.kind == "list":
                fields[name] = found = _lists(found, count)
            if name + NULL in values:
                fields[name] = [None if null else v for null, v in zip(values[name + NULL], found, strict=True)]
        return self._schema.rows([dict(zip(fields, row, strict=True)) for row in zip(*fields.values(), strict=True)])

    def _checked(self, inputs: list[InputTensor], count: int) -> list[InputTensor]:
        """Raises BadRequest when a tensor is missing, unknown or given twice, or has a wrong datatype or shape."""
        names = Counter(tensor.name for tensor in inputs)
        problems = {name: "given twice" for name, number in names.items() if number > 1}
        for tensor in inputs:
            if problem := self._problem(tensor, names, count):
                problems[tensor.name] = problem
        for name, column in self._columns.items():
            if name not in names and not column.nullable:
                problems[name] = "a tensor of this name is needed"
        if problems:
            raise _refused_fields(problems)
        return inputs

    def _problem(self, tensor: InputTensor, names: Collection[str], count: int) -> str | None:
        field = tensor.name.removesuffix(NULL)
        column = self._columns.get(field)
        if column is None:
            return f"unknown tensor; the fields are {', '.join(self._columns)}"
        is_null = field != tensor.name
        if is_null and (not column.nullable or field not in names):
            return f"{field} may not be null" if field in names else f"needs the tensor {field} beside it"
        accepted = (BOOL,) if is_null else ACCEPTED[column.kind]
        if tensor.datatype not in accepted:
            return f"the datatype is {tensor.datatype[:20]}, but must be one of {', '.join(accepted)}"
        if column.kind == "list" and not is_null:
            fits, wanted = len(tensor.shape) == 2, "[events, elements]"
        else:
            fits, wanted = tensor.shape[1:] in ([], [1]), "[events] or [events, 1]"
        if not fits or tensor.shape[0] != count:
            shape = str(tensor.shape)[:50]
            return f"the shape is {shape}, but must be {wanted}, with {count} events as in the first tensor"
        return None


def datatype_of(column: Column) -> str:
    """The datatype that the metadata of a model says for `column`."""
    of = column.parsed
    match column.kind:
        case "int":
            return f"{'' if of.signed else 'U'}INT{of.bits}"
        case "float" | "list":
            return f"FP{of.bits}"
        case "bool":
            return BOOL
    return BYTES


def shape_of(column: Column) -> list[int]:
    """The shape that the metadata of a model says for `column`; -1: any number."""
    return [-1, column.parsed.length or -1] if column.kind == "list" else [-1]


def _header_length(given: bytes | None, body: bytes) -> int:
    """The length of the JSON part of `body`."""
    if given is None:
        return len(body)
    # More digits than a body can have bytes are not read: Python refuses a number of thousands of digits.
    if not given.isdigit() or len(given) > 20 or int(given) > len(body):
        error = f"Inference-Header-Content-Length: must be a number up to {len(body)}, the length of the body"
        raise BadRequest(400, Problem(error=error))
    return int(given)


def _parsed(text: bytes) -> InferBody:
    try:
        if b"\\u" in text:
            orjson.loads(text)  # Refuses half a surrogate pair, which no answer and no log could repeat.
        found = json.loads(text.decode(), object_pairs_hook=unique_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(400, Problem(error=f"The body is not JSON: {error}")) from None
    body: InferBody = checked(_BODY.validate_python, found)
    return body


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON; null is a missing value")


def _boolean(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise _refused(f"parameters.{name}", "must be true or false")
    return value


def _values(inputs: list[InputTensor], content: bytes) -> dict[str, list[Any]]:
    """Tensor → its values. `content`: the binary data of those that have a `binary_data_size`, in their order."""
    values, at, problems = dict[str, list[Any]](), 0, dict[str, str]()
    for tensor in inputs:
        size = tensor.parameters.get("binary_data_size")
        try:
            if size is None:
                values[tensor.name] = from_json(tensor.datatype, tensor.shape, tensor.data)
                continue
            if type(size) is not int or not 0 <= size <= len(content) - at:
                raise ValueError(f"binary_data_size is {shown(size)}, but {len(content) - at} bytes are left")
            if tensor.data is not None:
                raise ValueError("has data and a binary_data_size")
            values[tensor.name] = from_binary(tensor.datatype, tensor.shape, content[at : at + size])
            at += size
        except ValueError as error:
            problems[tensor.name] = str(error)
    if problems:
        raise _refused_fields(problems)
    if at != len(content):
        raise BadRequest(400, Problem(error=f"{len(content) - at} bytes of the body belong to no tensor"))
    return values


def _lists(values: list[Any], count: int) -> list[Any]:
    length = len(values) // count if count else 0
    return [values[i * length : (i + 1) * length] for i in range(count)]


def _refused(field: str, message: str) -> BadRequest:
    return BadRequest(422, Problem(error=f"{field}: {message}", fields={field: message}))


def _refused_fields(problems: dict[str, str]) -> BadRequest:
    text = "; ".join(f"{name[:100]}: {problem}" for name, problem in list(problems.items())[:20])
    return BadRequest(422, Problem(error=text, fields=problems))
