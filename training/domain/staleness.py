"""How stale a champion is: what a new model would be better by, estimated from all looks at its performance."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from training.contract.messages import Degradation

#: How fast the world may change: the standard deviation of the change in one window, in allowed drops.
SPEEDS = (0.03, 0.1, 0.3, 1.0, 3.0)


class Staleness(NamedTuple):
    """A mixture of normal distributions, one for each of SPEEDS, in units of the primary metric. Positive: worse."""

    weights: np.ndarray
    means: np.ndarray
    standard_errors: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.weights @ self.means)

    @property
    def standard_error(self) -> float:
        return float(np.sqrt(self.weights @ (self.standard_errors**2 + (self.means - self.mean) ** 2)))

    def chance_above(self, value: float) -> float:
        """The probability that the champion is staler than `value`."""
        return float(self.weights @ norm.sf(value, self.means, self.standard_errors))


def staleness(tests: Sequence[Degradation]) -> Staleness:
    """The staleness in the newest window, from the drops of n windows, one test for each look number.

    The drop in window k is the holdout's error + staleness(k) + the window's error. The holdout's error is the same in
    all windows, so a lucky holdout is not taken for staleness. Staleness is 0 at the holdout and walks at random from
    there, by a normally distributed step per window (Wiener process). That it goes on is not assumed: what the world
    does next makes the present champion and a new one worse alike. So staleness now is also the best forecast of what a
    training would save per prediction. Conditioned on the drops y, with K their covariance and c that of staleness now
    with each of them, it has mean c'K⁻¹y and variance v − c'K⁻¹c (Rasmussen & Williams, Gaussian Processes for Machine
    Learning, 2006, equations 2.25 and 2.26). The speed of the world is not known: each of SPEEDS is weighted by the
    likelihood of the drops under it (equation 2.30), so a stable past makes a single bad window say less.
    Intervals hold on average over worlds of these speeds, not in each of them.

    A test holds the standard error of both sides together: half of the smallest variance is taken for the holdout's.
    Raises ValueError without tests.
    """
    if not tests:
        raise ValueError("There is no test of performance")
    looks, drops = np.array([t.look for t in tests], dtype=float), np.array([t.drop for t in tests])
    variances = np.array([t.standard_error**2 for t in tests]) + 1e-12  # A metric without spread can be inverted too.
    common = variances.min() / 2
    newest, scale = int(np.argmax(looks)), tests[-1].allowed or tests[-1].standard_error
    found = [_given(looks, drops, variances - common, common, newest, speed * scale) for speed in SPEEDS]
    likelihoods, means, errors = (np.array(column) for column in zip(*found, strict=True))
    weights = np.exp(likelihoods - likelihoods.max())
    return Staleness(weights / weights.sum(), means, errors)


def _given(
    looks: np.ndarray, drops: np.ndarray, own: np.ndarray, common: float, newest: int, speed: float
) -> tuple[float, float, float]:
    """The log-likelihood of the drops in a world of this speed, and mean and standard error of staleness then."""
    walk = speed**2 * np.minimum.outer(looks, looks)
    covariance = common + walk + np.diag(own)
    weighted, explained = np.linalg.solve(covariance, np.column_stack([drops, walk[newest]])).T
    _, logarithm = np.linalg.slogdet(covariance)
    variance = walk[newest, newest] - walk[newest] @ explained
    return -(drops @ weighted + logarithm) / 2, walk[newest] @ weighted, float(np.sqrt(max(variance, 1e-18)))
