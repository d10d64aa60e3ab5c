"""Intervals of many estimates that hold together."""

import numpy as np


def simultaneous(estimates: np.ndarray, draws: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """The ends [m] of intervals around `estimates` [m] that all hold together with `confidence`.

    `draws` [samples, m]: the same numbers on bootstrap samples, NaN where one is not defined. Every interval is q
    standard errors wide to each side. q is the `confidence` quantile of the largest of all m deviations in a sample, in
    standard errors, so overlapping and correlated estimates cost less than by Bonferroni's inequality. Source: Romano &
    Wolf, Stepwise Multiple Testing as Formalized Data Snooping, Econometrica 73, 2005, §4.2 (the single step).
    An estimate with fewer than two draws has an infinite interval; it does not widen the others.
    """
    low, high = np.full(len(estimates), -np.inf), np.full(len(estimates), np.inf)
    usable = np.isfinite(estimates) & (np.isfinite(draws).sum(axis=0) > 1)
    if not usable.any():
        return low, high
    centre, drawn = estimates[usable], draws[:, usable]
    errors = np.nanstd(drawn, axis=0, ddof=1)
    varying = errors > 0
    deviations = np.abs(drawn[:, varying] - centre[varying]) / errors[varying]
    width = 0.0
    if varying.any():
        width = float(np.quantile(np.nan_to_num(deviations, nan=0.0).max(axis=1), confidence))
    low[usable], high[usable] = centre - width * errors, centre + width * errors
    return low, high
