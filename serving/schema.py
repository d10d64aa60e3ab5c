"""The bodies of requests and responses. An event's fields come from the model spec; error messages name the field."""

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
)

from training.contract.base import Frozen
from training.contract.model_spec import Column, ModelSpec

MAXIMUM_BATCH = 1000
MAXIMUM_STRING = 1000
INT64 = 2**63
#: Column types that JSON writes in quotation marks.
QUOTED, TEXT = ("string", "timestamp"), (str, datetime)
#: What a nanosecond timestamp can hold, and no clock before Unix.
FIRST_TIME, END_OF_TIME = datetime(1970, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)

Row = dict[str, Any]


class Problem(Frozen):
    """The body of an error response. `fields` holds one message per wrong field."""

    error: str
    fields: dict[str, str] = {}


class BadRequest(Exception):
    """A request that is refused: the HTTP status, what is wrong, and after how many seconds to retry."""

    def __init__(self, status: int, problem: Problem, retry_after: int | None = None) -> None:
        super().__init__(problem.error)
        self.status = status
        self.problem = problem
        self.retry_after = retry_after


class RequestSchema:
    """Parses request bodies of one model. The pydantic models are built from the spec's event columns."""

    def __init__(self, spec: ModelSpec) -> None:
        config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())
        fields: dict[str, Any] = {name: _field(column) for name, column in spec.request_columns.items()}
        self.event: type[BaseModel] = create_model("Event", __config__=config, __doc__=spec.description, **fields)
        events = (list[self.event], Field(min_length=1, max_length=MAXIMUM_BATCH))  # type: ignore[name-defined]
        #: Columns whose values stand in quotation marks, or may.
        self._texts = [name for name, column in spec.request_columns.items() if column.values or column.type in QUOTED]
        self.batch: type[BaseModel] = create_model("Events", __config__=config, events=events)
        self._events: TypeAdapter[list[BaseModel]] = TypeAdapter(Annotated[events])  # type: ignore[arg-type]

    def one(self, body: bytes) -> Row:
        """One event: a flat JSON object. Raises BadRequest."""
        event = _checked(self.event.model_validate_json, body)
        self._refuse_repeated(body, [event], 0)
        return event.__dict__

    def many(self, body: bytes) -> list[Row]:
        """Events: a JSON list, or an object whose `events` is one. Raises BadRequest."""
        listed = body.lstrip()[:1] == b"["
        if listed:
            events: Sequence[BaseModel] = _checked(self._events.validate_json, body)
        else:
            events = _checked(self.batch.model_validate_json, body).events
        self._refuse_repeated(body, events, 0 if listed else 1)
        return [event.__dict__ for event in events]

    def _refuse_repeated(self, body: bytes, events: Sequence[BaseModel], around: int) -> None:
        """Refuse a key that is given twice: a gateway may have checked the first value, and Pydantic takes the last.

        A body without escapes has two quotation marks for each key and each text of its `events`, and for each of the
        keys `around` them. A body with more is parsed again, key by key.
        """
        expected = around
        for event in events:
            expected += len(event.model_fields_set)
            for name in self._texts:
                expected += isinstance(event.__dict__[name], TEXT)
        if b"\\" in body or body.count(b'"') != 2 * expected:
            orderly_json(body)

    def openapi(self, model: type[BaseModel]) -> dict[str, Any]:
        """The `requestBody` of an operation that takes `model`."""
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("$defs", None)
        return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def made_up_row(spec: ModelSpec) -> Row:
    """An invented event, to look up and score as a check."""
    return {name: _made_up(column) for name, column in spec.request_columns.items()}


def _made_up(column: Column) -> Any:
    if column.values is not None:
        return column.values[0]
    made_up = {"int64": 0, "float64": 0.0, "string": "", "bool": False, "timestamp": FIRST_TIME}
    return made_up[column.type]


def _field(column: Column) -> tuple[Any, Any]:
    """The pydantic annotation and default of one event column."""
    base = _type(column)
    about = Field(description=column.description)
    if column.nullable:
        return Annotated[base | None, about], None
    return Annotated[base, about], ...


def _type(column: Column) -> Any:
    if column.values is not None:
        return Literal[column.values]
    low, high = column.minimum, column.maximum
    match column.type:
        case "int64":
            least = -INT64 if low is None else max(math.ceil(low), -INT64)
            most = INT64 - 1 if high is None else min(math.floor(high), INT64 - 1)
            return Annotated[int, Field(ge=least, le=most)]
        case "float64":
            return Annotated[float, Field(ge=low, le=high)]
        case "string":
            return Annotated[str, Field(max_length=MAXIMUM_STRING)]
        case "bool":
            return bool
        case "timestamp":
            return Annotated[datetime, Field(strict=False), BeforeValidator(_iso), AfterValidator(_utc)]


def _iso(value: Any) -> str:
    """Refuse numbers: Pydantic would guess from their size whether they are seconds or milliseconds."""
    if not isinstance(value, str) or value.strip().lstrip("+-").replace(".", "", 1).isdecimal():
        raise ValueError("must be an ISO 8601 time such as 2026-01-05T12:30:00Z")
    return value


def _utc(time: datetime) -> datetime:
    """UTC; a time without a zone is read as UTC."""
    inside = FIRST_TIME.year <= time.year <= END_OF_TIME.year
    time = time if not inside else time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    if not inside or not FIRST_TIME <= time < END_OF_TIME:
        raise ValueError(f"must lie between {FIRST_TIME.year} and {END_OF_TIME.year - 1}")
    return time


def orderly_json(body: bytes) -> None:
    """Raises BadRequest when an object in `body` has a key twice."""

    def unique(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise BadRequest(422, Problem(error=f"{key}: given twice", fields={key: "given twice"}))
            seen.add(key)

    json.loads(body, object_pairs_hook=unique)


def _checked(parse: Any, body: bytes) -> Any:
    try:
        return parse(body)
    except ValidationError as error:
        raise _bad_request(error) from None


def _bad_request(error: ValidationError) -> BadRequest:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        return BadRequest(400, Problem(error=f"The body is not JSON: {found[0]['msg']}"))
    fields = {_place(each["loc"]): _message(each["type"], each["msg"]) for each in found[:20]}
    more = f"; and {len(found) - 20} more" if len(found) > 20 else ""
    text = "; ".join(f"{place}: {message}" for place, message in fields.items()) + more
    return BadRequest(413 if found[0]["type"] == "too_long" else 422, Problem(error=text, fields=fields))


def _place(location: tuple[int | str, ...]) -> str:
    """The field at `location`: `amount`, `events[3].amount`, `[3].amount`; `body` for the whole body."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".") or "body"


def _message(kind: str, message: str) -> str:
    return "unknown field" if kind == "extra_forbidden" else message.removeprefix("Value error, ")
