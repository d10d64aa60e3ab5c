"""Names of our columns in frames that also have the spec's columns, whose names never begin with an underscore."""

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Final

import numpy as np

#: Columns of labels: the value, and when it was reported.
LABEL: Final = "_label"
REPORTED_AT: Final = "_reported_at"
#: Whether evaluation leaves out a holdout row.
EXCLUDED: Final = "_excluded"

#: Columns of logged predictions.
PREDICTION_ID: Final = "_prediction_id"
PREDICTED_AT: Final = "_predicted_at"
DAY: Final = "_day"
VERSION: Final = "_model_version"
ROLE: Final = "_role"
FEATURE_TIMESTAMP: Final = "_feature_timestamp"
#: Lists of (name, value) for each row.
LOGGED_FEATURES: Final = "_features"
LOGGED_OUTPUTS: Final = "_outputs"


def are_finite(outputs: Iterable[Sequence[tuple[str, float | None]]]) -> np.ndarray:
    """Bool [n]: which rows of a column LOGGED_OUTPUTS can be measured: they have outputs, and all are finite."""
    found = (bool(len(row)) and all(value is not None and isfinite(value) for _, value in row) for row in outputs)
    return np.fromiter(found, dtype=bool)


def logged_outputs(outputs: Iterable[Iterable[tuple[str, float]]], names: Sequence[str]) -> np.ndarray:
    """The outputs `names` of a column LOGGED_OUTPUTS, float64 [n, len(names)]; NaN where a row lacks one."""
    rows = [dict(row) for row in outputs]
    return np.array([[row.get(name, np.nan) for name in names] for row in rows], float).reshape(len(rows), len(names))
