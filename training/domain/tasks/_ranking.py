"""How well scores rank positive rows above negative ones, on weighted rows.

The rows are sorted once; each bootstrap sample then takes a few cumulative sums.
"""

import numpy as np

from training.domain.charts import Line


class Ranked:
    """Rows with `labels` 0 and 1 [n], ranked by `scores` [n]. Weights [n] say how often each row counts."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray) -> None:
        self._order = np.argsort(-scores, kind="stable")
        self._labels = labels[self._order]
        ranked = scores[self._order]
        # Rows with equal scores have one threshold, at the last of these rows.
        self._thresholds = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)

    def roc_auc(self, weights: np.ndarray) -> float:
        """Area under the ROC curve by the trapezoidal rule. NaN unless there are positive and negative rows."""
        true, all_ = self.counts(weights)
        false = all_ - true
        if not (true[-1] and false[-1]):
            return np.nan
        tpr, fpr = np.append(0, true / true[-1]), np.append(0, false / false[-1])
        return float(np.trapezoid(tpr, fpr))

    def average_precision(self, weights: np.ndarray) -> float:
        """Σ (recallₙ − recallₙ₋₁) · precisionₙ over the thresholds. NaN without positive rows."""
        true, all_ = self.counts(weights)
        if not true[-1]:
            return np.nan
        precision = np.divide(true, all_, out=np.zeros(len(true)), where=all_ > 0)
        return float(np.diff(true, prepend=0) @ precision / true[-1])

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positive rows and all rows at or above each threshold, from the highest to the lowest."""
        ranked = weights[self._order]
        return np.cumsum(ranked * self._labels)[self._thresholds], np.cumsum(ranked)[self._thresholds]

    def precision_recall(self) -> Line:
        true, all_ = self.counts(np.ones(len(self._labels)))
        return Line(np.append(0, true / true[-1]), np.append(true[0] / all_[0], true / all_), style="steps")

    def roc(self, label: str = "") -> Line:
        true, all_ = self.counts(np.ones(len(self._labels)))
        false = all_ - true
        return Line(np.append(0, false / false[-1]), np.append(0, true / true[-1]), label)


def explained(labels: np.ndarray, scores: np.ndarray) -> float:
    """How much of `labels`, 0 and 1, the ranking by `scores` explains: 2 · AUC − 1, which is 1 when it is perfect and 0
    when it is chance (Somers' D). NaN unless there are both labels."""
    return 2 * Ranked(labels, scores).roc_auc(np.ones(len(labels))) - 1


def calibration(labels: np.ndarray, scores: np.ndarray, bins: int) -> Line:
    """Mean score and share of positives in bins that hold the same number of positives.

    Bins of equal width, or with equal numbers of rows, would put almost all rare positives into the last bin.
    """
    order = np.argsort(scores, kind="stable")
    positives = np.cumsum(labels[order])
    numbers = np.minimum(positives * bins // (positives[-1] + 1), bins - 1)
    rows = np.bincount(numbers, minlength=bins)
    used = rows > 0
    predicted = np.bincount(numbers, scores[order], minlength=bins)[used] / rows[used]
    observed = np.bincount(numbers, labels[order], minlength=bins)[used] / rows[used]
    low = max(min(predicted.min(), observed[observed > 0].min(initial=1.0)), 1e-6) / 2
    return Line(predicted, np.maximum(observed, low), f"{bins} bins of positives", "marked")
