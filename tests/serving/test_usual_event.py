"""The usual event is read without pydantic, as pydantic would read it; whatever else comes is left to pydantic."""

import json
import random
from typing import Any

import pytest

from serving.schema import BadRequest, RequestSchema
from serving.usual_event import UsualEvent
from training.contract.model_spec import Column, ModelSpec

COLUMNS: dict[str, dict[str, Any]] = {
    "id": {"type": "int64", "minimum": 0},
    "small": {"type": "int8"},
    "at": {"type": "timestamp"},
    "made": {"type": "timestamp", "nullable": True, "minimum": "2020-01-01T00:00:00Z"},
    "amount": {"type": "float64", "minimum": -1, "maximum": 100},
    "ratio": {"type": "float64", "nullable": True},
    "place": {"type": "string", "nullable": True},
    "kind": {"type": "string", "values": ["a", "b"]},
    "online": {"type": "bool"},
}
USUAL = {
    "id": 1,
    "small": -3,
    "at": "2026-01-05T12:30:00Z",
    "made": None,
    "amount": 25.5,
    "ratio": 0.1,
    "place": "über",
    "kind": "a",
    "online": True,
}
#: As JSON: what a value can be replaced by.
VALUES = (
    *("null", "true", "0", "-0", "-0.0", "1", "25", "-1", "-2", "127", "128", "100.0", "100.1", "9007199254740993"),
    *("9223372036854775807", "9223372036854775808", "1e400", "-1e400", "1e-400", "1e5", "NaN", "Infinity", '""', '"a"'),
    *('"c"', '"\\u00fc"', '"a\\"b"', f'"{"x" * 1000}"', f'"{"x" * 1001}"', "[]", "{}", '"2026-01-05"', '"1767616200"'),
    *('"2026-01-05T12:30"', '"2026-01-05T12:30:00"', '"2026-01-05T12:30:00.5+02:00"', '"2026-01-05T24:00:00Z"'),
    *('"2026-01-05 12:30:00Z"', '"2026-02-30T12:30:00Z"', '"2026-01-05T12:30:60Z"', '"2026-01-05T12:30:00-23:59"'),
    *('"2026-01-05T12:30:00+24:00"', '"1969-12-31T23:59:59Z"', '"2019-12-31T23:59:59Z"', '"2262-01-01T00:00:00Z"'),
    *('"1970-01-01T00:30:00+01:00"', '"0001-01-01T00:30:00+01:00"', '"2026-01-05T12:30:00.1234567Z"'),
    *('"٢026-01-05T12:30:00Z"', '"2026-01-05T12:30:00z"', "0.1", "123456789.123456789", '"\\ud800"'),
)


@pytest.fixture
def schema(spec: ModelSpec) -> RequestSchema:
    """Of an event with these columns."""
    columns = {name: Column.model_validate(column) for name, column in COLUMNS.items()}
    events = spec.source.events.model_copy(update={"columns": columns, "time_column": "at"})
    feeds = {**spec.source.feeds, "events": events}
    made = RequestSchema(spec.model_copy(update={"source": spec.source.model_copy(update={"feeds": feeds})}))
    assert set(made.event.model_fields) == set(COLUMNS)
    return made


def both(schema: RequestSchema, body: bytes) -> tuple[Any, Any]:
    """What is read without pydantic, and by pydantic alone; None where it is refused."""
    usual, schema._usual = schema._usual, None
    assert usual is not None
    try:
        return usual.read(body), schema.one(body)
    except BadRequest:
        return usual.read(body), None
    finally:
        schema._usual = usual


def same(read: Any, expected: Any) -> bool:
    return repr(sorted(read.items())) == repr(sorted(expected.items()))


def test_the_usual_event_is_read_as_pydantic_reads_it(schema: RequestSchema) -> None:
    read, expected = both(schema, json.dumps(USUAL, ensure_ascii=False).encode())
    assert read is not None
    assert same(read, expected)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_value_is_read_as_pydantic_reads_it_or_left_to_it(schema: RequestSchema, name: str) -> None:
    quickly = 0
    for value in VALUES:
        text = {key: json.dumps(each, ensure_ascii=False) for key, each in USUAL.items()} | {name: value}
        body = "{" + ", ".join(f'"{key}": {each}' for key, each in text.items()) + "}"
        read, expected = both(schema, body.encode())
        if read is not None:
            quickly += 1
            assert expected is not None, f"{value} is read although pydantic refuses it"
            assert same(read, expected), value
    assert quickly, "no value was read without pydantic"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'"a"',
        b"null",
        json.dumps({key: value for key, value in USUAL.items() if key != "ratio"}).encode(),
        json.dumps(USUAL | {"more": 1}).encode(),
        json.dumps({**{key: value for key, value in USUAL.items() if key != "ratio"}, "more": 1}).encode(),
        json.dumps(USUAL).encode().replace(b'"id": 1', b'"id": 1, "id": 2'),
        json.dumps(USUAL).encode().replace(b'"id"', b'"\\u0069d"'),
        json.dumps(USUAL).encode().replace(b'"kind": "a"', b'"kind": "\xff"'),
        b"\xef\xbb\xbf" + json.dumps(USUAL).encode(),
    ],
)
def test_what_is_not_the_usual_event_is_left_to_pydantic(schema: RequestSchema, body: bytes) -> None:
    assert both(schema, body)[0] is None


def test_no_change_of_a_body_is_read_otherwise_than_pydantic_reads_it(schema: RequestSchema) -> None:
    random_, body = random.Random(0), json.dumps(USUAL, ensure_ascii=False).encode()
    read_quickly = 0
    for _ in range(3000):
        place, length = random_.randrange(len(body)), random_.randrange(3)
        changed = body[:place] + bytes(random_.choices(b'0123456789.-+eE"\\,:{}[]TZaun \xc3', k=length))
        changed += body[place + random_.randrange(3) :]
        read, expected = both(schema, changed)
        if read is not None:
            read_quickly += 1
            assert expected is not None, changed
            assert same(read, expected), changed
    assert read_quickly > 100


@pytest.mark.parametrize("type_", ["float32", "decimal(10, 2)", "date", "list(float32)"])
def test_an_event_with_other_types_is_always_left_to_pydantic(type_: str) -> None:
    columns = {"at": Column(type="timestamp"), "other": Column(type=type_)}
    assert UsualEvent.of(columns, "at") is None
