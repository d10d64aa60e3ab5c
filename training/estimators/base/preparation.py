"""What happens to the matrix of features inside a model's graph: missing numbers are filled, categories are spread.

A model that never gets a missing value or a category takes the matrix as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.contract.artifact import ONNX_INPUT
from training.contract.feature_definitions import FeatureColumn
from training.estimators.base.data import TrainingData


@dataclass(frozen=True)
class Preparation:
    """From features [n, d] to the prepared matrix [n, width]: numbers, indicators, and one group per category column.

    - A number that is missing becomes the mean of the training rows. A column that had missing values there also gets
      an indicator: 1 where the value is missing, else 0. With `keep_missing`, such a column keeps its NaN instead. A
      column without any value there is filled with 0.
    - A category column with c categories has c + 2 codes: those of the categories, c for another category, c + 1 for a
      missing value. With `one_hot` it becomes c + 2 columns of 0 and 1, of which one is 1. Without, it becomes one
      column with the code, plus the number of codes of the category columns before it.
    """

    #: Places of the number columns among the features, and what a missing value of each becomes (NaN: it stays).
    numbers: np.ndarray
    fill: np.ndarray
    #: Places of the number columns with an indicator.
    indicators: np.ndarray
    #: Places of the category columns, and the code c + 1 of each.
    categories: np.ndarray
    missing_codes: np.ndarray
    one_hot: bool
    #: Whether the prepared matrix is another one than the features.
    changes: bool
    #: Whether the prepared matrix may hold NaN.
    has_missing: bool

    @classmethod
    def of(cls, data: TrainingData, *, keep_missing: bool = False, one_hot: bool = True) -> "Preparation":
        """`keep_missing`: the model takes NaN in columns that had missing values in the training rows."""
        categories = [i for i, column in enumerate(data.columns) if column.categories is not None]
        numbers = [i for i, column in enumerate(data.columns) if column.categories is None]
        optional = np.array([data.columns[i].may_be_missing for i in numbers], bool)
        values = data.features[:, numbers]
        missing = np.isnan(values)
        had_missing = missing.any(axis=0)
        counts = len(values) - missing.sum(axis=0)
        sums = np.where(missing, 0, values).sum(axis=0, dtype=np.float64)
        fill = np.where(optional, np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0), np.nan)
        if keep_missing:
            # Not where all values were missing: some models need a value to learn from.
            fill[had_missing & (counts > 0)] = np.nan
        indicated = [] if keep_missing else [number for number, had in zip(numbers, had_missing, strict=True) if had]
        return cls(
            np.array(numbers, np.int64),
            fill.astype(np.float32),
            np.array(indicated, np.int64),
            np.array(categories, np.int64),
            np.array([_size(data.columns, i) + 1 for i in categories], np.float32),
            one_hot,
            bool(categories or indicated or not np.isnan(fill).all()),
            bool(keep_missing and (had_missing & (counts > 0)).any()),
        )

    @property
    def codes(self) -> int:
        """The number of codes of all category columns."""
        return int(self.missing_codes.sum()) + len(self.missing_codes)

    @property
    def plain(self) -> int:
        """The number of columns that are numbers or indicators. They come first."""
        return len(self.numbers) + len(self.indicators)

    @property
    def width(self) -> int:
        return self.plain + (self.codes if self.one_hot else len(self.categories))

    @property
    def output(self) -> str:
        """The name of the prepared matrix in the graph."""
        return "prepared" if self.changes else ONNX_INPUT

    def apply(self, features: np.ndarray) -> np.ndarray:
        """The prepared matrix, float32 [n, width]."""
        if not self.changes:
            return features
        values, codes = features[:, self.numbers], features[:, self.categories]
        parts = [np.where(np.isnan(values), self.fill, values), np.isnan(features[:, self.indicators])]
        codes = np.where(np.isnan(codes), self.missing_codes, codes)
        if self.one_hot:
            column, code = self._spread()
            parts.append(codes[:, column] == code)
        else:
            parts.append(codes + self._offsets())
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def graph(self) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Nodes from the features to `output`, and their constants."""
        if not self.changes:
            return [], []
        made = _Nodes()
        parts = []
        if len(self.numbers):
            values = made.columns(self.numbers, "number")
            missing = made.add("IsNaN", values)
            parts.append(made.add("Where", missing, made.constant("fill", self.fill), values))
        if len(self.indicators):
            missing = made.add("IsNaN", made.columns(self.indicators, "indicator"))
            parts.append(made.add("Cast", missing, to=TensorProto.FLOAT))
        if len(self.categories):
            column, code = self._spread() if self.one_hot else (np.arange(len(self.categories)), self._offsets())
            codes = made.columns(self.categories[column], "category")
            missing = made.add("IsNaN", codes)
            codes = made.add("Where", missing, made.constant("missing_code", self.missing_codes[column]), codes)
            if self.one_hot:
                equal = made.add("Equal", codes, made.constant("code", code))
                parts.append(made.add("Cast", equal, to=TensorProto.FLOAT))
            else:
                parts.append(made.add("Add", codes, made.constant("offset", code)))
        made.nodes.append(helper.make_node("Concat", parts, [self.output], axis=1))
        return made.nodes, made.constants

    def _spread(self) -> tuple[np.ndarray, np.ndarray]:
        """For each of the one-hot columns, the category column (counted among these) and the code."""
        sizes = self.missing_codes.astype(np.int64) + 1
        codes = [np.arange(size, dtype=np.float32) for size in sizes]
        return np.repeat(np.arange(len(sizes)), sizes), np.concatenate([np.empty(0, np.float32), *codes])

    def _offsets(self) -> np.ndarray:
        return (np.cumsum(self.missing_codes + 1) - self.missing_codes - 1).astype(np.float32)


class _Nodes:
    """Nodes under construction. Each node's output has a name that no converter uses."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"preparation_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, name: str, values: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(values, f"preparation_{name}"))
        return f"preparation_{name}"

    def columns(self, places: np.ndarray, name: str) -> str:
        """These columns of the features."""
        return self.add("Gather", ONNX_INPUT, self.constant(f"{name}_places", places), axis=1)


def _size(columns: Sequence[FeatureColumn], place: int) -> int:
    return len(columns[place].categories or ())
