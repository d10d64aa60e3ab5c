"""A column of a feed: its type and its rules."""

from functools import cached_property
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from training.contract.base import Spec
from training.contract.column_types import ColumnType, Kind, column_type, written_value
from training.contract.names import MOST_LISTED, listed, more_than_once
from training.contract.problems import exponent_hint, raise_contradictions

Scalar = bool | int | float | str

_BOOLEANS = "YAML reads unquoted yes, no, on, off, true and false as true or false: quote them if they are text."
_BOUNDED = ("int", "float", "decimal", "date", "timestamp")
#: Kind of a column → the Python types of its `values`, as YAML has them.
_WRITTEN: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "decimal": (int, float, str),
    "string": (str,),
    "bool": (bool,),
}
_FIX = {
    "int": "Write a whole number of {bits} bits.",
    "float": "Write a number.",
    "decimal": "Write a number, or a text such as '0.10', with no more digits than the type has.",
    "date": "Write it as 2026-01-05.",
    "timestamp": "Write it as 2026-01-05T12:30:00Z.",
}


class Column(Spec):
    """One column of a feed. Values equal to `minimum` and `maximum` are allowed.

    `unique` applies within a partition, and for events across all partitions. A label reported again is a correction.
    """

    type: Annotated[str, AfterValidator(lambda text: column_type(text).name)]
    """int8 … int64, uint8 … uint64, float32, float64, decimal(p, s), bool, string, category, date, timestamp,
    list(float32) or list(float64); docs/your-model.md has a table of them."""
    description: str = ""
    nullable: bool = False
    unique: bool = False
    minimum: int | float | str | None = None
    """For numbers, dates and timestamps. A date or a time is written in ISO 8601."""
    maximum: int | float | str | None = None
    values: Annotated[tuple[Scalar, ...] | None, Field(strict=False)] = None
    """The allowed values, in the column's type. Not for dates, timestamps and lists."""

    @cached_property
    def parsed(self) -> ColumnType:
        """The parts of `type`."""
        return column_type(self.type)

    @property
    def kind(self) -> Kind:
        """What `type` is, without its width: code that treats all integers alike asks for this."""
        return self.parsed.kind

    @cached_property
    def low(self) -> Any:
        """`minimum` in the column's Python type: int, float, Decimal, date, or datetime in UTC. None: no bound."""
        return None if self.minimum is None else written_value(self.minimum, self.parsed)

    @cached_property
    def high(self) -> Any:
        """`maximum`, as `low`."""
        return None if self.maximum is None else written_value(self.maximum, self.parsed)

    @cached_property
    def allowed(self) -> tuple[Any, ...] | None:
        """`values` in the column's Python type. None: any value."""
        return None if self.values is None else tuple(written_value(value, self.parsed) for value in self.values)

    @model_validator(mode="after")
    def _rules_fit_the_type(self) -> "Column":
        raise_contradictions([*self._bound_mistakes(), *self._value_mistakes(), *self._unique_mistakes()])
        return self

    def _bound_mistakes(self) -> list[tuple[str, str, str]]:
        found = []
        for name, bound in (("minimum", self.minimum), ("maximum", self.maximum)):
            if bound is None:
                continue
            if self.kind not in _BOUNDED:
                what = f"is set, but a column of type {self.type} has no bounds"
                found.append((name, what, f"Remove {name}, or give the column a type of numbers or of times."))
            elif not _fits(bound, self.parsed):
                fix = _FIX[self.kind].format(bits=self.parsed.bits) + exponent_hint(bound)
                article = "an" if self.type.startswith("int") else "a"
                found.append((name, f"is {bound}, which is not {article} {self.type}", fix))
        if not found and self.low is not None and self.high is not None and self.low > self.high:
            what = f"is {self.minimum}, above the maximum {self.maximum}, so no value could pass"
            found.append(("minimum", what, "Swap or correct the two bounds."))
        return found

    def _value_mistakes(self) -> list[tuple[str, str, str]]:
        if self.values is None:
            return []
        if self.kind not in _WRITTEN:
            what = f"is set, but a column of type {self.type} has no list of values"
            return [("values", what, "Remove values.")]
        if not self.values:
            return [("values", "is empty, so no value could pass", "List the values, or remove the field.")]
        if wrong := [value for value in self.values if not self._is_written(value)]:
            hint = f"Write values of type {self.type}, or change the column's type."
            hint += f" {_BOOLEANS}" if any(isinstance(value, bool) for value in wrong) else ""
            typed = ", ".join(f"{value!r} ({type(value).__name__})" for value in wrong[:MOST_LISTED])
            return [("values", f"holds {typed}, but the column is of type {self.type}", hint)]
        found, allowed = [], self.allowed or ()
        if repeated := sorted(map(str, more_than_once(allowed))):
            found.append(("values", f"holds {listed(repeated)} more than once", "List each value once."))
        if not self._bound_mistakes() and (outside := [value for value in allowed if not self.within(value)]):
            what = f"holds {listed(outside)}, outside the column's own minimum and maximum"
            found.append(("values", what, "Correct the values or the bounds, or remove one of the two rules."))
        return found

    def _is_written(self, value: Scalar) -> bool:
        of_the_type = isinstance(value, _WRITTEN[self.kind]) and (self.kind == "bool" or not isinstance(value, bool))
        return of_the_type and _fits(value, self.parsed)

    def _unique_mistakes(self) -> list[tuple[str, str, str]]:
        if not self.unique or (self.kind != "list" and self.type != "category"):
            return []
        what = f"is set, but a column of type {self.type} has no unique values"
        return [("unique", what, "Remove unique. An id is a string or an integer.")]

    def within(self, value: Any) -> bool:
        """Whether `value`, in the column's Python type, is within the bounds."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


def _fits(value: Scalar, of: ColumnType) -> bool:
    try:
        written_value(value, of)
    except (ValueError, OverflowError):
        return False
    return True
