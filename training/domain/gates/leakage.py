"""Whether a feature leaks the label: a suspicion that a person must check.

Source: Kaufman, Rosset, Perlich & Stitelman, Leakage in Data Mining (ACM TKDD 6, 2012): features that predict
surprisingly well alone, and results that are too good to be true beside earlier ones, are how leaks are found.

A feature is suspicious when it alone explains more than `maximum_explained` of an output, and the whole model hardly
explains more. How much it explains is R² for numbers and 2 · AUC − 1 for classes, on rows of the holdout, by the better
of two predictions that are made of training rows: a line, and the mean label of the feature's value or bin. Fewer than
MINIMUM_ROWS rows of a class, or in all, say nothing.

The primary metric is too good when its distance from a perfect value is less than `least_error_left` times that of the
best former champion. Both thresholds are ours: the data of the models in this repository stay far from them
(docs/verdict.md).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from training.contract.feature_definitions import FeatureColumn
from training.contract.gate_limits import LeakageSpec
from training.contract.messages import Leakage
from training.contract.tasks import MetricRule
from training.domain.gates import Gate

#: Fewer rows of a class can be ranked well by chance. It is the number of clusters that a bootstrap needs, too.
MINIMUM_ROWS = 30
#: Bins of a number have at least so many training rows, and there are at most so many bins.
_BIN_ROWS, _BINS = 20, 256
#: Training rows at the mean of all labels that are added to each bin, so that one with few rows says little.
_PRIOR = 5
#: Features and outputs that are shown: a verdict is small.
_SHOWN = 10

Explained = Callable[[np.ndarray, np.ndarray], float]


def measurable(actual: np.ndarray) -> bool:
    """Whether there are enough rows: of a class and of the others, or of a number."""
    positive = int(np.count_nonzero(actual == 1))
    classes = np.isin(actual, (0, 1)).all()
    return (min(positive, len(actual) - positive) if classes else len(actual)) >= MINIMUM_ROWS


def explained_alone(
    columns: Sequence[FeatureColumn],
    train: tuple[np.ndarray, Mapping[str, np.ndarray]],
    holdout: tuple[np.ndarray, Mapping[str, np.ndarray]],
    explained: Explained,
) -> dict[str, dict[str, float]]:
    """Feature → output → how much of it the feature explains alone.

    `train` and `holdout`: the features [n, d], and for each output what it predicts [n]. Outputs with too few rows are
    left out.
    """
    outputs = [name for name, actual in holdout[1].items() if name in train[1] and measurable(actual)]
    found: dict[str, dict[str, float]] = {}
    for place, column in enumerate(columns):
        known, wanted = (rows[:, place].astype(np.float64) for rows in (train[0], holdout[0]))
        groups = _groups(known, wanted, column.categories is not None)
        found[column.name] = {}
        for name in outputs:
            scores = [_means(*groups, train[1][name])]
            if column.categories is None:
                scores.append(_line(known, train[1][name], wanted))
            values = [explained(holdout[1][name], each) for each in scores]
            found[column.name][name] = max([value for value in values if np.isfinite(value)], default=float("nan"))
    return found


def _groups(known: np.ndarray, wanted: np.ndarray, categories: bool) -> tuple[np.ndarray, np.ndarray]:
    """The number of the group of each training row and each row of the holdout. Missing values are one group."""
    seen = known[np.isfinite(known)]
    if categories:
        edges = np.arange(0.5, max(known.max(initial=0, where=np.isfinite(known)), 0) + 1)
    else:
        bins = int(np.clip(len(seen) // _BIN_ROWS, 1, _BINS))
        edges = np.unique(np.quantile(seen, np.arange(1, bins) / bins)) if len(seen) else np.empty(0)
    first, second = (
        np.where(np.isnan(each), len(edges) + 1, np.searchsorted(edges, each, side="right")) for each in (known, wanted)
    )
    return first, second


def _means(known: np.ndarray, wanted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """The mean of `actual` in the group of each row that is `wanted`."""
    size = int(max(known.max(initial=0), wanted.max(initial=0))) + 1
    rows, sums = np.bincount(known, minlength=size), np.bincount(known, actual, minlength=size)
    means = (sums + _PRIOR * actual.mean()) / (rows + _PRIOR)
    return np.asarray(means[wanted])


def _line(known: np.ndarray, actual: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """What the least-squares line gives. A missing value counts as the mean."""
    finite = np.isfinite(known)
    if not finite.any():
        return np.full(len(wanted), actual.mean())
    middle, scale = known[finite].mean(), known[finite].std() or 1.0
    first, second = (np.where(np.isfinite(each), (each - middle) / scale, 0.0) for each in (known, wanted))
    slope = first @ (actual - actual.mean()) / max(first @ first, 1.0)
    return np.asarray(actual.mean() + slope * second)


def leakage(
    spec: LeakageSpec,
    explains: Mapping[str, Mapping[str, float]],
    model_explains: Mapping[str, float],
    former: Mapping[int, float],
) -> Leakage:
    """`model_explains`: output → how much the whole model explains. `former`: version of a former champion → metric."""
    ranked = sorted(explains.items(), key=lambda item: -max(item[1].values(), default=0.0))
    suspects = [
        feature
        for feature, values in ranked
        if feature not in spec.expected
        and any(_suspicious(spec, value, model_explains.get(output)) for output, value in values.items())
    ]
    most = {
        output: max((values.get(output, 0.0) for values in explains.values()), default=0.0) for output in model_explains
    }
    shown = set(sorted(most, key=lambda output: -most[output])[:_SHOWN])
    kept = {
        feature: {output: value for output, value in values.items() if output in shown and np.isfinite(value)}
        for feature, values in ranked[:_SHOWN]
    }
    return Leakage(
        model_explains={name: value for name, value in model_explains.items() if name in shown and np.isfinite(value)},
        explains=kept,
        suspects=suspects,
        former=dict(former),
    )


def _suspicious(spec: LeakageSpec, value: float, whole: float | None) -> bool:
    """A number that is missing is suspicious: nothing can be said against it."""
    if spec.maximum_explained is None:
        return False
    if whole is None or not np.isfinite([value, whole]).all():
        return True
    return value > spec.maximum_explained and value >= spec.share_of_model * whole


def gates(found: Leakage, spec: LeakageSpec, rule: MetricRule, metric: str, value: float | None) -> Iterator[Gate]:
    """`value`: that of the challenger in the primary metric, whose rule is `rule`."""
    if spec.maximum_explained is not None:
        yield _of_features(found, spec, spec.maximum_explained)
    if spec.least_error_left is not None:
        yield _of_history(found.former, spec.least_error_left, rule, metric, value)


def _of_features(found: Leakage, spec: LeakageSpec, maximum: float) -> Gate:
    measured = {name: values for name, values in found.explains.items() if values}
    if not measured and not found.suspects:
        why = f"it takes {MINIMUM_ROWS} rows of a class and of the others, and a kind of task with single outputs"
        return Gate("leakage", True, f"whether one feature alone explains the label cannot be told: {why}")
    named = ", ".join(f"{name} {_told(found, name)}" for name in found.suspects[:3])
    limit = f"more than {maximum:.2f} with at least {spec.share_of_model:.0%} of the whole model is suspicious"
    if found.suspects:
        sentence = f"one feature alone explains almost everything: {named}; {limit}. Does it leak the label? If it may "
        return Gate("leakage", False, sentence + "explain so much, add it to evaluation.leakage.expected")
    first = next(iter(measured))
    expected = f"; {', '.join(spec.expected)} may explain more" if spec.expected else ""
    sentence = f"no feature alone explains too much: the most is {first} {_told(found, first)}; {limit}{expected}"
    return Gate("leakage", True, sentence)


def _told(found: Leakage, feature: str) -> str:
    values = found.explains.get(feature, {})
    if not values:
        return "(cannot be measured)"
    output, value = max(values.items(), key=lambda item: item[1])
    whole = found.model_explains.get(output)
    return f"({value:.3f} of {output}, the whole model {'an unknown part' if whole is None else f'{whole:.3f}'})"


def _of_history(former: Mapping[int, float], least: float, rule: MetricRule, metric: str, value: float | None) -> Gate:
    perfect = rule.high if rule.higher_is_better else rule.low
    lacks = {version: abs(perfect - each) for version, each in former.items() if np.isfinite(perfect - each)}
    if not lacks:
        return Gate("leakage", True, f"{metric} is compared with that of former champions, and there is none yet")
    best = min(lacks, key=lambda version: lacks[version])
    ours = float("nan") if value is None else abs(perfect - value)
    sentence = (
        f"{metric} {float('nan') if value is None else value:.4f} must be at least {least:.0%} as far from perfect "
        f"({perfect:g}) as the best of {len(lacks)} former champions, version {best} with {former[best]:.4f}"
    )
    return Gate("leakage", ours >= least * lacks[best], f"{sentence}; anything closer is suspicious")
