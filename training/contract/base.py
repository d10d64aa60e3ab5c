"""The base classes of all models that cross a process boundary, and days."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from training.contract.docstrings import field_docstrings


class Frozen(BaseModel):
    """Immutable. An unknown field is an error. The docstrings of the fields are their descriptions in JSON Schemas."""

    # Deferred: a process uses few of the models, and building a model takes a millisecond.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        properties: dict[str, Any] = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in field_docstrings(cls).items():
            if name in properties:
                properties[name].setdefault("description", text)
        return schema


class Spec(Frozen):
    """A section of a model spec. Values are not converted: `yes`, "7" and NaN are not numbers."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


#: A hundred years. A larger number of days is a typing error, and dates would overflow.
LONGEST_DAYS = 36_500
DayCount = Annotated[int, Field(ge=1, le=LONGEST_DAYS)]
#: A year. A longer time to wait is a typing error.
LONGEST_MINUTES = 366 * 24 * 60


def midnight(day: date) -> datetime:
    """The moment in UTC when `day` begins."""
    return datetime.combine(day, time(), UTC)


class Days(Frozen):
    """Whole days in UTC, from `start` to the day before `end`."""

    start: date
    end: date

    @model_validator(mode="after")
    def _not_backwards(self) -> "Days":
        if self.end <= self.start:
            raise ValueError(f"end {self.end} must come after start {self.start}")
        return self

    @classmethod
    def ending(cls, end: date, days: int) -> "Days":
        """The `days` days before `end`."""
        return cls(start=end - timedelta(days=days), end=end)

    def __len__(self) -> int:
        return (self.end - self.start).days

    def __str__(self) -> str:
        return f"{self.start} … {self.end - timedelta(days=1)}"


#: Delta table name (as in the lake, without the model's prefix) → version.
TableVersions = dict[str, int]
