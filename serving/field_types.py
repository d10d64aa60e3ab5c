"""The fields of a request: each type of a spec's column as pydantic reads it from JSON."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from training.contract.column_types import DECIMAL, as_float32
from training.contract.model_spec import Column
from training.contract.names import listed

MAXIMUM_STRING = 1000
#: The most elements of a list whose type gives no length.
MAXIMUM_ELEMENTS = 10_000
#: The range of the event's time: what a nanosecond timestamp can hold, and no clock before Unix.
FIRST_TIME, END_OF_TIME = datetime(1970, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)

#: The digits that survive the conversion of any JSON number to a float64.
_EXACT_DIGITS = 15
_LARGEST_FLOAT32 = 3.4028234663852886e38
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def field_type(column: Column, is_event_time: bool) -> Any:
    """The pydantic annotation for the values of `column`, without null."""
    if column.allowed is not None:
        if column.kind == "string":
            return Literal[column.allowed]
        # Not as Literal, which takes true for 1 and 1 for true.
        as_json = {"int": int, "bool": bool, "float": float}.get(column.kind, str)
        listed: list[JsonValue] = [as_json(value) for value in column.allowed]
        enum: dict[str, JsonValue] = {"enum": listed}
        return Annotated[_type(column, is_event_time), AfterValidator(_one_of(column)), Field(json_schema_extra=enum)]
    return _type(column, is_event_time)


def made_up_value(column: Column) -> Any:
    """A value of the column's type."""
    if column.allowed is not None:
        return column.allowed[0]
    made_up = {
        "int": 0,
        "float": 0.0,
        "decimal": Decimal(0),
        "string": "",
        "bool": False,
        "date": FIRST_TIME.date(),
        "timestamp": FIRST_TIME,
        "list": [0.0] * column.parsed.length,
    }
    return made_up[column.kind]


def _type(column: Column, is_event_time: bool) -> Any:
    of, bounds = column.parsed, Field(ge=column.low, le=column.high)
    match column.kind:
        case "int":
            low, high = of.range
            least = low if column.low is None else max(column.low, low)
            return Annotated[int, Field(ge=least, le=high if column.high is None else min(column.high, high))]
        case "float":
            return Annotated[_float(of.bits), bounds]
        case "decimal":
            digits = Field(max_digits=of.precision, decimal_places=of.scale)
            return Annotated[Decimal, Field(strict=False), BeforeValidator(_exact), digits, bounds]
        case "string":
            return Annotated[str, Field(max_length=MAXIMUM_STRING)]
        case "date":
            return Annotated[date, Field(strict=False), BeforeValidator(_iso_date), bounds]
        case "timestamp":
            checked = AfterValidator(_clock if is_event_time else _utc)
            return Annotated[datetime, Field(strict=False), BeforeValidator(_iso), checked, bounds]
        case "list":
            elements = Field(min_length=of.length, max_length=of.length or MAXIMUM_ELEMENTS)
            return Annotated[list[_float(of.bits)], elements]  # type: ignore[misc]
    return bool


def _float(bits: int) -> Any:
    """A float64; or the float32 next to the number, as the lake holds it."""
    if bits == 64:
        return float
    return Annotated[float, Field(ge=-_LARGEST_FLOAT32, le=_LARGEST_FLOAT32), AfterValidator(as_float32)]


def _one_of(column: Column) -> Callable[[Any], Any]:
    allowed = column.allowed or ()

    def check(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(f"must be one of {listed(allowed)}")
        return value

    return check


def _exact(value: Any) -> Any:
    """Refuse a number with more digits than its conversion to a float keeps, and anything but numbers and texts."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be a number, or a text such as '25.10'")
    if isinstance(value, str) and not DECIMAL.fullmatch(value):
        raise ValueError("must be a number, or a text such as '25.10'")
    if isinstance(value, float) and len(Decimal(str(value)).as_tuple().digits) > _EXACT_DIGITS:
        raise ValueError(f"has more than {_EXACT_DIGITS} digits: write it as a text")
    return str(value)


def _iso(value: Any) -> str:
    """Refuse numbers: Pydantic would guess from their size whether they are seconds or milliseconds."""
    if not isinstance(value, str) or value.strip().lstrip("+-").replace(".", "", 1).isdecimal():
        raise ValueError("must be an ISO 8601 time such as 2026-01-05T12:30:00Z")
    return value


def _iso_date(value: Any) -> str:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise ValueError("must be an ISO 8601 date such as 2026-01-05")
    return value


def _utc(time: datetime) -> datetime:
    """UTC; a time without a zone is read as UTC."""
    try:
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("must lie in the years 1 to 9999, in UTC") from None


def _clock(time: datetime) -> datetime:
    """As `_utc`, for the time of the event itself."""
    inside = FIRST_TIME.year <= time.year <= END_OF_TIME.year
    time = _utc(time) if inside else time
    if not inside or not FIRST_TIME <= time < END_OF_TIME:
        raise ValueError(f"must lie between {FIRST_TIME.year} and {END_OF_TIME.year - 1}")
    return time
