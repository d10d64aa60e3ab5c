"""The rows on which models are measured: what came true, and what a bootstrap draws of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from training.domain.resampling import Clusters, Sample, clusters_of

#: A column: a list, an array or a pandas Series.
Rows: TypeAlias = Sequence[Any] | np.ndarray


@dataclass(frozen=True)
class EvaluationSet:
    """What came true of n rows: `labels` as the task's `truth` gives them, `entities` and `days` numbered from 0,
    `hours` since 1970, each [n].

    Each row without an entity (null) counts as a different entity. `entities` is None when the spec names no entity.
    """

    labels: np.ndarray
    entities: np.ndarray | None
    days: np.ndarray
    hours: np.ndarray | None = None

    @classmethod
    def of(cls, labels: Rows, entities: Rows | None, days: Rows, times: Rows | None = None) -> "EvaluationSet":
        """Make one from columns of equal length. `times` are the times of the rows; without a zone they are UTC."""
        numbered = None if entities is None else _numbered(entities)
        return cls(np.asarray(labels), numbered, _numbered(days), None if times is None else _hours(times))

    @property
    def whole(self) -> Sample:
        """All rows, each once."""
        return Sample(np.ones(len(self.labels), dtype=np.int64))

    @cached_property
    def clusters(self) -> Clusters:
        """The clusters that a bootstrap of these rows draws."""
        return clusters_of(self.entities, self.days, self.hours)

    def some(self, rows: np.ndarray) -> "EvaluationSet":
        """Only `rows` (numbers), in that order."""
        entities = None if self.entities is None else self.entities[rows]
        return EvaluationSet(
            self.labels[rows], entities, self.days[rows], None if self.hours is None else self.hours[rows]
        )


def clusterings(entities: Sequence[Rows], days: Rows, times: Rows | None) -> list[Clusters]:
    """The clusters of the same rows by each kind of entity; blocks of time once, where a kind has too few entities or
    there is none."""
    numbered_days, hours = _numbered(days), None if times is None else _hours(times)
    kinds: list[np.ndarray | None] = [_numbered(each) for each in entities] or [None]
    found = [clusters_of(each, numbered_days, hours) for each in kinds]
    by_time = [each for each in found if each.by_time]
    return [each for each in found if not each.by_time] + by_time[:1]


def _numbered(values: Rows) -> np.ndarray:
    """Number the distinct values from 0 in their order. Each null gets a number that no other row has."""
    import pandas as pd

    numbers, distinct = pd.factorize(pd.Series(values), sort=True)
    null = numbers < 0
    return np.where(null, len(distinct) + np.cumsum(null) - 1, numbers)


def _hours(times: Rows) -> np.ndarray:
    import pandas as pd

    moments = pd.to_datetime(pd.Series(times), utc=True).dt.tz_localize(None)
    return moments.to_numpy().astype("datetime64[h]").astype(np.int64)
