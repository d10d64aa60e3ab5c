"""Ranking quality of scores: ROC AUC, average precision and card precision@k, also on bootstrap samples.

A bootstrap sample has a weight for each row: how often the row was drawn (domain/resampling.py). So the scores are
sorted only once, and each sample takes a few cumulative sums.
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
from training.domain.resampling import Clusters, Sample, clusters_of

Rows: TypeAlias = Sequence[Any] | np.ndarray | pd.Series


@dataclass(frozen=True)
class EvaluationSet:
    """The outcomes of n rows: `labels` 0 or 1, `entities` and `days` numbered from 0, `hours` since 1970, each [n].

    Each row without an entity (null) counts as a different entity.
    """

    labels: np.ndarray
    entities: np.ndarray
    days: np.ndarray
    hours: np.ndarray | None = None

    @classmethod
    def of(cls, labels: Rows, entities: Rows, days: Rows, times: Rows | None = None) -> "EvaluationSet":
        """Make one from columns of equal length. `times` are the times of the rows; without a zone they are UTC.

        Raises DataContractError unless both labels occur, because no metric is defined otherwise.
        """
        values = np.asarray(labels).astype(np.int64)
        positives = int(values.sum())
        if positives in (0, len(values)):
            problem = f"{positives} of the {len(values)} evaluation rows are positive, so no metric is defined"
            raise DataContractError(problem, hint="Evaluate on a longer window.")
        return cls(values, _numbered(entities), _numbered(days), None if times is None else _hours(times))

    @cached_property
    def entity_count(self) -> int:
        return int(self.entities.max()) + 1

    @cached_property
    def clusters(self) -> Clusters:
        """The clusters that a bootstrap of these rows draws."""
        return clusters_of(self.entities, self.days, self.hours)


class Ranking:
    """The rows of `truth` ranked by `scores` [n]. Metrics are computed on all rows or on a bootstrap sample.

    Raises DataContractError when there is not one finite score per row.
    """

    def __init__(self, truth: EvaluationSet, scores: np.ndarray, k: int) -> None:
        self._truth, self._scores, self._k = truth, np.asarray(scores), k
        if self._scores.shape != truth.labels.shape or not np.isfinite(self._scores).all():
            problem = f"The scores have shape {self._scores.shape} for {len(truth.labels)} rows, or are not all finite"
            raise DataContractError(problem, hint="Score every row, with a model that reproduces its golden rows.")
        self._order = np.argsort(-self._scores, kind="stable")
        self._labels = truth.labels[self._order]
        ranked = self._scores[self._order]
        # Rows with equal scores have one threshold, at the last of these rows.
        self._thresholds = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)

    def measure(self) -> Metrics:
        """All metrics on all rows."""
        return {metric: self.value(metric) for metric in ("roc_auc", "average_precision", "card_precision_at_k")}

    def value(self, metric: Metric, sample: Sample | None = None) -> float:
        """One metric; NaN when a sample has no positive or no negative row."""
        return float(getattr(self, metric)(sample or Sample(np.ones(len(self._labels), dtype=np.int64))))

    def roc_auc(self, sample: Sample) -> float:
        """Area under the ROC curve by the trapezoidal rule, as scikit-learn's roc_auc_score."""
        true, all_ = self._counts(sample)
        false = all_ - true
        if not (true[-1] and false[-1]):
            return np.nan
        tpr, fpr = np.append(0, true / true[-1]), np.append(0, false / false[-1])
        return float(np.trapezoid(tpr, fpr))

    def average_precision(self, sample: Sample) -> float:
        """Σ (recallₙ − recallₙ₋₁) · precisionₙ over the thresholds, as scikit-learn's average_precision_score."""
        true, all_ = self._counts(sample)
        if not true[-1]:
            return np.nan
        precision = np.divide(true, all_, out=np.zeros(len(true)), where=all_ > 0)
        return float(np.diff(true, prepend=0) @ precision / true[-1])

    def card_precision_at_k(self, sample: Sample) -> float:
        """Mean over days of the share of frauds among the k cards (entities) with the highest scores.

        The score and the label of a card on a day are the highest of its rows. A card that was detected on an earlier
        day is left out. Source: Fraud Detection Handbook, chapter 4, "Precision top-k metrics". In a sample, a card
        counts as often as its highest row was drawn. When blocks of time were drawn, a day that was drawn c times has
        c · k places.
        """
        detected = np.zeros(self._truth.entity_count, dtype=bool)
        found = places = 0.0
        for cards, fraud, rows in self._cards_by_day:
            entity_weights = sample.entity_weights[rows]
            k = self._k * float(entity_weights.mean()) if sample.by_time else self._k
            counts = np.where(detected[cards], 0, entity_weights)
            before = np.cumsum(counts) - counts
            checked = np.clip(k - before, 0, counts)
            found, places = found + float(checked @ fraud), places + k
            detected[cards[(checked > 0) & (fraud == 1)]] = True
        return found / places if places else np.nan

    def _counts(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """Positive rows and all rows at or above each threshold."""
        entity_weights = sample.entity_weights[self._order]
        return np.cumsum(entity_weights * self._labels)[self._thresholds], np.cumsum(entity_weights)[self._thresholds]

    @cached_property
    def _cards_by_day(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For each day: entities by descending score (ties by entity), their labels, and their highest rows."""
        rows = pd.DataFrame(
            {
                "day": self._truth.days,
                "entity": self._truth.entities,
                "score": self._scores,
                "label": self._truth.labels,
                "row": np.arange(len(self._scores)),
            }
        )
        rows["label"] = rows.groupby(["day", "entity"])["label"].transform("max")
        rows = rows.sort_values(["day", "score", "entity", "row"], ascending=[True, False, True, True])
        cards = rows.drop_duplicates(["day", "entity"])
        columns = ("entity", "label", "row")
        return [tuple(day[name].to_numpy() for name in columns) for _, day in cards.groupby("day")]  # type: ignore[misc]


def _numbered(values: Rows) -> np.ndarray:
    """Number the distinct values from 0 in their order. Each null gets a number that no other row has."""
    numbers, distinct = pd.factorize(pd.Series(values), sort=True)
    null = numbers < 0
    return np.where(null, len(distinct) + np.cumsum(null) - 1, numbers)


def _hours(times: Rows) -> np.ndarray:
    moments = pd.to_datetime(pd.Series(times), utc=True).dt.tz_localize(None)
    return moments.to_numpy().astype("datetime64[h]").astype(np.int64)


def measure(labels: Rows, scores: np.ndarray, entities: Rows, days: Rows, k: int) -> Metrics:
    """All metrics of `scores` for rows with these labels, entities and days, each [n].

    Raises DataContractError when only one label occurs or a score is not finite.
    """
    return Ranking(EvaluationSet.of(labels, entities, days), scores, k).measure()


def paired_differences(
    challenger: Ranking, champion: Ranking, truth: EvaluationSet, metric: Metric, samples: int, seed: int
) -> np.ndarray:
    """Challenger minus champion in `metric` on bootstrap samples [≤ samples]. Each sample is used for both.

    `truth.clusters` are drawn with replacement: whole entities (the cluster bootstrap: Davison & Hinkley, Bootstrap
    Methods and their Application, §3.8) or blocks of time. Samples in which the metric is not defined are left out. The
    result is empty when nothing can be drawn.
    """
    if not truth.clusters.count:
        return np.empty(0)
    random = np.random.default_rng(seed)
    differences = np.empty(samples)
    for i in range(samples):
        sample = truth.clusters.draw(random)
        differences[i] = challenger.value(metric, sample) - champion.value(metric, sample)
    return differences[np.isfinite(differences)]


def threshold_at(scores: np.ndarray, alert_rate: float) -> float:
    """The lowest threshold at which at most the share `alert_rate` of `scores`, and at least one score, is flagged.

    Scores at or above the threshold are flagged. When many scores tie at the top, the share may be higher.
    """
    ranked = np.sort(scores)[::-1]
    allowed = max(1, int(alert_rate * len(ranked)))
    candidate = ranked[allowed - 1]
    if np.count_nonzero(scores >= candidate) <= allowed:
        return float(candidate)
    # Several scores are equal to the candidate. Flag only the higher ones, if there are any.
    above = ranked[ranked > candidate]
    return float(above[-1]) if len(above) else float(candidate)
