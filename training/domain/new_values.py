"""Find values that the reference (nearly) lacks: a sensor that reports 0, a new category, the first missing values.

A share of the rows that is there already must change by some per cent before it matters. A value that was never there
is a fault, or something new, when it is much rarer. A value that is new by nature, such as the next larger count, is
recognised by its neighbours, which have become more frequent too.

Rows of one entity are one piece of evidence. So only rows count of which no two have an entity in common, of any kind.
When nothing has changed, each of those with the value lies on the current side with at most the part of the rows, or of
the entities, that this side has. Their number there is binomial then, given their number on both sides (Przyborowski &
Wilenski, Homogeneity of Results in Testing Samples from Poisson Series, Biometrika 31, 1940). It is an exact test, at
any number of rows, and nothing is estimated for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom

from training.contract.messages import Shift
from training.domain.comparison import OUTPUT, Side, are_numbers
from training.domain.shares import MISSING

#: A new value is at least so many times as frequent as in the reference.
TIMES = 10
#: Its share has risen by more than so many times what those of its neighbours have.
NEIGHBOURS = 5
#: The chance of error at which a part of the reference is said to have new values of its own.
HABIT = 0.01


def with_new_values(shifts: Mapping[str, Shift], reference: Side, current: Side, minimum: float) -> dict[str, Shift]:
    """The shifts of columns, with the surest new value of a column in place of its shift where that is surer.

    New is a number, a text or a missing value that the reference nearly lacks, and `minimum` more of the rows have now;
    1: nothing is. Where a column has values that could be new, both its tests count (Bonferroni). A column that gained
    or lost such values within the reference has none: they come and go. Nor have columns that name entities, and
    outputs, which follow from the features. Where it is known of one side only which of its rows resemble each other,
    shifts stay as they are.
    """
    if minimum >= 1 or set(reference.clusters) != set(current.clusters):
        return dict(shifts)
    found, halves = dict(shifts), cache(lambda: _halves(reference))
    for name in shifts:
        if name in current.clusters or name.startswith(OUTPUT):
            continue
        if (new := _surest(name, reference, current, minimum)) is None:
            continue
        if new.p_value < 1 and _come_and_go(name, halves(), minimum):
            new = new.model_copy(update={"p_value": 1.0})
        surest = min(shifts[name], new, key=lambda shift: shift.p_value)
        found[name] = surest.model_copy(update={"p_value": min(1.0, 2 * surest.p_value)})
    return found


def _surest(name: str, reference: Side, current: Side, minimum: float) -> Shift | None:
    """The surest new value of the column. Its p-value counts all values that could be new; None: there are none."""
    column = _Column.of(reference.columns[name], current.columns[name])
    rows = np.array([len(column.reference), len(column.current)])
    values, counts = column.frequent(max(1, round(minimum * rows[1])))
    if not len(values):
        return None
    surest = Shift(part="new", reference=0, current=0, minimum=minimum, p_value=1, design_effect=1)
    shares, part = counts / rows[:, None], _part_of_current(reference, current, rows)
    for at in np.flatnonzero((np.diff(shares, axis=0)[0] >= minimum) & (shares[1] >= TIMES * shares[0])):
        before, now = shares[:, at].tolist()
        if column.grown_beside(values[at]) * NEIGHBOURS >= now - before:
            continue
        rows_with = column.rows(values[at])
        held = [_independent(each, side) for each, side in zip(rows_with, (reference, current), strict=True)]
        p_value = min(1.0, float(binom.sf(held[1] - 1, sum(held), part)) * len(values))
        if p_value < surest.p_value:
            found = {"part": column.named(values[at]), "reference": before, "current": now, "p_value": p_value}
            surest = surest.model_copy(update=found | {"design_effect": float(counts[1, at] / held[1])})
    return surest


@dataclass(frozen=True)
class _Column:
    """A column of both sides: finite or missing numbers, or the positions of texts in `texts`, -1 where missing."""

    reference: np.ndarray
    current: np.ndarray
    texts: np.ndarray | None

    @classmethod
    def of(cls, reference: np.ndarray, current: np.ndarray) -> "_Column":
        if not are_numbers(reference, current):
            codes, texts = pd.factorize(np.concatenate([reference, current]), use_na_sentinel=True)
            return cls(codes[: len(reference)], codes[len(reference) :], np.asarray(texts, object))
        # 0.1 of four bytes is another number than 0.1 of eight.
        narrow = [each.dtype for each in (reference, current) if each.dtype.kind == "f"]
        dtype = min(narrow, key=lambda each: each.itemsize, default=np.result_type(reference, current))
        with np.errstate(over="ignore"):
            return cls(reference.astype(dtype, copy=False), current.astype(dtype, copy=False), None)

    def frequent(self, least: int) -> tuple[np.ndarray, np.ndarray]:
        """The values [k] that at least so many rows of both sides together have, and how many of each side, [2, k].

        Both sides together choose them, so that the choice favours neither. Steps of `least` meet each of them.
        """
        current, together = np.sort(self.current), np.sort(np.concatenate([self.reference, self.current]))
        values = np.unique(together[::least])
        found, now = _counted(together, values), _counted(current, values)
        kept = found >= least
        return values[kept], np.array([found - now, now])[:, kept]

    def rows(self, value: np.generic) -> tuple[np.ndarray, np.ndarray]:
        """The rows of each side with the value."""
        sides = (self.reference, self.current)
        before, now = (np.flatnonzero(np.isnan(each) if np.isnan(value) else each == value) for each in sides)
        return before, now

    def grown_beside(self, value: np.generic) -> float:
        """By how much the next smaller or larger number of the reference has become more frequent: 0 or more."""
        if self.texts is not None or np.isnan(value):
            return 0.0
        smaller, larger = self.reference[self.reference < value], self.reference[self.reference > value]
        beside = [nearest(each) for nearest, each in ((np.max, smaller), (np.min, larger)) if len(each)]
        return max([0.0, *(float(np.mean(self.current == each) - np.mean(self.reference == each)) for each in beside)])

    def named(self, value: Any) -> str:
        if self.texts is not None:
            return MISSING if value < 0 else f"equal to {self.texts[value]}"
        return MISSING if np.isnan(value) else f"equal to {value:.6g}"


def _counted(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How many of the sorted values are equal to each; missing numbers are last, and equal to each other."""
    return np.searchsorted(ordered, values, "right") - np.searchsorted(ordered, values)


