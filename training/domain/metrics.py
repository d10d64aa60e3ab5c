"""Ranking quality of scores: ROC AUC, average precision, card precision@k; each also under resampled entities.

A bootstrap sample that draws entities with replacement is a whole number of copies per entity. Rows therefore carry
weights, the scores are sorted once, and every sample costs a few cumulative sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from training.contract.errors import DataContractError
from training.contract.messages import Metrics
from training.contract.model_spec import Metric

Rows: TypeAlias = Sequence[Any] | np.ndarray | pd.Series


@dataclass(frozen=True)
class Truth:
    """What came true of n rows: `labels` 0 or 1, `entities` and `days` numbered from 0, each [n]."""

    labels: np.ndarray
    entities: np.ndarray
    days: np.ndarray

    @classmethod
    def of(cls, labels: Rows, entities: Rows, days: Rows) -> "Truth":
        """From anything with an order. Raises DataContractError unless both labels occur: no metric is defined then."""
        values = np.asarray(labels).astype(np.int64)
        positives = int(values.sum())
        if positives in (0, len(values)):
            problem = f"{positives} of {len(values)} rows to measure on are positive: nothing can be ranked"
            raise DataContractError(problem, hint="Measure on a longer window.")
        return cls(values, _numbered(entities), _numbered(days))

    @cached_property
    def entity_count(self) -> int:
        return int(self.entities.max()) + 1

    @cached_property
    def one_each(self) -> np.ndarray:
        """Every entity counted once: the sample that is the data itself."""
        return np.ones(self.entity_count, dtype=np.int64)


class Ranking:
    """Rows of `truth` ranked by `scores` [n]. Methods take copies per entity [entity_count]; None: one of each."""

    def __init__(self, truth: Truth, scores: np.ndarray, k: int) -> None:
        self._truth, self._scores, self._k = truth, np.asarray(scores), k
        if self._scores.shape != truth.labels.shape or not np.isfinite(self._scores).all():
            problem = f"Scores of shape {self._scores.shape} for {len(truth.labels)} rows, or scores not finite"
            raise DataContractError(problem, hint="Score every row, with a model whose golden rows hold.")
        order = np.argsort(-self._scores, kind="stable")
        self._entities, self._labels = truth.entities[order], truth.labels[order]
        ranked = self._scores[order]
        # Rows of equal score are one threshold: its last row.
        self._thresholds = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)

    def measure(self) -> Metrics:
        """All metrics on the data as it is."""
        return {metric: self.value(metric) for metric in ("roc_auc", "average_precision", "card_precision_at_k")}

    def value(self, metric: Metric, copies: np.ndarray | None = None) -> float:
        """One metric; NaN when a sample holds no positive or no negative row."""
        return float(getattr(self, metric)(self._truth.one_each if copies is None else copies))

    def roc_auc(self, copies: np.ndarray) -> float:
        """Area under the ROC curve by the trapezoidal rule, ties shared (as scikit-learn's roc_auc_score)."""
        true, all_ = self._counts(copies)
        false = all_ - true
        if not (true[-1] and false[-1]):
            return np.nan
        tpr, fpr = np.append(0, true / true[-1]), np.append(0, false / false[-1])
        return float(np.trapezoid(tpr, fpr))

    def average_precision(self, copies: np.ndarray) -> float:
        """Σ (recallₙ − recallₙ₋₁) · precisionₙ over the thresholds (as scikit-learn's average_precision_score)."""
        true, all_ = self._counts(copies)
        if not true[-1]:
            return np.nan
        precision = np.divide(true, all_, out=np.zeros(len(true)), where=all_ > 0)
        return float(np.diff(true, prepend=0) @ precision / true[-1])

    def card_precision_at_k(self, copies: np.ndarray) -> float:
        """Mean over days of the share of frauds among the k cards (entities) of highest score.

        A card's score and label are its highest of the day; a card detected on an earlier day is not looked at again.
        After the Fraud Detection Handbook, chapter 4, "Precision top-k metrics". A card with c copies counts c times.
        """
        detected = np.zeros(self._truth.entity_count, dtype=bool)
        precisions = []
        for cards, fraud in self._cards_by_day:
            counts = np.where(detected[cards], 0, copies[cards])
            before = np.cumsum(counts) - counts
            checked = np.clip(self._k - before, 0, counts)
            precisions.append(checked @ fraud / self._k)
            detected[cards[(checked > 0) & (fraud == 1)]] = True
        return float(np.mean(precisions))

    def _counts(self, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positive rows and all rows at or above each threshold."""
        weights = copies[self._entities]
        return np.cumsum(weights * self._labels)[self._thresholds], np.cumsum(weights)[self._thresholds]

    @cached_property
    def _cards_by_day(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per day the entities by falling score, ties in entity order, with their labels."""
        rows = pd.DataFrame(
            {
                "day": self._truth.days,
                "entity": self._truth.entities,
                "score": self._scores,
                "label": self._truth.labels,
            }
        )
        cards = rows.groupby(["day", "entity"], as_index=False).max()
        cards = cards.sort_values(["day", "score", "entity"], ascending=[True, False, True])
        return [(day["entity"].to_numpy(), day["label"].to_numpy()) for _, day in cards.groupby("day")]


def _numbered(values: Rows) -> np.ndarray:
    return pd.factorize(pd.Series(values), sort=True)[0]


def measure(labels: Rows, scores: np.ndarray, entities: Rows, days: Rows, k: int) -> Metrics:
    """All metrics of `scores` on rows with these labels, entities and days, each [n].

    Raises DataContractError when only one label occurs or a score is not finite.
    """
    return Ranking(Truth.of(labels, entities, days), scores, k).measure()


def paired_differences(
    challenger: Ranking, champion: Ranking, truth: Truth, metric: Metric, samples: int, seed: int
) -> np.ndarray:
    """Challenger minus champion in `metric` on bootstrap samples [≤ samples], both on the same sample each time.

    Whole entities are drawn with replacement (the cluster bootstrap: Davison & Hinkley, Bootstrap Methods and their
    Application, §3.8), for rows of one card are not independent. Samples without a positive row are left out.
    """
    random = np.random.default_rng(seed)
    count = truth.entity_count
    differences = np.empty(samples)
    for i in range(samples):
        copies = np.bincount(random.integers(count, size=count), minlength=count)
        differences[i] = challenger.value(metric, copies) - champion.value(metric, copies)
    return differences[np.isfinite(differences)]


def threshold_at(scores: np.ndarray, alert_rate: float) -> float:
    """The score at or above which at most the share `alert_rate` of `scores` lies, and at least one row does."""
    ranked = np.sort(scores)[::-1]
    allowed = max(1, int(alert_rate * len(ranked)))
    candidate = ranked[allowed - 1]
    if np.count_nonzero(scores >= candidate) <= allowed:
        return float(candidate)
    # A tie at the border: flag only what lies above it, unless that is nothing.
    above = ranked[ranked > candidate]
    return float(above[-1]) if len(above) else float(candidate)
