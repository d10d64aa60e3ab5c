"""Groups of rows: by the values of a column, or by bands of a number."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from training.contract.verdict_spec import Grouping

#: So many of the most frequent values are groups where the spec names neither values nor bounds. A number with no more
#: distinct values is grouped by them.
MOST_VALUES = 10
#: Letters of a value that names of groups show.
_LONGEST = 60


@dataclass(frozen=True)
class Group:
    """`rows` (numbers, in order) of a group of `column`. `found`: by find_slices, not declared."""

    column: str
    name: str
    rows: np.ndarray
    found: bool = False


def groups_of(column: str, values: pd.Series, grouping: Grouping) -> list[Group]:
    """The groups of the rows with these `values` [n]: each row is in one. A declared group may be empty.

    `column`: what the groups are of, for their names. Numbers that are infinite are in the first or the last band.
    """
    known = values.notna().to_numpy()
    numbers = _numbers(values)
    if grouping.bounds is not None or (numbers is not None and grouping.values is None and _many(numbers)):
        # Text where bands are declared: no row has a number.
        given = np.full(len(values), np.nan) if numbers is None else numbers
        groups = list(_bands(column, given, grouping.bounds))
        known = ~np.isnan(given)
    else:
        groups = list(_values(column, _keys(values, numbers), known, grouping.values, numbers is not None))
    if not known.all():
        groups.append(Group(column, f"{column} is missing", np.flatnonzero(~known)))
    return groups


def _numbers(values: pd.Series) -> np.ndarray | None:
    """As float64, NaN where there is none. None: they are texts or booleans."""
    if pd.api.types.is_bool_dtype(values) or not _all_numbers(values):
        return None
    return pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _all_numbers(values: pd.Series) -> bool:
    if pd.api.types.is_numeric_dtype(values):
        return True
    # Decimals are objects.
    return pd.api.types.infer_dtype(values, skipna=True) in ("decimal", "integer", "floating", "mixed-integer-float")


def _many(numbers: np.ndarray) -> bool:
    return len(np.unique(numbers[~np.isnan(numbers)])) > MOST_VALUES


def _bands(column: str, numbers: np.ndarray, bounds: tuple[float, ...] | None) -> Iterator[Group]:
    """Without `bounds`, quarters: fewer where values are equal."""
    declared = bounds is not None
    if bounds is None:
        finite = numbers[np.isfinite(numbers)]
        bounds = tuple(np.unique(np.quantile(finite, [0.25, 0.5, 0.75])).tolist()) if len(finite) else ()
    place = np.where(np.isnan(numbers), -1, np.searchsorted(np.asarray(bounds), numbers, side="right"))
    for number in range(len(bounds) + 1):
        rows = np.flatnonzero(place == number)
        if not len(rows) and not declared:
            continue
        if not bounds:
            name = f"{column} is a number"
        elif number == 0:
            name = f"{column} < {bounds[0]:.6g}"
        elif number == len(bounds):
            name = f"{column} ≥ {bounds[-1]:.6g}"
        else:
            name = f"{bounds[number - 1]:.6g} ≤ {column} < {bounds[number]:.6g}"
        yield Group(column, name, rows)


def _keys(values: pd.Series, numbers: np.ndarray | None) -> np.ndarray:
    """What values are compared by, [n]: numbers as such, others as their text."""
    return numbers if numbers is not None else np.array([_key(value, False) for value in values], dtype=object)


def _key(value: Any, number: bool) -> Hashable:
    if number and not isinstance(value, str):
        return float(value)
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)


def _values(
    column: str, keys: np.ndarray, known: np.ndarray, declared: tuple[Any, ...] | None, number: bool
) -> Iterator[Group]:
    if declared is None:
        counts = pd.Series(keys[known]).value_counts()
        # Of equally frequent values the first in alphabetical order: the same rows always give the same groups.
        ranked = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))[:MOST_VALUES]
        chosen = [key for key, _ in ranked]
        names = [_text(key) for key in chosen]
    else:
        chosen, names = [_key(value, number) for value in declared], [_text(value) for value in declared]
    left = known.copy()
    for key, name in zip(chosen, names, strict=True):
        equal = known & (keys == key)
        left &= ~equal
        yield Group(column, f"{column} is {name}", np.flatnonzero(equal))
    if left.any():
        yield Group(column, f"{column} is another one", np.flatnonzero(left))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
