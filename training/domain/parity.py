"""Check that the native model and its ONNX export give the same scores before anything is registered."""

import numpy as np

from training.contract.errors import StepError

#: The largest allowed difference between native and ONNX scores. Rounding in a few hundred trees causes less than 1e-6.
#: A row that takes the wrong branch of a split causes more.
PARITY_TOLERANCE = 1e-4


def prove_parity(native: np.ndarray, onnx: np.ndarray) -> float:
    """The largest difference on the holdout. Raises StepError when it is above the tolerance or not a number."""
    differences = np.abs(native - onnx)
    largest = float(differences.max())
    if not largest <= PARITY_TOLERANCE:
        bad = np.flatnonzero(~(differences <= PARITY_TOLERANCE))
        raise StepError(
            f"The ONNX model gives {len(bad)} of {len(native)} holdout rows other scores than the native model: "
            f"largest difference {largest:.2g}, tolerance {PARITY_TOLERANCE:.0e}, first rows {bad[:5].tolist()}",
            hint="Nothing was registered. Check the export of this estimator in training/estimators/.",
        )
    return largest
