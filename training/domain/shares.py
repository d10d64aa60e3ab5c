"""Test whether columns have changed: which shares of their rows have certain values, before and now.

Every column becomes shares of its rows: the values up to each of some quantiles, each frequent value, missing values,
and texts that were never seen before. The largest difference of the first kind is the distance of Kolmogorov and
Smirnov; the second kind finds a small part of the rows that goes wrong, which distances between distributions miss.

Rows of one entity resemble each other, so n rows say less than n independent ones. The design effect says how many rows
count as one: the variance of a share between whole entities over that between independent rows (Kish, Survey Sampling,
1965). Counts and rows are divided by it, and then compared as if they were independent (Rao & Scott, A Simple Method
for the Analysis of Clustered Binary Data, Biometrics 48, 1992), by the likelihood ratio, whose tails stay right for
small counts. So the p-value is valid at any number of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.special import xlogy
from scipy.stats import t as student

from training.contract.messages import Shift
from training.domain.comparison import Side, are_numbers
from training.domain.resampling import Clusters

#: Values are compared up to these quantiles of both sides together.
QUANTILES = (0.01, 0.025, *np.arange(0.05, 0.96, 0.05).round(2).tolist(), 0.975, 0.99)
#: So many of the most frequent values are compared one by one.
FREQUENT = 20
#: Clusters are put together to at most so many groups, whose sums are as independent as theirs.
GROUPS = 1000
TINY = 1e-12
MISSING, NEW = "missing", "not in the reference"


@dataclass(frozen=True)
class _Parts:
    """A column of both sides in bins, and the shares that are compared.

    `reference`, `current`: the bin of each row. `shares` [k, bins]: which bins make up each share. `names` [k].
    """

    reference: np.ndarray
    current: np.ndarray
    shares: np.ndarray
    names: list[str]


@dataclass(frozen=True)
class _Grouped:
    """The clusters of one side. `size`: the rows in the cluster of an average row; with 1, rows are independent."""

    clusters: Clusters

    @cached_property
    def groups(self) -> np.ndarray:
        return (self.clusters.numbers % GROUPS).astype(np.int32)

    @cached_property
    def sizes(self) -> np.ndarray:
        return np.bincount(self.clusters.numbers).astype(float)

    @property
    def size(self) -> float:
        return float((self.sizes**2).sum() / self.sizes.sum())

    def spread(self, bins: np.ndarray, shares: np.ndarray, most: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each share [k]: the design effect, NaN where no row or every row belongs to it; and how many equal
        clusters say as much as those that its rows are in (Kish), or, where it is that of `most` rows [k], those that
        the other rows are in."""
        groups = min(self.clusters.count, GROUPS)
        cells = self.groups * np.int32(shares.shape[1]) + bins
        counts = np.bincount(cells, minlength=groups * shares.shape[1]).reshape(groups, -1).astype(float)
        inside, rows = counts @ shares.T, counts.sum(axis=1)
        n, share = rows.sum(), inside.sum(axis=0) / rows.sum()
        variance = ((inside - np.outer(rows, share)) ** 2).sum(axis=0) * groups / max(groups - 1, 1)
        rarer = np.where(most, rows[:, None] - inside, inside)
        holding = rarer.sum(axis=0) ** 2 / np.maximum((rarer**2).sum(axis=0), TINY)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where((share > 0) & (share < 1), variance / (n * share * (1 - share)), np.nan), holding


def compare_shares(reference: Side, current: Side, minimum: float) -> dict[str, Shift]:
    """For each column of both sides, the share of its rows that has changed most surely.

    Only shares that differ by at least `minimum` count: a smaller change, however sure, is none. The p-value of a
    column is Bonferroni's over all its shares. Without such a share it is 1, and the largest difference is given.
    Without clusters of the reference, as many rows of it are taken to be alike, in proportion, as of the current side.
    A column that names the entities of clusters is not clustered by itself, and new ones in it are not a change: some
    come and go every week. Each side has some rows, and numbers are finite or missing.
    """
    old, new = ({kind: _Grouped(each) for kind, each in side.clusters.items()} for side in (reference, current))
    found = {}
    for name, values in current.columns.items():
        kinds = [kind for kind in new if kind != name]
        parts = _parts(reference.columns[name], values, minimum, entities=name in new)
        found[name] = _most_certain(parts, [old[kind] for kind in kinds if old], [new[kind] for kind in kinds], minimum)
    return found


