"""What an estimator learns from, and which data no model can be fitted on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.contract.errors import DataContractError
from training.contract.feature_definitions import FeatureColumn
from training.contract.names import Target


@dataclass(frozen=True)
class TrainingData:
    """Rows in time order: the encoded matrix of features, and what to learn.

    A number that is missing is NaN. A category is its place in the column's list, the length of the list for a category
    that is not in it, and NaN when it is missing.
    """

    #: float32 [n, d]. Never infinite.
    features: np.ndarray
    #: [n]. For the target `binary` int64 0 and 1, for `classes` int64 0 … k−1, for `number` float64.
    labels: np.ndarray
    #: One per column of `features`.
    columns: tuple[FeatureColumn, ...]
    target: Target

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def classes(self) -> int:
        """The number of classes: 2 for `binary`. All of them occur in the labels."""
        return int(self.labels.max()) + 1

    def first(self, rows: int) -> "TrainingData":
        """The first `rows` rows."""
        return replace(self, features=self.features[:rows], labels=self.labels[:rows])

    def some(self, rows: np.ndarray) -> "TrainingData":
        """Only `rows` (numbers), in that order."""
        return replace(self, features=self.features[rows], labels=self.labels[rows])

    def check(self) -> None:
        """Raises DataContractError for data that no model can be fitted on.

        There must be rows, features in their range, a feature that varies, and labels that suit the target and vary.
        """
        if not len(self.labels):
            raise DataContractError("There are no training rows", hint="Train on a longer window.")
        check_features(self.features, self.columns)
        _check_labels(self.labels, self.target)
        first = self.features[0]
        if ((self.features == first) | (np.isnan(self.features) & np.isnan(first))).all():
            problem = f"No feature varies over the {len(self.labels)} training rows: {', '.join(self.names)}"
            raise DataContractError(problem, hint="Check the features step: all values may be defaults.")


def number_columns(names: Sequence[str]) -> tuple[FeatureColumn, ...]:
    """Columns of numbers that are never missing."""
    return tuple(FeatureColumn(name=name) for name in names)


def check_features(features: np.ndarray, columns: Sequence[FeatureColumn]) -> None:
    """Raises DataContractError with the names of the columns that have values which a model may not get.

    No value is infinite, and only a column that may be missing has NaN.
    """
    may_be_missing = np.array([column.may_be_missing for column in columns], bool)
    bad = ~np.isfinite(features) & ~(np.isnan(features) & may_be_missing)
    if bad.any():
        counts = zip(columns, bad.sum(axis=0), strict=True)
        named = ", ".join(f"{column.name} ({count} rows)" for column, count in counts if count)
        raise DataContractError(f"Features are not finite: {named}", hint="Give these features a default value.")


def _check_labels(labels: np.ndarray, target: Target) -> None:
    found = np.unique(labels)
    if target == "number":
        if not np.isfinite(found).all():
            raise DataContractError("Labels are not finite", hint="Correct the label column.")
        if len(found) < 2:
            problem = f"All {len(labels)} training rows have the label {found[0]:g}"
            raise DataContractError(problem, hint="Train on a longer window, or correct the label column.")
        return
    expected = np.arange(2 if target == "binary" else max(len(found), 2))
    if np.array_equal(found, expected):
        return
    values = ", ".join(f"{value:g}" for value in found[:5]) + (", …" if len(found) > 5 else "")
    rule = "0 and 1 and both must occur" if target == "binary" else "0, 1, … k-1 and all must occur"
    problem = f"Labels must be {rule}; the {len(labels)} training rows have {values}"
    raise DataContractError(problem, hint="Train on a longer window, or correct the label column.")
