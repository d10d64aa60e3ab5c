"""Requests of the Open Inference Protocol become the rows that the same events in JSON give."""

import json
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from serving.inference_protocol.infer_request import InferRequest, InferRequestParser, datatype_of, shape_of
from serving.schema import MAXIMUM_BATCH, BadRequest, RequestSchema
from training.contract.model_spec import Column, ModelSpec

COLUMNS = {
    "transaction_id": Column(type="int64", minimum=1),
    "event_time": Column(type="timestamp"),
    "customer_id": Column(type="uint8"),
    "amount": Column(type="float64"),
    "discount": Column(type="float32", nullable=True),
    "fee": Column(type="decimal(20, 2)", nullable=True),
    "channel": Column(type="string", values=("web", "shop"), nullable=True),
    "online": Column(type="bool", nullable=True),
    "opened": Column(type="date", nullable=True),
    "embedding": Column(type="list(float32, 3)", nullable=True),
}
TIME = "2026-01-05T12:30:00Z"
NEEDED: dict[str, tuple[str, list[Any]]] = {
    "transaction_id": ("INT64", [1, 2]),
    "event_time": ("BYTES", [TIME, "2026-01-05T12:30:00+02:00"]),
    "customer_id": ("UINT8", [7, 255]),
    "amount": ("FP64", [25.1, 3.0]),
}
OTHERS: dict[str, tuple[str, list[Any]]] = {
    "discount": ("FP32", [0.5, 0.25]),
    "fee": ("BYTES", ["123456789012345678.25", "1.00"]),
    "channel": ("BYTES", ["web", "shop"]),
    "online": ("BOOL", [True, False]),
    "opened": ("BYTES", ["2026-01-05", "2025-12-31"]),
    "embedding": ("FP32", [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
}
NUMPY: dict[str, Any] = {"BYTES": object, "BOOL": bool, "FP64": np.float64, "FP32": np.float32, "INT64": np.int64}


@pytest.fixture
def typed(spec: ModelSpec) -> ModelSpec:
    """A spec whose events have COLUMNS."""
    events = spec.source.events.model_copy(update={"columns": COLUMNS})
    source = spec.source.model_copy(update={"feeds": {**spec.source.feeds, "events": events}})
    return spec.model_copy(update={"source": source})


@pytest.fixture
def parser(typed: ModelSpec) -> InferRequestParser:
    return InferRequestParser(typed, RequestSchema(typed))


def tensor(name: str, datatype: str, data: Any, shape: list[int] | None = None, **parameters: Any) -> dict[str, Any]:
    shape = list(np.shape(data)) if shape is None else shape
    return {"name": name, "datatype": datatype, "shape": shape, "data": data, "parameters": parameters}


def tensors(fields: dict[str, tuple[str, list[Any]]], **changes: tuple[str, Any]) -> list[dict[str, Any]]:
    return [tensor(name, datatype, data) for name, (datatype, data) in {**fields, **changes}.items()]


def parsed(parser: InferRequestParser, inputs: list[dict[str, Any]], **more: Any) -> InferRequest:
    return parser.parse(json.dumps({"inputs": inputs, **more}).encode(), None)


def by_triton(inputs: list[InferInput], **more: Any) -> tuple[bytes, bytes | None]:
    """The body that NVIDIA's client makes, and the header's value."""
    body, length = InferenceServerClient.generate_request_body(inputs, **more)
    return body, None if length is None else str(length).encode()


def triton_input(name: str, datatype: str, data: list[Any], binary: bool, column: bool = False) -> InferInput:
    values = np.array(data, NUMPY.get(datatype, np.uint8))
    if column and values.ndim == 1:
        values = values.reshape(-1, 1)
    made = InferInput(name, list(values.shape), datatype)
    return made.set_data_from_numpy(values, binary_data=binary)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("column", [True, False])
def test_tensors_of_tritons_client_are_events(parser: InferRequestParser, binary: bool, column: bool) -> None:
    fields = {**NEEDED, **OTHERS}
    inputs = [triton_input(name, *found, binary, column) for name, found in fields.items()]
    rows = parser.parse(*by_triton(inputs)).rows
    assert rows[0] == {
        "transaction_id": 1,
        "event_time": datetime(2026, 1, 5, 12, 30, tzinfo=UTC),
        "customer_id": 7,
        "amount": 25.1,
        "discount": 0.5,
        "fee": Decimal("123456789012345678.25"),
        "channel": "web",
        "online": True,
        "opened": date(2026, 1, 5),
        "embedding": [1.0, 2.0, 3.0],
    }
    assert rows[1]["event_time"].hour == 10
    assert [rows[1][name] for name in ("customer_id", "online", "embedding")] == [255, False, [4.0, 5.0, 6.0]]


def test_rows_are_those_of_the_same_events_in_json(parser: InferRequestParser, typed: ModelSpec) -> None:
    fields = {name: data for name, (_, data) in {**NEEDED, **OTHERS}.items()}
    events = [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]
    assert parsed(parser, tensors({**NEEDED, **OTHERS})).rows == RequestSchema(typed).many(json.dumps(events).encode())


def test_data_may_be_flat_or_nested(parser: InferRequestParser) -> None:
    flat = tensor("embedding", "FP64", [1, 2, 3, 4, 5, 6.0], [2, 3])
    assert parsed(parser, [*tensors(NEEDED), flat]).rows[1]["embedding"] == [4.0, 5.0, 6.0]
    nested = tensor("amount", "INT32", [[1], [2]])
    others = [each for each in tensors(NEEDED) if each["name"] != "amount"]
    assert [row["amount"] for row in parsed(parser, [*others, nested]).rows] == [1.0, 2.0]


def test_a_nullable_field_can_be_null_in_four_ways(parser: InferRequestParser) -> None:
    left_out = parsed(parser, tensors(NEEDED)).rows
    assert all(row[name] is None for row in left_out for name in OTHERS)
    nulls = {name: (datatype, [data[0], None]) for name, (datatype, data) in OTHERS.items() if name != "embedding"}
    rows = parsed(parser, tensors({**NEEDED, **nulls})).rows
    assert all((rows[0][name] is None, rows[1][name] is None) == (False, True) for name in nulls)
    for binary in (True, False):
        inputs = [triton_input(name, *found, binary) for name, found in {**NEEDED, **OTHERS}.items()]
        inputs += [triton_input(f"{name}.null", "BOOL", [True, False], binary) for name in OTHERS]
        rows = parser.parse(*by_triton(inputs)).rows
        assert all((rows[0][name] is None, rows[1][name] is None) == (True, False) for name in OTHERS)
    inputs = [triton_input(name, *found, True) for name, found in NEEDED.items()]
    inputs.append(triton_input("discount", "FP32", [float("nan"), 0.5], True))
    assert [row["discount"] for row in parser.parse(*by_triton(inputs)).rows] == [None, 0.5]


def test_id_and_requested_outputs_are_read(parser: InferRequestParser) -> None:
    inputs = [triton_input(name, *found, True) for name, found in NEEDED.items()]
    outputs = [InferRequestedOutput("score"), InferRequestedOutput("decision", binary_data=False)]
    found = parser.parse(*by_triton(inputs, outputs=outputs, request_id="mine"))
    assert (found.id, found.outputs) == ("mine", {"score": True, "decision": False})
    assert parser.parse(*by_triton(inputs)).binary
    plain = parsed(parser, tensors(NEEDED), outputs=[{"name": "score"}], parameters={"priority": 3})
    assert (plain.id, plain.outputs, plain.binary) == (None, {"score": False}, False)


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("amount", tensor("amount", "FP64", [1.0], [2])),
        ("amount", tensor("amount", "FP64", [1.0])),
        ("amount", tensor("amount", "FP64", [[1.0, 2.0], [3.0, 4.0]])),
        ("amount", tensor("amount", "FP64", [[1.0, 2.0], []], [2, 1])),
        ("embedding", tensor("embedding", "FP32", [[1.0], [2.0, 3.0, 4.0, 5.0, 6.0]], [2, 3])),
        ("amount", tensor("amount", "FP64", [[[1.0]], {"a": [1.0]}], [2])),
        ("amount", tensor("amount", "FP64", None, [2], binary_data_size=[[16]])),
        ("amount", tensor("amount", "FP64", [1.0, "2"])),
        ("amount", tensor("amount", "FP64", [1.0, True])),
        ("amount", tensor("amount", "FP64", 7, [2])),
        ("amount", tensor("amount", "FP64", None, [2])),
        ("amount", tensor("amount", "BYTES", ["1", "2"])),
        ("amount", tensor("amount", "BF16", [1.0, 2.0])),
        ("amount", tensor("amount", "FP64", [1.0, 2.0], binary_data_size=16)),
        ("amount", tensor("amount", "FP64", None, [2], binary_data_size=16)),
        ("amount", tensor("amount", "FP64", None, [2], binary_data_size="16")),
        ("[1].amount", tensor("amount", "FP64", [1.0, None])),
        ("[1].customer_id", tensor("customer_id", "INT64", [1, 256])),
        ("[0].channel", tensor("channel", "BYTES", ["phone", "web"])),
        ("colour", tensor("colour", "BYTES", ["red", "blue"])),
        ("amount.null", tensor("amount.null", "BOOL", [True, False])),
        ("channel.null", tensor("channel.null", "BOOL", [True, False])),
        ("inputs[4].shape[0]", tensor("channel", "BYTES", ["web"], [-1])),
        ("parameters.shared_memory_region", tensor("channel", "BYTES", None, [2], shared_memory_region="r")),
    ],
)
def test_a_bad_tensor_is_named(parser: InferRequestParser, field: str, changed: dict[str, Any]) -> None:
    inputs = [each for each in tensors(NEEDED) if each["name"] != changed["name"]]
    with pytest.raises(BadRequest) as refused:
        parsed(parser, [*inputs, changed])
    assert refused.value.status == 422
    assert list(refused.value.problem.fields) == [field]