def _most_certain(parts: _Parts, old: Sequence[_Grouped], new: Sequence[_Grouped], minimum: float) -> Shift:
    rows = np.array([len(parts.reference), len(parts.current)], float)
    counts = [np.bincount(bins, minlength=parts.shares.shape[1]) for bins in (parts.reference, parts.current)]
    share = np.array([parts.shares @ count for count in counts]) / rows[:, None]
    effects, freedom = _effects(parts, share, rows, old, new)
    p_values = _p_values(share, rows[:, None] / effects, freedom)
    differences = np.abs(share[1] - share[0])
    counted = np.where(differences >= minimum, p_values, 1.0)
    # Among shares that are as certain, the one that has changed most, and a value rather than a range.
    at = int(np.lexsort((-differences, counted))[0])
    return Shift(
        part=parts.names[at],
        reference=float(share[0, at]),
        current=float(share[1, at]),
        minimum=minimum,
        p_value=float(min(1.0, counted[at] * len(counted))),
        design_effect=float(effects[1, at]),
    )


def _effects(
    parts: _Parts, share: np.ndarray, rows: np.ndarray, old: Sequence[_Grouped], new: Sequence[_Grouped]
) -> tuple[np.ndarray, np.ndarray]:
    """The design effects of each side's shares, [2, k], at least 1, and the degrees of freedom of each estimate, [k].

    Both sides have the same correlation r of the rows of a cluster when nothing has changed, and each has the design
    effect 1 + (size - 1)·r (Kish). r is fitted to both: a share that no row of one side has says nothing about its r.
    Rare shares lie in few clusters, which may be small by chance, so r is at least that of all shares together, and
    the clusters that a share lies in are its degrees of freedom.

    What clusters of several kinds add is summed up, as the variances of clusters that cross each other are (Cameron,
    Gelbach & Miller, Robust Inference with Multiway Clustering, Journal of Business & Economic Statistics 29, 2011).
    """
    total, freedom = np.ones((2, len(parts.names))), np.full(len(parts.names), np.inf)
    pooled = rows @ share / rows.sum()
    # Of both sides together: a share that changes from all rows to none is in all clusters of one side.
    most, weight = pooled > 0.5, pooled * (1 - pooled)
    for at, each in enumerate(new):
        found = [each.spread(parts.current, parts.shares, most)]
        beyond = np.array([each.size - 1])
        if old:
            found.insert(0, old[at].spread(parts.reference, parts.shares, most))
            beyond = np.array([old[at].size - 1, each.size - 1])
        excess, holding = np.array([effects - 1 for effects, _ in found]), np.array([held for _, held in found])
        known = np.where(np.isnan(excess), 0.0, beyond[:, None] ** 2).sum(axis=0)
        fitted = np.nansum(beyond[:, None] * excess, axis=0)
        usual = (fitted @ weight) / max(known @ weight, TINY)
        alike = np.maximum(fitted / np.maximum(known, TINY), max(usual, 0.0))
        if not old:
            beyond = np.array([beyond[0] * rows[0] / rows[1], beyond[0]])
            rarer = np.where(most, 1 - share[0], share[0])
            holding = np.vstack([rarer * rows[0] / (1 + beyond[0]), holding])
        total += beyond[:, None] * alike
        freedom = np.minimum(freedom, np.maximum(holding.sum(axis=0) - 1, 1.0))
    return total, freedom


