"""Two ways to score one model agree, or nothing is registered."""

import numpy as np

from training.contract.errors import StepError

#: Largest difference between native and ONNX scores: float32 sums of a few hundred trees differ by less than 1e-6,
#: a row on the wrong side of one split by more.
PARITY_TOLERANCE = 1e-4


def prove_parity(native: np.ndarray, onnx: np.ndarray) -> float:
    """The largest difference on the holdout. Raises StepError when it is above the tolerance."""
    differences = np.abs(native - onnx)
    largest = float(differences.max())
    if not largest <= PARITY_TOLERANCE:
        bad = np.flatnonzero(~(differences <= PARITY_TOLERANCE))
        raise StepError(
            f"The ONNX model scores {len(bad)} of {len(native)} holdout rows otherwise than the native one: largest "
            f"difference {largest:.2g}, tolerance {PARITY_TOLERANCE:.0e}, first rows {bad[:5].tolist()}",
            hint="Nothing was registered. Look at the export of this estimator in training/estimators/.",
        )
    return largest
