"""Ranking quality of scores: ROC AUC, average precision, card precision@k; each also on bootstrap samples.

A bootstrap sample is a whole number of copies of each row (domain/resampling.py). Rows therefore carry weights, the
scores are sorted once, and every sample costs a few cumulative sums.
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
    """What came true of n rows: `labels` 0 or 1, `entities` and `days` numbered from 0, `hours` since 1970, each [n].

    A row without an entity (null) is an entity of its own: nothing says that two of them are the same.
    """

    labels: np.ndarray
    entities: np.ndarray
    days: np.ndarray
    hours: np.ndarray | None = None

    @classmethod
    def of(cls, labels: Rows, entities: Rows, days: Rows, times: Rows | None = None) -> "EvaluationSet":
        """From anything with an order; `times` are the rows' moments, datetimes in UTC where they have no zone.

        Raises DataContractError unless both labels occur: no metric is defined then.
        """
        values = np.asarray(labels).astype(np.int64)
        positives = int(values.sum())
        if positives in (0, len(values)):
            problem = f"{positives} of {len(values)} rows to measure on are positive: nothing can be ranked"
            raise DataContractError(problem, hint="Measure on a longer window.")
        return cls(values, _numbered(entities), _numbered(days), None if times is None else _hours(times))

    @cached_property
    def entity_count(self) -> int:
        return int(self.entities.max()) + 1

    @cached_property
    def clusters(self) -> Clusters:
        """What a bootstrap of these rows draws."""
        return clusters_of(self.entities, self.days, self.hours)


class Ranking:
    """Rows of `truth` ranked by `scores` [n], as they are or as a bootstrap sample has them."""

    def __init__(self, truth: EvaluationSet, scores: np.ndarray, k: int) -> None:
        self._truth, self._scores, self._k = truth, np.asarray(scores), k
        if self._scores.shape != truth.labels.shape or not np.isfinite(self._scores).all():
            problem = f"Scores of shape {self._scores.shape} for {len(truth.labels)} rows, or scores not finite"
            raise DataContractError(problem, hint="Score every row, with a model whose golden rows hold.")
        self._order = np.argsort(-self._scores, kind="stable")
        self._labels = truth.labels[self._order]
        ranked = self._scores[self._order]
        # Rows of equal score are one threshold: its last row.
        self._thresholds = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)

    def measure(self) -> Metrics:
        """All metrics on the data as it is."""
        return {metric: self.value(metric) for metric in ("roc_auc", "average_precision", "card_precision_at_k")}

    def value(self, metric: Metric, sample: Sample | None = None) -> float:
        """One metric; NaN when a sample holds no positive or no negative row."""
        return float(getattr(self, metric)(sample or Sample(np.ones(len(self._labels), dtype=np.int64))))

    def roc_auc(self, sample: Sample) -> float:
        """Area under the ROC curve by the trapezoidal rule, ties shared (as scikit-learn's roc_auc_score)."""
        true, all_ = self._counts(sample)
        false = all_ - true
        if not (true[-1] and false[-1]):
            return np.nan
        tpr, fpr = np.append(0, true / true[-1]), np.append(0, false / false[-1])
        return float(np.trapezoid(tpr, fpr))

    def average_precision(self, sample: Sample) -> float:
        """Σ (recallₙ − recallₙ₋₁) · precisionₙ over the thresholds (as scikit-learn's average_precision_score)."""
        true, all_ = self._counts(sample)
        if not true[-1]:
            return np.nan
        precision = np.divide(true, all_, out=np.zeros(len(true)), where=all_ > 0)
        return float(np.diff(true, prepend=0) @ precision / true[-1])

    def card_precision_at_k(self, sample: Sample) -> float:
        """Mean over days of the share of frauds among the k cards (entities) of highest score.

        A card's score and label are its highest of the day; a card detected on an earlier day is not looked at again.
        After the Fraud Detection Handbook, chapter 4, "Precision top-k metrics". In a sample a card has the copies of
        its highest row, and each copy is one card to look at. Where time was drawn, a day that is there c times has
        room for c · k cards.
        """
        detected = np.zeros(self._truth.entity_count, dtype=bool)
        found = room = 0.0
        for cards, fraud, rows in self._cards_by_day:
            entity_weights = sample.entity_weights[rows]
            k = self._k * float(entity_weights.mean()) if sample.by_time else self._k
            counts = np.where(detected[cards], 0, entity_weights)
            before = np.cumsum(counts) - counts
            checked = np.clip(k - before, 0, counts)
            found, room = found + float(checked @ fraud), room + k
            detected[cards[(checked > 0) & (fraud == 1)]] = True
        return found / room if room else np.nan

    def _counts(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """Positive rows and all rows at or above each threshold."""
        entity_weights = sample.entity_weights[self._order]
        return np.cumsum(entity_weights * self._labels)[self._thresholds], np.cumsum(entity_weights)[self._thresholds]

    @cached_property
    def _cards_by_day(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Per day the entities by falling score, ties in entity order, with their labels and their highest rows."""
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
    """Equal values → one number, from 0 in their order; every null → a number of its own."""
    numbers, distinct = pd.factorize(pd.Series(values), sort=True)
    null = numbers < 0
    return np.where(null, len(distinct) + np.cumsum(null) - 1, numbers)


def _hours(times: Rows) -> np.ndarray:
    moments = pd.to_datetime(pd.Series(times), utc=True).dt.tz_localize(None)
    return moments.to_numpy().astype("datetime64[h]").astype(np.int64)


def measure(labels: Rows, scores: np.ndarray, entities: Rows, days: Rows, k: int) -> Metrics:
    """All metrics of `scores` on rows with these labels, entities and days, each [n].

    Raises DataContractError when only one label occurs or a score is not finite.
    """
    return Ranking(EvaluationSet.of(labels, entities, days), scores, k).measure()


def paired_differences(
    challenger: Ranking, champion: Ranking, truth: EvaluationSet, metric: Metric, samples: int, seed: int
) -> np.ndarray:
    """Challenger minus champion in `metric` on bootstrap samples [≤ samples], both on the same sample each time.

    What is drawn with replacement are `truth.clusters`: whole entities (the cluster bootstrap: Davison & Hinkley,
    Bootstrap Methods and their Application, §3.8) or blocks of time. Where nothing can be drawn there are no samples;
    those without a positive row are left out.
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
    """The score at or above which at most the share `alert_rate` of `scores` lies, and at least one row does."""
    ranked = np.sort(scores)[::-1]
    allowed = max(1, int(alert_rate * len(ranked)))
    candidate = ranked[allowed - 1]
    if np.count_nonzero(scores >= candidate) <= allowed:
        return float(candidate)
    # A tie at the border: flag only what lies above it, unless that is nothing.
    above = ranked[ranked > candidate]
    return float(above[-1]) if len(above) else float(candidate)
