"""The two sides of a drift comparison: their columns, and which of their rows resemble each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from training.domain.evaluation_set import clusterings
from training.domain.resampling import Clusters

#: The kind of clusters that are blocks of time.
TIME = "(time)"


@dataclass(frozen=True)
class Side:
    """The rows of one side: columns [n] of finite numbers or texts, which may be missing (NaN, None).

    `clusters`: kind of entity → rows that resemble each other. Both sides have the same kinds, or one has none: which
    of its rows do is not known then.
    """

    columns: Mapping[str, np.ndarray]
    clusters: Mapping[str, Clusters] = field(default_factory=dict)


def clusters_of_sides(sides: Sequence[pd.DataFrame], entities: Sequence[str], time: str) -> list[dict[str, Clusters]]:
    """For each side, the clusters of its rows by each of the columns `entities`.

    Blocks of time, once, where one side has too few entities of a kind, or there is none (training/domain/resampling.py
    says why). A kind of which one side has nothing to draw is left out: its rows count as independent.
    """
    found: list[dict[str, Clusters]] = [{} for _ in sides]
    for name in entities or [TIME]:
        kind, drawn = name, [_drawn(side, [name] if entities else [], time) for side in sides]
        if any(each.by_time for each in drawn):
            kind, drawn = TIME, [_drawn(side, [], time) for side in sides]
        if all(each.count for each in drawn):
            for side, each in zip(found, drawn, strict=True):
                side[kind] = each
    return found


def _drawn(rows: pd.DataFrame, entities: list[str], time: str) -> Clusters:
    [found] = clusterings([rows[name] for name in entities], rows[time].dt.floor("D"), rows[time])
    return found
