"""The bodies of requests and responses. An event's fields come from the model spec; error messages name the field."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
)

from serving.field_types import field_type, made_up_value
from training.contract.base import Frozen
from training.contract.model_spec import Column, ModelSpec
from training.contract.predictions import Prediction
from training.contract.registries import TASKS
from training.domain.task_kind import TaskKind

MAXIMUM_BATCH = 1000
#: Kinds of columns whose values JSON writes in quotation marks. A decimal may have them or not.
QUOTED, TEXT = ("string", "date", "timestamp"), (str, date)

Row = dict[str, Any]
T = TypeVar("T")


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
        self.event: type[BaseModel] = create_model(
            "Event", __config__=config, __doc__=spec.description, **_fields(spec)
        )
        events = (list[self.event], Field(min_length=1, max_length=MAXIMUM_BATCH))  # type: ignore[name-defined]
        #: Columns whose values stand in quotation marks, or may.
        self._texts = [name for name, column in spec.request_columns.items() if column.kind in QUOTED]
        self.batch: type[BaseModel] = create_model("Events", __config__=config, events=events)
        self._events: TypeAdapter[list[BaseModel]] = TypeAdapter(Annotated[events])  # type: ignore[arg-type]

    def one(self, body: bytes) -> Row:
        """One event: a flat JSON object. Raises BadRequest."""
        event = checked(self.event.model_validate_json, body)
        self._refuse_repeated(body, [event], 0)
        return event.__dict__

    def many(self, body: bytes) -> list[Row]:
        """Events: a JSON list, or an object whose `events` is one. Raises BadRequest."""
        listed = body.lstrip()[:1] == b"["
        if listed:
            events: Sequence[BaseModel] = checked(self._events.validate_json, body)
        else:
            events = checked(self.batch.model_validate_json, body).events
        self._refuse_repeated(body, events, 0 if listed else 1)
        return [event.__dict__ for event in events]

    def rows(self, events: list[dict[str, Any]]) -> list[Row]:
        """Events that are parsed already; dates and times are texts. Raises BadRequest."""
        return [event.__dict__ for event in checked(self._events.validate_python, events)]

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


def answer_schema(spec: ModelSpec) -> dict[str, Any]:
    """The JSON Schema of the answer for one row: the fields of every prediction, and those of the spec's kind of task.

    Raises ConfigError for an unknown kind.
    """
    kind: type[TaskKind] = TASKS.find(spec.task.kind)
    common = prediction_schema()
    fields = {**common["properties"], **kind.answer_schema}
    if "decision" not in kind.answer_schema:
        del fields["decision"]
    required = [*common["required"], *(name for name in kind.answer_schema if name not in kind.optional)]
    return {**common, "properties": fields, "required": required, "additionalProperties": False}


@cache
def prediction_schema() -> Mapping[str, Any]:
    """The JSON Schema of Prediction, complete in itself. Cached: making it takes milliseconds, for each model."""
    schema = TypeAdapter(Prediction).json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    explanation = schema.pop("$defs")["Explanation"]
    return schema | {"properties": {**schema["properties"], "explanation": explanation}}


def made_up_row(spec: ModelSpec) -> Row:
    """An invented event, to look up and score as a check."""
    return {name: made_up_value(column) for name, column in spec.request_columns.items()}


def _fields(spec: ModelSpec) -> dict[str, Any]:
    """Name → the pydantic annotation and default of each event column."""
    time = spec.source.events.time_column
    return {name: _field(column, name == time) for name, column in spec.request_columns.items()}


def _field(column: Column, is_event_time: bool) -> tuple[Any, Any]:
    about, values = Field(description=column.description), field_type(column, is_event_time)
    return (Annotated[values | None, about], None) if column.nullable else (Annotated[values, about], ...)


def orderly_json(body: bytes) -> None:
    """Raises BadRequest when an object in `body` has a key twice."""
    json.loads(body, object_pairs_hook=unique_keys)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The JSON object of `pairs`. Raises BadRequest when it has a key twice."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise BadRequest(422, Problem(error=f"{key}: given twice", fields={key: "given twice"}))
        found[key] = value
    return found


def checked(parse: Callable[[T], Any], given: T) -> Any:
    """`parse(given)`. Raises BadRequest, which names the fields, where pydantic refuses it."""
    try:
        return parse(given)
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
