"""Feature views as the online store has them, and the rows that a lookup returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NAN = float("nan")


@dataclass(frozen=True)
class View:
    """The columns of one feature view that a lookup reads."""

    name: str
    #: The event column that holds the view's entity.
    key: str
    #: Feast's ValueType of that column, such as INT64.
    key_type: str
    names: tuple[str, ...]

    @property
    def source(self) -> tuple[str, str, str]:
        """Name and key. One lookup serves all views for which these are equal."""
        return self.name, self.key, self.key_type


@dataclass(frozen=True)
class ViewRows:
    """One row of a view per event: its values in the order of the view's names, and its time in Unix seconds.

    Values are numbers and texts; NaN where the store has none. These are lists, not arrays: for a single row, each call
    to NumPy takes longer than a loop over the values.
    """

    values: Sequence[Sequence[Any]]
    stamps: Sequence[float]

    @classmethod
    def missing(cls, view: View, rows: int) -> "ViewRows":
        """The result for `rows` events whose entities the store does not have."""
        return cls([[NAN] * len(view.names)] * rows, [NAN] * rows)


def view_value(value: Any) -> float | str:
    """The number or the text in Feast's protobuf value, true and false as 1 and 0; NaN when it is empty."""
    kind = value.WhichOneof("val")
    if kind == "string_val":
        return str(value.string_val)
    return NAN if kind is None else float(getattr(value, kind))