def _part_of_current(reference: Side, current: Side, rows: np.ndarray) -> float:
    """The largest part that the current side has of the rows, or of the entities of a kind."""
    kinds = [(reference.clusters[kind].count, each.count) for kind, each in current.clusters.items()]
    return max(now / (before + now) for before, now in [rows.tolist(), *kinds])


def _independent(rows: np.ndarray, side: Side) -> int:
    """How many of the rows have no entity in common, of any kind: the first row of each."""
    for each in side.clusters.values():
        rows = rows[np.unique(each.numbers[rows], return_index=True)[1]]
    return len(rows)


def _halves(side: Side) -> list[Side]:
    """Its earlier and its later rows; none when their times are not known."""
    if side.times is None or len(side.times) < 2:
        return []
    halves = []
    for part in np.array_split(np.argsort(side.times, kind="stable"), 2):
        rows, clusters = np.sort(part), {}
        for kind, each in side.clusters.items():
            numbers = each.numbers[rows]
            clusters[kind] = replace(each, numbers=numbers, count=int(np.count_nonzero(np.bincount(numbers))))
        halves.append(Side({name: values[rows] for name, values in side.columns.items()}, clusters))
    return halves


def _come_and_go(name: str, halves: Sequence[Side], minimum: float) -> bool:
    """Whether one of the halves of the reference has values that the other one nearly lacks."""
    found = [_surest(name, *pair, minimum) for pair in permutations(halves, 2)]
    return any(each is not None and each.p_value <= HABIT for each in found)
