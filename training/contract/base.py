"""The base classes of all models that cross a process boundary, and days."""

from datetime import UTC, date, datetime, time, timedelta

from pydantic import BaseModel, ConfigDict, model_validator


class Frozen(BaseModel):
    """Immutable. An unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)


class Spec(Frozen):
    """A section of a model spec. Values are not converted: `yes`, "7" and NaN are not numbers."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


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
