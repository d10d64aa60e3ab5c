"""From named columns to the one float32 matrix that models get.

A number stays a number, NaN where it is missing. True and false are 1 and 0. A category is its place in the column's
list of categories; the length of the list stands for a category that is not in it, NaN for a missing one.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from training.contract.feature_definitions import FeatureColumn


def most_frequent(values: Iterable[object], maximum: int) -> tuple[str, ...]:
    """The categories of a column: its `maximum` most frequent texts, those of equal frequency in alphabetical order."""
    counts = Counter(value for value in values if isinstance(value, str))
    return tuple(sorted(counts, key=lambda text: (-counts[text], text))[:maximum])


class Categories:
    """The codes of one column's categories."""

    def __init__(self, names: Sequence[str]) -> None:
        self._codes: dict[object, float] = {name: float(code) for code, name in enumerate(names)}
        self._unseen = float(len(names))

    def codes(self, values: Iterable[object]) -> np.ndarray:
        """float32 [n] of texts [n]. What is not a text, such as None, is missing."""
        codes, unseen, nan = self._codes, self._unseen, float("nan")
        return np.array([codes.get(v, unseen) if isinstance(v, str) else nan for v in values], np.float32)


def encoded(values: Mapping[str, np.ndarray], columns: Sequence[FeatureColumn]) -> np.ndarray:
    """The matrix float32 [n, d] of d columns, made of named values [n]: numbers, booleans or texts."""
    rows = len(next(iter(values.values()))) if values else 0
    matrix = np.empty((rows, len(columns)), np.float32)
    for i, column in enumerate(columns):
        found = values[column.name]
        matrix[:, i] = found if column.categories is None else Categories(column.categories).codes(found)
    return matrix
