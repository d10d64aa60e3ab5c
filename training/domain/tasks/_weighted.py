"""Sums over rows that count more than once, or not at all."""

import numpy as np

#: Log losses are bounded as scikit-learn bounds those of float32 scores.
EPSILON = float(np.finfo(np.float32).eps)


def mean(values: np.ndarray, weights: np.ndarray) -> float:
    """The mean of `values` [n] with `weights` [n]; NaN when all weights are 0."""
    total = weights.sum()
    return float(weights @ values / total) if total else np.nan


def median(values: np.ndarray, weights: np.ndarray) -> float:
    """The median of `values` [n], each repeated `weights` [n] times (whole numbers); NaN when all weights are 0."""
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(weights[order])
    total = int(upto[-1])
    if not total:
        return np.nan
    middle = np.searchsorted(upto, [(total - 1) // 2, total // 2], side="right")
    return float(values[order][middle].mean())