def _p_values(share: np.ndarray, rows: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Two-sided p-values [k] that shares [2, k] of so many independent rows [2, k] are equal, by the likelihood ratio.

    The signed root of the likelihood ratio is compared with Student's distribution, as the rows were estimated.
    """
    pooled = (share * rows).sum(axis=0) / rows.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = xlogy(share, np.where(share > 0, share / pooled, 1.0))
        outside = xlogy(1 - share, np.where(share < 1, (1 - share) / (1 - pooled), 1.0))
    root = np.sqrt(np.maximum(2 * (rows * (inside + outside)).sum(axis=0), 0))
    return np.asarray(2 * student.sf(root, freedom))


def _parts(reference: np.ndarray, current: np.ndarray, minimum: float, entities: bool) -> _Parts:
    if are_numbers(reference, current) and not entities:
        return _of_numbers(reference, current, minimum)
    return _of_texts(reference, current, entities)


def _of_numbers(reference: np.ndarray, current: np.ndarray, minimum: float) -> _Parts:
    """Bins between and at the edges: bin 2i lies below edge i, bin 2i + 1 is edge i, and the last bin is missing.

    Edges are chosen from both sides together, so that the choice favours neither.
    """
    together = np.sort(np.concatenate(_equally_many(reference[~np.isnan(reference)], current[~np.isnan(current)])))
    edges, frequent = np.empty(0, together.dtype), np.empty(0, together.dtype)
    if len(together):
        edges = together[(np.array(QUANTILES) * (len(together) - 1)).astype(int)]
        frequent = _frequent(together, minimum)
        edges = np.union1d(edges, frequent)
    bins = 2 * len(edges) + 2
    sides = []
    for values in (reference, current):
        at = np.searchsorted(edges, values)
        if len(edges):
            at = 2 * at + (edges[np.minimum(at, len(edges) - 1)] == values)
        sides.append(np.where(np.isnan(values), bins - 1, at).astype(np.int32))
    shares = np.zeros((len(edges) + len(frequent) + 1, bins))
    shares[np.arange(len(frequent)), 2 * np.searchsorted(edges, frequent) + 1] = 1
    for edge in range(len(edges)):
        shares[len(frequent) + edge, : 2 * edge + 2] = 1
    shares[-1, -1] = 1
    names = [f"equal to {value:.6g}" for value in frequent] + [f"at most {edge:.6g}" for edge in edges]
    return _Parts(sides[0], sides[1], shares, [*names, MISSING])


def _equally_many(*sides: np.ndarray) -> list[np.ndarray]:
    """About as many values of each, at even distances, where each has some."""
    fewest = min((len(side) for side in sides if len(side)), default=1)
    return [side[:: max(1, len(side) // fewest)] for side in sides]


def _frequent(values: np.ndarray, minimum: float) -> np.ndarray:
    """The most frequent of sorted values, in ascending order: those that can differ by the minimum between two sides,
    which is half of it in both together. Steps of that length meet each of them."""
    step = max(2, int(len(values) * minimum / 2))
    candidates = np.unique(values[::step])
    counts = np.searchsorted(values, candidates, "right") - np.searchsorted(values, candidates)
    most = np.argsort(-counts, kind="stable")[:FREQUENT]
    return np.sort(candidates[most[counts[most] >= step]])


def _of_texts(reference: np.ndarray, current: np.ndarray, entities: bool) -> _Parts:
    """Two bins for each of the frequent texts, for all others and for missing ones: seen before, and new.

    A text of the reference is new when no other row of it has the same: so often does a new one come by chance (Good,
    The Population Frequencies of Species, Biometrika 40, 1953).
    """
    codes, texts = pd.factorize(np.concatenate([reference, current]), use_na_sentinel=True)
    old, new = codes[: len(reference)], codes[len(reference) :]
    counts = [np.bincount(each[each >= 0], minlength=len(texts)) for each in (old, new)]
    most = np.argsort(-(counts[0] + counts[1]), kind="stable")[:FREQUENT]
    places = np.full(len(texts) + 1, len(most))
    places[most] = np.arange(len(most))
    places[-1] = len(most) + 1  # The code -1 of missing texts.
    alone = [np.append(counts[0] == few, False) for few in (1, 0)]
    sides = [(2 * places[each] + is_new[each]).astype(np.int32) for each, is_new in zip((old, new), alone, strict=True)]
    shares = np.zeros((len(most) + 2, 2 * len(most) + 4))
    for row in range(len(most)):
        shares[row, 2 * row : 2 * row + 2] = 1
    shares[-2, -2:] = 1
    shares[-1, 1::2] = 1
    names = [*(f"equal to {texts[each]}" for each in most), MISSING, NEW]
    compared = len(names) - (1 if entities else 0)
    return _Parts(sides[0], sides[1], shares[:compared], names[:compared])
