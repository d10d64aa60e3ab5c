"""What the values of each column of the matrix may become, by the rules of the source and the feature definitions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.contract.columns import Column
from training.contract.feature_definitions import FeatureColumn, FeatureDefinitions

_NAN = float("nan")
#: The largest number that the matrix can hold.
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class ColumnChanges:
    """One column of the matrix that the model gets."""

    name: str
    place: int
    low: float
    high: float
    #: The standard deviation of the values that are known.
    deviation: float = 0.0
    #: Whether all values are whole numbers.
    whole: bool = False
    #: The allowed numbers, in ascending order; empty: all between low and high.
    allowed: tuple[float, ...] = ()
    #: How many categories it has. None: it is a number.
    categories: int | None = None
    #: Whether a category that is not in the list may come.
    unseen: bool = False
    #: What the model sees where the value is missing. None: it is never missing.
    missing: float | None = None

    @property
    def noisy(self) -> bool:
        """Whether a value may be a little off. A truth value is not: with two values, noise would be another event."""
        return self.categories is None and self.high > self.low and not (self.whole and self.high - self.low == 1)

    @property
    def bounds(self) -> dict[str, float]:
        """Description of a boundary value → the value."""
        if self.categories is not None:
            return {f"{self.name} = a category that is not known": float(self.categories)} if self.unseen else {}
        ends = dict.fromkeys((self.low, self.high))
        return {f"{self.name} = {value:g}": value for value in ends if np.isfinite(value)}

    def within(self, values: np.ndarray) -> np.ndarray:
        """`values` as the rules allow them: the nearest ones. A missing value stays missing."""
        if self.allowed:
            choices = np.asarray(self.allowed)
            nearest = np.abs(values[:, np.newaxis] - choices).argmin(axis=1)
            return np.where(np.isnan(values), _NAN, choices[nearest])
        clipped = np.clip(values, self.low, self.high)
        # Bounds of whole numbers may be halves, as of a mean that happens to be whole.
        return np.round(clipped) if self.whole else clipped


def column_changes(
    columns: Sequence[FeatureColumn],
    definitions: FeatureDefinitions | None,
    events: Mapping[str, Column],
    rows: np.ndarray,
) -> list[ColumnChanges]:
    """Of each of `columns`, whose values are the `rows` [n, d]. `events`: the columns of events, with their rules.

    Where no rule says how low or high a number may be, what was seen does.
    """
    definitions = definitions or FeatureDefinitions(views=(), request_views=())
    defaults = {column.name: column.default for view in definitions.views for column in view.columns}
    found = []
    for place, column in enumerate(columns):
        rule = events.get(column.name) if column.name in definitions.event_features else None
        missing = _missing(column, rule, defaults)
        if column.categories is not None:
            unseen = rule is None or rule.values is None
            number = len(column.categories)
            change = ColumnChanges(
                column.name, place, 0, number, whole=True, categories=number, unseen=unseen, missing=missing
            )
        else:
            change = _number(column.name, place, rule, rows[:, place].astype(np.float64), missing)
        found.append(change)
    return found


def _missing(column: FeatureColumn, rule: Column | None, defaults: Mapping[str, float | None]) -> float | None:
    if rule is not None:
        return _NAN if rule.nullable and column.may_be_missing else None
    # A row that the store lacks has the default.
    default = defaults.get(column.name)
    return default if default is not None else (_NAN if column.may_be_missing else None)


def _number(name: str, place: int, rule: Column | None, values: np.ndarray, missing: float | None) -> ColumnChanges:
    seen = values[np.isfinite(values)]
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (_NAN, _NAN)
    deviation = float(seen.std()) if len(seen) else 0.0
    whole = bool(len(seen)) and bool((seen == np.round(seen)).all())
    if rule is None:
        return ColumnChanges(name, place, low, high, deviation, whole, missing=missing)
    if rule.kind == "bool":
        return ColumnChanges(name, place, 0, 1, deviation, whole=True, missing=missing)
    allowed = tuple(sorted(float(value) for value in rule.allowed or ()))
    if allowed:
        low, high = allowed[0], allowed[-1]
    else:
        low = low if rule.low is None else max(float(rule.low), -_LARGEST)
        high = high if rule.high is None else min(float(rule.high), _LARGEST)
    return ColumnChanges(name, place, low, high, deviation, whole or rule.kind == "int", allowed, missing=missing)
