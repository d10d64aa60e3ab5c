"""Check that the native model and its ONNX export compute the same outputs before anything is registered."""

from collections.abc import Sequence

import numpy as np

from training.contract.errors import StepError
from training.contract.feature_definitions import FeatureColumn
from training.contract.names import Target

#: The largest allowed difference between native and ONNX probabilities. Rounding in a few hundred trees causes less
#: than 1e-6. A row that takes the wrong branch of a split causes more.
PARITY_TOLERANCE = 1e-4


def tolerance(outputs: np.ndarray, target: Target) -> float:
    """The largest allowed difference of `outputs`.

    For numbers, PARITY_TOLERANCE counts standard deviations of the outputs. Large numbers that hardly differ need more:
    a sum of several hundred float32 numbers has a relative error of up to 1e-5.
    """
    if target != "number":
        return PARITY_TOLERANCE
    return float(PARITY_TOLERANCE * outputs.std() + 1e-5 * np.abs(outputs).max(initial=0.0))


def largest_tolerance(extremes: np.ndarray, target: Target) -> float:
    """The most that `tolerance` can be for outputs between those in `extremes`.

    A standard deviation is at most half of the range (Popoviciu's inequality).
    """
    if target != "number":
        return PARITY_TOLERANCE
    return float(PARITY_TOLERANCE * np.ptp(extremes) / 2 + 1e-5 * np.abs(extremes).max(initial=0.0))


def made_rows(features: np.ndarray, columns: Sequence[FeatureColumn]) -> np.ndarray:
    """Up to 1,000 of the rows [n, d], with missing values and categories that are not in the lists where they may be.

    No rows when no column may be missing.
    """
    if not any(column.may_be_missing for column in columns):
        return features[:0]
    made = features[:1000].copy()
    for i, column in enumerate(columns):
        if column.may_be_missing:
            made[i % 3 :: 3, i] = np.nan
        if column.categories is not None:
            made[(i + 1) % 3 :: 3, i] = len(column.categories)
    return made


def prove_parity(native: np.ndarray, onnx: np.ndarray, target: Target = "binary") -> float:
    """The largest difference of the outputs [n] or [n, k]. Raises StepError when it is too large or not a number."""
    differences = np.abs(native - onnx).reshape(len(native), -1).max(axis=1)
    allowed = tolerance(native, target)
    largest = float(differences.max())
    if not largest <= allowed:
        bad = np.flatnonzero(~(differences <= allowed))
        raise StepError(
            f"The ONNX model gives {len(bad)} of {len(native)} rows other outputs than the native model: "
            f"largest difference {largest:.2g}, tolerance {allowed:.2g}, first rows {bad[:5].tolist()}",
            hint="Nothing was registered. Check the export of this estimator in training/estimators/.",
        )
    return largest
