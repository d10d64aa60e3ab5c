"""Choose what a bootstrap draws: whole entities, because their rows are not independent, or blocks of time.

A cluster bootstrap needs many clusters. With one entity every sample is the data itself, with five it is nearly so, and
any difference looks certain. Cameron, Gelbach & Miller (Bootstrap-Based Improvements for Inference with Clustered
Errors, Review of Economics and Statistics 90, 2008) show that five to thirty are too few. With fewer than thirty
entities, or with entities of such unequal size that they count as fewer, blocks of time are drawn instead (Künsch, The
Jackknife and the Bootstrap for General Stationary Observations, Annals of Statistics 17, 1989): days, or the longest
part of a day that gives thirty blocks. With fewer than thirty blocks of an hour nothing is drawn, because chance cannot
be estimated.
"""

from dataclasses import dataclass

import numpy as np

MINIMUM_CLUSTERS = 30
#: Parts of a day, longest first, in hours.
PARTS = (12, 8, 6, 4, 3, 2, 1)


@dataclass(frozen=True)
class Sample:
    """A bootstrap sample: how often each of n rows was drawn, [n]."""

    entity_weights: np.ndarray
    by_time: bool = False
    """Whether blocks of time were drawn, not entities."""


@dataclass(frozen=True)
class Clusters:
    """The clusters to draw. `numbers` [n]: the cluster of each row. `count`: how many there are; 0: nothing to draw."""

    numbers: np.ndarray
    count: int
    by_time: bool
    described: str
    """What is drawn and why. It continues the text "the bootstrap draws"."""

    def draw(self, random: np.random.Generator) -> Sample:
        """Draw `count` clusters with replacement."""
        entity_weights = np.bincount(random.integers(self.count, size=self.count), minlength=self.count)
        return Sample(entity_weights[self.numbers], self.by_time)


def clusters_of(entities: np.ndarray | None, days: np.ndarray, hours: np.ndarray | None) -> Clusters:
    """The clusters of n rows with these `entities` and `days` (numbers) and `hours` (since 1970, UTC), each [n].

    Without `entities` blocks of time are drawn. Without `hours` the shortest block is a day.
    """
    if entities is None:
        few = "the spec names no entity"
    elif effective_count(entities) >= MINIMUM_CLUSTERS:
        return _clusters(entities, False, "whole entities ({count})")
    else:
        few = _few(entities)
    blocks = [("days", days)]
    if hours is not None:
        blocks += [(f"blocks of {part} hours" if part > 1 else "blocks of an hour", hours // part) for part in PARTS]
    for name, block in blocks:
        if effective_count(block) >= MINIMUM_CLUSTERS:
            return _clusters(block, True, f"{name} ({{count}}), because {few}")
    lacking = f"nothing, because {few}, and the rows are in {len(np.unique(blocks[-1][1]))} {blocks[-1][0]}"
    return Clusters(np.zeros(len(days), dtype=np.int64), 0, True, f"{lacking}: {MINIMUM_CLUSTERS} are needed")


def effective_count(clusters: np.ndarray) -> float:
    """The number of equal clusters that hold as much information: (Σ nᵢ)² / Σ nᵢ², where nᵢ are the clusters' rows.

    For clusters of equal size this is their number. Source: Kish, Survey Sampling, 1965.
    """
    sizes = np.unique(clusters, return_counts=True)[1].astype(float)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _few(entities: np.ndarray) -> str:
    count = len(np.unique(entities))
    if count < MINIMUM_CLUSTERS:
        return f"{count} distinct {'entity is' if count == 1 else 'entities are'} fewer than {MINIMUM_CLUSTERS}"
    counts_as = int(effective_count(entities))
    return f"{count} entities of very unequal size count for {counts_as}, fewer than {MINIMUM_CLUSTERS}"


def _clusters(values: np.ndarray, by_time: bool, described: str) -> Clusters:
    distinct, numbers = np.unique(values, return_inverse=True)
    return Clusters(numbers, len(distinct), by_time, described.format(count=len(distinct)))
