"""The plots of a training run. matplotlib draws them without a display."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

_CALIBRATION_BINS = 10


def draw(folder: Path, labels: np.ndarray, scores: np.ndarray, importance: Mapping[str, float], metric: str) -> None:
    """Write pr_curve.png, calibration.png and feature_importance.png into `folder`.

    `labels` and `scores` [n] belong to the holdout. `importance` maps each feature to the drop of `metric` when the
    feature is shuffled.
    """
    figure, axes = _figure("Precision and recall on the holdout", "recall", "precision")
    precision, recall, _ = precision_recall_curve(labels, scores)
    axes.plot(recall, precision, drawstyle="steps-post")
    axes.axhline(labels.mean(), linestyle=":", color="grey", label=f"by chance: {labels.mean():.4f}")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend()
    figure.savefig(folder / "pr_curve.png")

    figure, axes = _figure("Calibration on the holdout", "mean score", "share of positives")
    predicted, observed = _calibration(labels, scores)
    low = max(min(predicted.min(), observed[observed > 0].min(initial=1.0)), 1e-6) / 2
    axes.plot([low, 1], [low, 1], linestyle=":", color="grey", label="calibrated")
    axes.plot(predicted, np.maximum(observed, low), marker="o", label=f"{_CALIBRATION_BINS} bins of positives")
    axes.set(xscale="log", yscale="log")
    axes.legend()
    figure.savefig(folder / "calibration.png")

    figure, axes = _figure("Feature importance", f"drop of {metric} when shuffled", "")
    ranked = sorted(importance.items(), key=lambda item: item[1])
    axes.barh([name for name, _ in ranked], [value for _, value in ranked])
    figure.savefig(folder / "feature_importance.png")


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.8), dpi=110, layout="constrained")
    axes = figure.add_subplot(title=title, xlabel=x, ylabel=y)
    return figure, axes


def _calibration(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean score and share of positives per bin.

    Each bin holds the same number of positives. scikit-learn's `calibration_curve` makes bins of equal width or with
    equal numbers of rows. With rare positives, almost all positives would fall into the last of those bins.
    """
    order = np.argsort(scores, kind="stable")
    positives = np.cumsum(labels[order])
    bins = np.minimum(positives * _CALIBRATION_BINS // (positives[-1] + 1), _CALIBRATION_BINS - 1)
    rows = np.bincount(bins, minlength=_CALIBRATION_BINS)
    used = rows > 0
    predicted = np.bincount(bins, scores[order], minlength=_CALIBRATION_BINS)[used] / rows[used]
    return predicted, np.bincount(bins, labels[order], minlength=_CALIBRATION_BINS)[used] / rows[used]
