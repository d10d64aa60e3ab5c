"""Find slices: groups of rows, by values of features, in which the challenger loses most to the champion.

A small regression tree learns by how much the challenger's loss of a row is above the champion's, on one half of the
entities. Its worst leaves are slices, and the other half of the entities measures them. So a slice that was found by
chance is not worse there ("honest" trees: Athey & Imbens, Recursive Partitioning for Heterogeneous Causal Effects, PNAS
113, 2016).
"""

from collections.abc import Sequence

import numpy as np

from training.contract.feature_definitions import FeatureColumn
from training.domain.gates.groups import Group
from training.domain.gates.scored_model import ScoredModel
from training.domain.resampling import MINIMUM_CLUSTERS
from training.domain.segments import condition, fitted_tree, leaves

#: So many are measured, the worst first. More would widen the intervals of all slices.
MOST_FOUND = 3
#: Enough rows to find the worst leaves; the tree is fitted sixteen times.
_MOST_LEARNED = 50_000
#: Trees take no infinite numbers, and sum what they get in float32.
_LARGEST = 1e30


def find_slices(
    challenger: ScoredModel,
    champion: ScoredModel,
    features: np.ndarray,
    columns: Sequence[FeatureColumn],
    minimum_rows: int,
    seed: int,
) -> list[Group]:
    """Leaves in which the challenger's mean loss is above the champion's, with the rows that measure them.

    `features` [n, d]: the matrix of `columns`. Empty when the kind of task has no loss of a single row, when nothing
    can be drawn, or when there are too few rows or entities to halve.
    """
    ours, theirs = challenger.scored.losses, champion.scored.losses
    clusters = challenger.scored.truth.clusters
    if ours is None or theirs is None or clusters.count < 2 * MINIMUM_CLUSTERS or not columns:
        return []
    if len(features) < 2 * minimum_rows:
        return []
    random = np.random.default_rng(seed)
    first = (random.permutation(clusters.count) % 2 == 0)[clusters.numbers]
    # Of the half that finds.
    learned = np.sort(random.permutation(np.flatnonzero(first))[:_MOST_LEARNED])
    values = np.clip(features, -_LARGEST, _LARGEST)
    lost = ours - theirs
    tree = fitted_tree(values[learned], lost[learned], np.ones(len(learned)), clusters.numbers[learned])
    places = tree.apply(values)
    found: list[tuple[float, Group]] = []
    for leaf, bounds in leaves(tree).items():
        inside, measured = learned[places[learned] == leaf], np.flatnonzero(~first & (places == leaf))
        mean = float(lost[inside].mean())
        if bounds and mean > 0 and len(measured):
            where = " and ".join(condition(columns[at], *limits, features[measured, at]) for at, limits in bounds)
            found.append((mean, Group("", where, measured, found=True)))
    return [group for _, group in sorted(found, key=lambda pair: -pair[0])[:MOST_FOUND]]
