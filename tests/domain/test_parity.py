"""Parity: how far two ways to score may differ, and what is said when they do."""

import numpy as np
import pytest

from training.contract.errors import StepError
from training.domain.parity import prove_parity


def test_disparity_names_rows_and_the_largest_difference() -> None:
    native = np.full(1000, 0.5)
    onnx = native.copy()
    onnx[[17, 400]] = 0.5002, 0.51
    with pytest.raises(StepError, match=r"2 of 1000 rows.*0\.01.*\[17, 400\]"):
        prove_parity(native, onnx)
    assert prove_parity(native, native + 1e-6) == pytest.approx(1e-6, rel=0.1)
    with pytest.raises(StepError, match="other outputs"):
        prove_parity(native, np.full(1000, np.nan))
