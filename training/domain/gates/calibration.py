"""Calibration: do predictions mean what they say? For a regression: are labels on average what is predicted?

The expected calibration error (Naeini, Cooper & Hauskrecht, Obtaining Well Calibrated Probabilities Using Bayesian
Binning, AAAI 2015) is the mean over rows of |mean prediction − mean of what came true| of their bin. The bins hold
equal numbers of rows. Of several classes it is that of the likeliest one (Guo et al., On Calibration of Modern Neural
Networks, ICML 2017). A regression has no probabilities: its bins are bands of the prediction, and the error is the mean
bias of a band, in the unit of the label.
"""

import numpy as np

from training.contract.messages.judged_groups import CalibrationBin, CalibrationResult
from training.contract.verdict_spec import CalibrationSpec
from training.domain.charts import Chart, Line
from training.domain.gates import Gate
from training.domain.gates.scored_model import ScoredModel
from training.domain.metrics import STANDARD_ERROR_SAMPLES
from training.domain.row_measures import Calibrated

RELIABILITY = "reliability"


def judge_calibration(
    spec: CalibrationSpec, challenger: ScoredModel, champion: ScoredModel | None, seed: int
) -> tuple[CalibrationResult | None, list[Gate]]:
    """The error of both models on the same rows; a gate where the spec has a limit.

    The result is None when the kind of task has nothing to calibrate; a limit then fails.
    """
    calibrated = challenger.scored.calibrated
    if calibrated is None:
        kind = challenger.task.spec.task.kind
        missing = Gate("calibration", False, f"the calibration of the task {kind} cannot be measured")
        return None, [] if spec.maximum_error is None else [missing]
    bins = _binned(calibrated.predicted, spec.bins)
    weights = np.ones(len(bins))
    error = _error(calibrated, bins, weights)
    low, high = _interval(calibrated, bins, challenger, error, spec.confidence, seed)
    theirs = None if champion is None else champion.scored.calibrated
    result = CalibrationResult(
        of=calibrated.of,
        error=error,
        low=low,
        high=high,
        by_chance=_by_chance(calibrated, bins) if calibrated.probability else None,
        confidence=spec.confidence,
        limit=spec.maximum_error,
        champion=None if theirs is None else _error(theirs, _binned(theirs.predicted, spec.bins), weights),
        bins=[_bin(calibrated, np.flatnonzero(bins == number)) for number in np.unique(bins)],
    )
    return result, [] if spec.maximum_error is None else [_gate(result, spec.maximum_error)]


def reliability_chart(challenger: CalibrationResult, name: str, champion: ScoredModel | None, bins: int) -> Chart:
    """What was predicted against what came true, of the challenger and of the champion on the same rows."""
    curves = [Line(*_curve(challenger.bins), f"{name}: {challenger.error:.4f}", "marked")]
    theirs = None if champion is None else champion.scored.calibrated
    if theirs is not None:
        numbers = _binned(theirs.predicted, bins)
        points = [_bin(theirs, np.flatnonzero(numbers == number)) for number in np.unique(numbers)]
        curves.append(Line(*_curve(points), f"champion: {challenger.champion:.4f}", "marked"))
    ends = np.concatenate([part for line in curves for part in (line.x, line.y)])
    both = np.array([ends.min(), ends.max()])
    title = f"Reliability on the holdout: {challenger.of}"
    return Chart(
        RELIABILITY, title, "mean prediction", "what came true", (Line(both, both, "calibrated", "dotted"), *curves)
    )


def _curve(bins: list[CalibrationBin]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([each.predicted for each in bins]), np.array([each.observed for each in bins])


def _binned(predicted: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each row, [n]. Equal predictions are in one bin, so there may be fewer."""
    edges = np.unique(np.quantile(predicted, np.arange(1, bins) / bins))
    return np.searchsorted(edges, predicted, side="right")


def _error(calibrated: Calibrated, bins: np.ndarray, weights: np.ndarray) -> float:
    """Σ over bins of |Σ weight · (predicted − observed)| / Σ weights. NaN when all weights are 0."""
    total = weights.sum()
    beyond = np.bincount(bins, weights * (calibrated.predicted - calibrated.observed))
    return float(np.abs(beyond).sum() / total) if total else np.nan


def _interval(
    calibrated: Calibrated, bins: np.ndarray, model: ScoredModel, error: float, confidence: float, seed: int
) -> tuple[float | None, float | None]:
    """The basic bootstrap interval (Davison & Hinkley, Bootstrap Methods and their Application, §5.2), not below 0.

    An error of samples is above that of the rows, as that of the rows is above the true one; the basic interval
    reflects it. None when nothing can be drawn.
    """
    clusters = model.scored.truth.clusters
    if not clusters.count:
        return None, None
    random, tail = np.random.default_rng(seed), (1 - confidence) / 2
    draws = [_error(calibrated, bins, clusters.draw(random).entity_weights) for _ in range(STANDARD_ERROR_SAMPLES)]
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return max(0.0, float(2 * error - high)), max(0.0, float(2 * error - low))


def _by_chance(calibrated: Calibrated, bins: np.ndarray) -> float:
    """The expected error if every label came true with its predicted probability: by the normal approximation, the mean
    of |Z| is √(2/π) standard deviations."""
    variances = np.bincount(bins, calibrated.predicted * (1 - calibrated.predicted))
    return float(np.sqrt(2 / np.pi * np.maximum(variances, 0)).sum() / len(bins))


def _bin(calibrated: Calibrated, rows: np.ndarray) -> CalibrationBin:
    inside = None if calibrated.inside is None else float(calibrated.inside[rows].mean())
    predicted, observed = (float(each[rows].mean()) for each in (calibrated.predicted, calibrated.observed))
    return CalibrationBin(rows=len(rows), predicted=predicted, observed=observed, inside=inside)


def _gate(result: CalibrationResult, limit: float) -> Gate:
    interval = "unknown" if result.low is None else f"[{result.low:.4f}, {result.high:.4f}]"
    sentence = (
        f"the expected calibration error of {result.of} {result.error:.4f} must be at most {limit:.4f}: interval "
        f"{interval} at {result.confidence:.0%}, in {len(result.bins)} bins"
    )
    if result.by_chance is not None:
        sentence += f"; perfectly calibrated, it would be {result.by_chance:.4f} by chance"
    if result.champion is not None:
        sentence += f"; the champion's is {result.champion:.4f}"
    return Gate("calibration", result.error <= limit, sentence)
