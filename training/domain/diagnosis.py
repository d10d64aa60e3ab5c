"""Where performance fell: the segments of rows whose loss rose most, and the features that moved there.

A small regression tree finds segments on one half of the entities, and the other half measures them. So a segment that
was found by chance has no rise there ("honest" trees: Athey & Imbens, Recursive Partitioning for Heterogeneous Causal
Effects, PNAS 113, 2016). The tree learns the loss of a row, with the sign + now and − before, where both sides weigh
the same: its mean in a leaf is by how much the leaf adds more to the loss than before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

from training.contract.feature_definitions import FeatureColumn
from training.contract.messages import Diagnosis, Segment, Shift
from training.domain.comparison import Side
from training.domain.drift import with_false_discovery_control
from training.domain.resampling import clusters_of
from training.domain.segments import UNSEEN, condition, fitted_tree, leaves
from training.domain.shares import compare_shares

if TYPE_CHECKING:
    from sklearn.tree import DecisionTreeRegressor

#: A feature has moved when the share of some of its values differs by this, beyond chance.
MINIMUM_SHIFT, CHANCE = 0.1, 0.01
#: A segment of which the holdout has less than this part of the share is new.
NEW = 0.1
#: So many segments, and so many features that moved, are shown.
SHOWN = 5


@dataclass(frozen=True)
class Losses:
    """n rows: what the model got and gave, [n, columns]; the loss of each; and numbers of entities, [n]."""

    values: np.ndarray
    losses: np.ndarray
    entities: np.ndarray

    def some(self, rows: np.ndarray) -> "Losses":
        return Losses(self.values[rows], self.losses[rows], self.entities[rows])

    def halves(self, random: np.random.Generator) -> tuple["Losses", "Losses"]:
        """Each entity in one of them."""
        distinct, numbers = np.unique(self.entities, return_inverse=True)
        first = random.permutation(len(distinct)) % 2 == 0
        return self.some(first[numbers]), self.some(~first[numbers])


def diagnose(
    before: Losses, now: Losses, columns: Sequence[FeatureColumn], loss: str, confidence: float, seed: int
) -> Diagnosis:
    """Where the `loss` of the rows `now` is higher than that of the rows `before`, the holdout's.

    A segment is given when its rise is above 0 with `confidence` over all segments together (Bonferroni). One
    that was (nearly) not there before is compared with all rows of the holdout. `columns`: of the values of both sides.
    """
    random = np.random.default_rng(seed)
    (found_before, before_half), (found_now, now_half) = before.halves(random), now.halves(random)
    tree = _tree(found_before, found_now)
    found = leaves(tree)
    z = norm.isf((1 - confidence) / 2 / len(found))
    segments = []
    for leaf, bounds in found.items():
        then, here = (half.some(tree.apply(half.values) == leaf) for half in (before_half, now_half))
        share, share_before = (
            len(part.losses) / len(half.losses) for part, half in ((here, now_half), (then, before_half))
        )
        # There is nothing to compare rows of a kind with that was not there before, but for all others.
        usual = before_half if share_before < NEW * share else then
        if not bounds or min(len(usual.losses), len(here.losses)) < 2:
            continue
        rise, error = here.losses.mean() - usual.losses.mean(), np.hypot(_error(usual), _error(here))
        if rise - z * error <= 0:
            continue
        inside = before.some(tree.apply(before.values) == leaf), now.some(tree.apply(now.values) == leaf)
        segments.append(
            Segment(
                where=" and ".join(condition(columns[at], *limits, inside[1].values[:, at]) for at, limits in bounds),
                rows=len(here.losses),
                share=share,
                share_before=share_before,
                loss=float(here.losses.mean()),
                loss_before=float(usual.losses.mean()),
                low=float(rise - z * error),
                high=float(rise + z * error),
                moved=_moved(*inside, columns),
            )
        )
    return Diagnosis(
        loss=loss,
        now=float(now.losses.mean()),
        before=float(before.losses.mean()),
        segments=sorted(segments, key=lambda each: -each.adds)[:SHOWN],
        moved=_moved(before, now, columns),
    )


def _tree(before: Losses, now: Losses) -> "DecisionTreeRegressor":
    sizes = [len(before.losses), len(now.losses)]
    weights = np.repeat([1 / size for size in sizes], sizes) * sum(sizes) / 2
    signed, values = np.concatenate([-before.losses, now.losses]), np.concatenate([before.values, now.values])
    # Of the two sides the numbers of entities are not the same.
    entities = np.concatenate([before.entities * 2, now.entities * 2 + 1])
    return fitted_tree(values, signed, weights, entities)


def _error(rows: Losses) -> float:
    """The standard error of the mean loss, where rows of one entity resemble each other: √Σ(Sₑ − nₑ·mean)² / n."""
    numbers = np.unique(rows.entities, return_inverse=True)[1]
    beyond = np.bincount(numbers, rows.losses - rows.losses.mean())
    return float(np.sqrt((beyond**2).sum()) / len(rows.losses))


def _moved(before: Losses, now: Losses, columns: Sequence[FeatureColumn]) -> dict[str, Shift]:
    """The columns that moved, those that moved most first. None, when one side has no rows to compare."""
    if not len(before.losses) or not len(now.losses):
        return {}
    sides = []
    for each in (before, now):
        values = {column.name: _readable(column, each.values[:, at]) for at, column in enumerate(columns)}
        drawn = clusters_of(each.entities, np.zeros(len(each.entities), np.int64), None)
        sides.append(Side(values, {"": drawn} if drawn.count else {}))
    if len(sides[0].clusters) != len(sides[1].clusters):
        sides = [Side(side.columns) for side in sides]
    shifts = compare_shares(sides[0], sides[1], MINIMUM_SHIFT)
    certain = {name: shift for name, shift in with_false_discovery_control(shifts, CHANCE).items() if shift.drifted}
    largest = sorted(certain, key=lambda name: -abs(certain[name].current - certain[name].reference))
    return {name: certain[name] for name in largest[:SHOWN]}


def _readable(column: FeatureColumn, values: np.ndarray) -> np.ndarray:
    """Codes as the texts that they stand for."""
    if column.categories is None:
        return values
    names = np.array([*column.categories, UNSEEN, None], dtype=object)
    return names[np.where(np.isnan(values), len(names) - 1, np.nan_to_num(values)).astype(int)]