def test_missing_and_repeated_tensors_are_named(parser: InferRequestParser) -> None:
    for inputs, named in (
        ([each for each in tensors(NEEDED) if each["name"] not in ("amount", "event_time")], ["event_time", "amount"]),
        ([*tensors(NEEDED), tensor("amount", "FP64", [1.0, 2.0])], ["amount"]),
    ):
        with pytest.raises(BadRequest) as refused:
            parsed(parser, inputs)
        assert (refused.value.status, list(refused.value.problem.fields)) == (422, named)


@pytest.mark.parametrize("count", [0, MAXIMUM_BATCH, MAXIMUM_BATCH + 1])
def test_the_number_of_events_has_limits(parser: InferRequestParser, count: int) -> None:
    inputs = [tensor(name, datatype, data[:1] * count, [count]) for name, (datatype, data) in NEEDED.items()]
    if count == MAXIMUM_BATCH:
        assert len(parsed(parser, inputs).rows) == count
        return
    with pytest.raises(BadRequest) as refused:
        parsed(parser, inputs)
    assert refused.value.status == (413 if count else 422)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"inputs": NaN}',
        b'{"id": ' + b"1" * 5000 + b"}",
        b'"\\ud800"',
        b'{"id": "\\ud800"}',
        b'{"\\udc00": 1, "\\udc00": 2}',
        b'{"id": "\xed\xa0\x80"}',
    ],
)
def test_what_is_not_json_is_a_bad_request(parser: InferRequestParser, body: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        parser.parse(body, None)
    assert refused.value.status == 400


@pytest.mark.parametrize("body", [b"null", b"[]", b"{}", b'{"inputs": []}', b'{"inputs": [{"name": "a"}]}'])
def test_what_is_no_request_is_refused(parser: InferRequestParser, body: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        parser.parse(body, None)
    assert refused.value.status == 422
    assert refused.value.problem.model_dump_json()


def test_a_key_given_twice_is_refused(parser: InferRequestParser) -> None:
    body = json.dumps({"inputs": tensors(NEEDED)}).encode()[:-1]
    with pytest.raises(BadRequest, match="given twice"):
        parser.parse(body + b', "inputs": []}', None)


def test_binary_data_must_have_the_declared_sizes(parser: InferRequestParser) -> None:
    inputs = [triton_input(name, *found, True) for name, found in NEEDED.items()]
    body, length = by_triton(inputs)
    assert length is not None
    for changed, header, status in (
        (body[:-1], length, 422),
        (body + b"x", length, 400),
        (body, b"99999", 400),
        (body, b"-1", 400),
        (body, b"12a", 400),
        (body, None, 400),
    ):
        with pytest.raises(BadRequest) as refused:
            parser.parse(changed, header)
        assert refused.value.status == status
    [of_time] = [each for each in inputs if each.name() == "event_time"]
    for content in (b"\xff" * 24, b"\x01\0\0\0\xff" + b"\x01\0\0\0a", b"\x02\0\0\0a", b""):
        of_time._raw_data, of_time._parameters["binary_data_size"] = content, len(content)
        with pytest.raises(BadRequest) as refused:
            parser.parse(*by_triton(inputs))
        assert list(refused.value.problem.fields) == ["event_time"]


def test_metadata_have_the_types_of_the_columns() -> None:
    assert {name: (datatype_of(column), shape_of(column)) for name, column in COLUMNS.items()} == {
        "transaction_id": ("INT64", [-1]),
        "event_time": ("BYTES", [-1]),
        "customer_id": ("UINT8", [-1]),
        "amount": ("FP64", [-1]),
        "discount": ("FP32", [-1]),
        "fee": ("BYTES", [-1]),
        "channel": ("BYTES", [-1]),
        "online": ("BOOL", [-1]),
        "opened": ("BYTES", [-1]),
        "embedding": ("FP32", [-1, 3]),
    }


@pytest.mark.parametrize("length", [b"-1", b"", b"x", b"1000000", b"9" * 5000, "²".encode()])
def test_a_wrong_length_of_the_json_part_is_a_bad_request(parser: InferRequestParser, length: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        parser.parse(json.dumps({"inputs": tensors(NEEDED)}).encode(), length)
    assert (refused.value.status, "Inference-Header-Content-Length" in refused.value.problem.error) == (400, True)


@pytest.mark.parametrize("part", ["inputs", "outputs"])
@pytest.mark.parametrize("name", ["amount", "n{}"])
def test_too_many_tensors_are_refused_at_once(parser: InferRequestParser, part: str, name: str) -> None:
    many = [{"name": name.format(i), "datatype": "FP64", "shape": [1]} for i in range(30_000)]
    body = json.dumps({"inputs": tensors(NEEDED), part: many}).encode()
    began = time.process_time()
    with pytest.raises(BadRequest) as refused:
        parser.parse(body, None)
    assert refused.value.status == 413
    assert time.process_time() - began < 5, "to compare each name with all others takes minutes"


def test_a_long_shape_gives_a_short_message(parser: InferRequestParser) -> None:
    inputs = [each for each in tensors(NEEDED) if each["name"] != "amount"]
    with pytest.raises(BadRequest) as refused:
        parsed(parser, [*inputs, tensor("amount", "FP64", [1.0, 2.0], [2] + [1] * 100_000)])
    assert len(refused.value.problem.error) < 300
