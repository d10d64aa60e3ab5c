"""Segments of rows: the leaves of a small regression tree, and their conditions in words."""

from typing import TYPE_CHECKING, Any

import numpy as np

from training.contract.feature_definitions import FeatureColumn

if TYPE_CHECKING:
    from sklearn.tree import DecisionTreeRegressor

#: Of the tree. A leaf has at least the share of the rows that it is fitted on.
DEPTH, MINIMUM_SHARE, MINIMUM_ROWS, FOLDS = 3, 0.02, 50, 5
#: Names listed for a segment of a text feature, and what a category that is in no list is called.
NAMES, UNSEEN = 6, "one not seen in training"


def fitted_tree(
    values: np.ndarray, targets: np.ndarray, weights: np.ndarray, entities: np.ndarray
) -> "DecisionTreeRegressor":
    """A tree as deep, up to DEPTH, as predicts best for entities that it has not seen (cross-validation).

    `values` [n, columns], where NaN is missing; the others [n].
    """
    from sklearn.model_selection import GroupKFold

    folds = min(FOLDS, len(np.unique(entities)))
    errors = np.zeros(DEPTH)
    for fitted, left_out in GroupKFold(folds).split(values, groups=entities):
        for depth in range(1, DEPTH + 1):
            tree = _fitted(values[fitted], targets[fitted], weights[fitted], depth)
            squared = (tree.predict(values[left_out]) - targets[left_out]) ** 2
            errors[depth - 1] += weights[left_out] @ squared
    return _fitted(values, targets, weights, int(np.argmin(errors)) + 1)


def _fitted(values: np.ndarray, targets: np.ndarray, weights: np.ndarray, depth: int) -> "DecisionTreeRegressor":
    from sklearn.tree import DecisionTreeRegressor

    least = max(MINIMUM_ROWS, int(MINIMUM_SHARE * len(values)))
    tree = DecisionTreeRegressor(max_depth=depth, min_samples_leaf=least, random_state=0)
    return tree.fit(values, targets, sample_weight=weights)


def leaves(tree: "DecisionTreeRegressor") -> dict[int, list[tuple[int, tuple[float, float]]]]:
    """Leaf → column and the limits of its values there: above the first, up to the second."""
    nodes: Any = tree.tree_
    found: dict[int, list[tuple[int, tuple[float, float]]]] = {}
    waiting: list[tuple[int, dict[int, tuple[float, float]]]] = [(0, {})]
    while waiting:
        node, bounds = waiting.pop()
        left, right = nodes.children_left[node], nodes.children_right[node]
        if left == right:
            found[int(node)] = sorted(bounds.items())
            continue
        column, threshold = int(nodes.feature[node]), float(nodes.threshold[node])
        low, high = bounds.get(column, (-np.inf, np.inf))
        waiting.append((left, bounds | {column: (low, min(high, threshold))}))
        waiting.append((right, bounds | {column: (max(low, threshold), high)}))
    return found


def condition(column: FeatureColumn, low: float, high: float, values: np.ndarray) -> str:
    """In words; with whether some of the `values` of the segment are missing."""
    if column.categories is not None:
        names = [name for code, name in enumerate(column.categories) if low < code <= high]
        if (values == len(column.categories)).any():
            names.append(UNSEEN)
        more = f" and {len(names) - NAMES} others" if len(names) > NAMES else ""
        text = f"{column.name} is {' or '.join(names[:NAMES])}{more}"
    elif np.isinf(low):
        text = f"{column.name} ≤ {high:.4g}"
    else:
        text = f"{column.name} > {low:.4g}" if np.isinf(high) else f"{low:.4g} < {column.name} ≤ {high:.4g}"
    return f"({text} or missing)" if np.isnan(values).any() else text
