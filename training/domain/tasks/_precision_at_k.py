"""Precision among the k entities with the highest scores of each day, as those who check k entities a day see it."""

import numpy as np

from training.domain.evaluation_set import EvaluationSet
from training.domain.resampling import Sample


class DailyEntities:
    """The entities of each day by descending score. The score and the label of an entity are the highest of its rows.

    Where the spec names no entity, each row is one.
    """

    def __init__(self, truth: EvaluationSet, scores: np.ndarray) -> None:
        entities = np.arange(len(scores)) if truth.entities is None else truth.entities
        self._entities = int(entities.max()) + 1
        # One number for each entity and day; ties are broken by entity and row.
        pairs = truth.days * self._entities + entities
        order = np.lexsort((np.arange(len(scores)), entities, -scores, truth.days))
        _, first, group = np.unique(pairs[order], return_index=True, return_inverse=True)
        positive = np.bincount(group, truth.labels[order]) > 0
        highest = np.sort(first)
        rows, labels = order[highest], positive[group[highest]].astype(np.int64)
        days = np.flatnonzero(np.diff(truth.days[rows])) + 1
        self._days = list(zip(*(np.split(each, days) for each in (entities[rows], labels, rows)), strict=True))

    def precision(self, k: int, sample: Sample) -> float:
        """Mean over days of the share of positives among the first k entities.

        An entity that was found positive on an earlier day is left out. Source: Fraud Detection Handbook, chapter 4,
        "Precision top-k metrics". In a sample, an entity counts as often as its highest row was drawn. When blocks of
        time were drawn, a day that was drawn c times has c · k places.
        """
        detected = np.zeros(self._entities, dtype=bool)
        found = places = 0.0
        for entities, positive, rows in self._days:
            weights = sample.entity_weights[rows]
            available = k * float(weights.mean()) if sample.by_time else k
            counts = np.where(detected[entities], 0, weights)
            before = np.cumsum(counts) - counts
            checked = np.clip(available - before, 0, counts)
            found, places = found + float(checked @ positive), places + available
            detected[entities[(checked > 0) & (positive == 1)]] = True
        return found / places if places else np.nan
