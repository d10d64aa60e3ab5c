"""The one kind of pydantic model used for everything that crosses a process boundary."""

from datetime import UTC, date, datetime, time, timedelta

from pydantic import BaseModel, ConfigDict, model_validator


class Frozen(BaseModel):
    """Immutable, and an unknown field is an error rather than a silent typo."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)


class Spec(Frozen):
    """A section of a model spec. Values must be of their type as written: `yes`, "7" and NaN are no numbers."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


def midnight(day: date) -> datetime:
    """The moment in UTC when `day` begins."""
    return datetime.combine(day, time(), UTC)


class Days(Frozen):
    """Whole days in UTC, half open: `start` is in, `end` is not."""

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
