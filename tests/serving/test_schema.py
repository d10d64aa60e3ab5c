"""Bad requests are refused with a message that names the field."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from serving.schema import MAXIMUM_BATCH, BadRequest, RequestSchema
from training.contract.model_spec import Column, ModelSpec

EVENT: dict[str, Any] = {
    "transaction_id": 1,
    "event_time": "2026-01-05T12:30:00Z",
    "customer_id": 7,
    "terminal_id": 11,
    "amount": 25.0,
}


@pytest.fixture
def schema(spec: ModelSpec) -> RequestSchema:
    return RequestSchema(spec)


def body(**changes: Any) -> bytes:
    return json.dumps(EVENT | changes).encode()


def refusal(schema: RequestSchema, content: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as refused:
        schema.one(content)
    return refused.value


def test_a_payment_is_read_with_its_types(schema: RequestSchema) -> None:
    row = schema.one(body(amount=3))
    assert row == EVENT | {"event_time": datetime(2026, 1, 5, 12, 30, tzinfo=UTC), "amount": 3.0}


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("2026-01-05T12:30:00", "12:30"),
        ("2026-01-05T12:30:00+02:00", "10:30"),
        ("2026-01-05T12:30:00.123456-01:00", "13:30"),
    ],
)
def test_times_become_utc(schema: RequestSchema, text: str, meaning: str) -> None:
    time = schema.one(body(event_time=text))["event_time"]
    assert (time.strftime("%H:%M"), time.tzinfo) == (meaning, UTC)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", -0.01),
        ("amount", 100_001),
        ("amount", float("nan")),
        ("amount", float("inf")),
        ("amount", "25"),
        ("amount", None),
        ("amount", True),
        ("customer_id", -1),
        ("customer_id", 1.5),
        ("customer_id", True),
        ("customer_id", 2**63),
        ("customer_id", [7]),
        ("event_time", 1767616200),
        ("event_time", "1767616200"),
        ("event_time", "yesterday"),
        ("event_time", "0001-01-01T00:00:00+14:00"),
        ("event_time", "9999-12-31T23:59:59-10:00"),
        ("event_time", "1969-12-31T23:59:59Z"),
        ("colour", "red"),
    ],
)
def test_a_bad_value_names_its_field(schema: RequestSchema, field: str, value: Any) -> None:
    refused = refusal(schema, body(**{field: value}))
    assert refused.status == 422
    assert list(refused.problem.fields) == [field]
    assert refused.problem.error.startswith(f"{field}: ")


@pytest.mark.parametrize("field", list(EVENT))
def test_a_missing_field_is_named(schema: RequestSchema, field: str) -> None:
    rest = {name: value for name, value in EVENT.items() if name != field}
    assert list(refusal(schema, json.dumps(rest).encode()).problem.fields) == [field]


def test_a_key_given_twice_is_refused_however_it_is_written(schema: RequestSchema) -> None:
    for again in (b'"amount": 9', b'"am\\u006funt": 9'):
        refused = refusal(schema, body()[:-1] + b", " + again + b"}")
        assert (refused.status, list(refused.problem.fields)) == (422, ["amount"])
        with pytest.raises(BadRequest, match="given twice"):
            schema.many(b"[" + body() + b"," + body()[:-1] + b", " + again + b"}]")
    assert schema.one(body()[:-1].replace(b"amount", b"am\\u006funt") + b"}") == schema.one(body())


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"amount": }'])
def test_what_is_not_json_is_a_bad_request(schema: RequestSchema, content: bytes) -> None:
    assert refusal(schema, content).status == 400


@pytest.mark.parametrize("content", [b"null", b"5", b'"text"', b"[]"])
def test_what_is_not_an_object_is_refused(schema: RequestSchema, content: bytes) -> None:
    assert refusal(schema, content).status == 422


def test_a_batch_is_a_list_or_an_object_with_events(schema: RequestSchema) -> None:
    assert schema.many(json.dumps([EVENT] * 3).encode()) == schema.many(json.dumps({"events": [EVENT] * 3}).encode())


def test_a_bad_payment_in_a_batch_is_found(schema: RequestSchema) -> None:
    with pytest.raises(BadRequest) as listed:
        schema.many(json.dumps([EVENT, EVENT | {"amount": -1}]).encode())
    with pytest.raises(BadRequest) as wrapped:
        schema.many(json.dumps({"events": [EVENT, EVENT | {"amount": -1}]}).encode())
    assert (list(listed.value.problem.fields), list(wrapped.value.problem.fields)) == (
        ["[1].amount"],
        ["events[1].amount"],
    )


def test_a_batch_has_a_least_and_a_largest_size(schema: RequestSchema) -> None:
    assert len(schema.many(json.dumps([EVENT] * MAXIMUM_BATCH).encode())) == MAXIMUM_BATCH
    for size, status in ((MAXIMUM_BATCH + 1, 413), (0, 422)):
        for content in ([EVENT] * size, {"events": [EVENT] * size}):
            with pytest.raises(BadRequest) as refused:
                schema.many(json.dumps(content).encode())
            assert refused.value.status == status


def test_every_column_type_of_a_spec_has_its_rules(spec: ModelSpec) -> None:
    columns = {
        "transaction_id": Column(type="int64", minimum=1, maximum=9),
        "event_time": Column(type="timestamp"),
        "customer_id": Column(type="int64"),
        "channel": Column(type="string", values=("web", "shop")),
        "note": Column(type="string", nullable=True),
        "online": Column(type="bool"),
    }
    events = spec.source.events.model_copy(update={"columns": columns})
    feeds = {**spec.source.feeds, "events": events}
    schema = RequestSchema(spec.model_copy(update={"source": spec.source.model_copy(update={"feeds": feeds})}))
    good = {"transaction_id": 1, "event_time": "2026-01-05", "customer_id": -(2**63), "channel": "web", "online": False}
    assert schema.one(json.dumps(good).encode())["note"] is None
    for field, value in {"transaction_id": 0, "channel": "phone", "note": "x" * 1001, "online": 0}.items():
        assert list(refusal(schema, json.dumps(good | {field: value}).encode()).problem.fields) == [field]
