"""The champion's performance on rows whose labels have not come, estimated from the rows of its holdout.

For a classifier: confidence-based performance estimation. Isotonic regression on the holdout turns scores into
probabilities, and metrics take the expected numbers of true and false predictions. For a regression: direct loss
estimation. A model learns the losses of the holdout's rows from their features and scores, and metrics take the mean of
the losses that it predicts. Source of both: NannyML's documentation, "Estimation of Performance of the Monitored
Model". Which of the two a kind of task takes is said in its module (TaskKind.estimated_from).

Both see a change of the inputs. Neither sees that the same inputs have other labels than before (concept drift), so an
estimate may ask for a training only when earlier ones have been right.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from scipy.stats import norm

from training.contract.base import Days
from training.contract.messages import ComparedEstimate, Degradation, EstimatedPerformance, Metrics
from training.contract.spec_sections import MonitoringSpec
from training.contract.tasks import MetricRule
from training.domain.evaluation_set import EvaluationSet
from training.domain.metrics import standard_error
from training.domain.resampling import Clusters
from training.domain.task_kind import Scored, ServedTask, TaskKind

#: Bootstrap samples of the holdout, on each of which the estimation is fitted again: of curves, and of models, which
#: take a second each. Their standard error is known to about a tenth, and to about a quarter, of itself.
CURVES, MODELS = 50, 10
#: So many earlier windows are compared with what was estimated for them, and so many must be to trust an estimate.
COMPARED, MINIMUM_COMPARED = 6, 3
#: The share of the compared windows whose realised value must lie in the interval of the estimate.
MINIMUM_INSIDE = 0.8

#: From scores and features of rows to the estimates of their targets.
Estimation: TypeAlias = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Known:
    """The holdout's n rows that count: `features` [n, d], their scores with the labels, and what a bootstrap draws of
    them. `error`: the standard error of the primary metric there."""

    features: np.ndarray
    scored: Scored
    served: ServedTask
    clusterings: Sequence[Clusters]
    error: float


@dataclass(frozen=True)
class Unlabelled:
    """Rows whose labels are not needed: `features` [n, d] (of a kind that is estimated from scores: any d), `scores`
    and what a bootstrap draws of them."""

    features: np.ndarray
    scores: np.ndarray
    clusterings: Sequence[Clusters]

    @property
    def identity(self) -> bytes:
        """Equal for equal rows."""
        found = hashlib.sha256()
        for part in (self.features, self.scores, *(each.numbers for each in self.clusterings)):
            found.update(f"{part.shape} {part.dtype}".encode() + np.ascontiguousarray(part).tobytes())
        return found.digest()


@dataclass(frozen=True)
class Estimate:
    """Of the rows of a window.

    `drop`: by how much the primary metric is worse than the same estimate for the holdout; `drop_error`: its standard
    error. `error`: how far the value of the primary metric that labels will show may be off by chance.
    """

    metrics: Metrics
    drop: float
    drop_error: float
    error: float


class Estimator:
    """Estimates performance from what is `known`. Raises KeyError when the primary metric cannot be estimated."""

    def __init__(self, known: Known, task: TaskKind, seed: int) -> None:
        self._known, self._task, self._seed = known, task, seed
        self._primary = task.evaluation.primary
        self._targets = task.targets(known.scored)
        if not self._targets:
            raise KeyError(self._primary)
        self._whole = self._learner(self._targets).fit(np.ones(len(known.features)))
        if self._primary not in self._on_holdout(self._whole).metrics:
            raise KeyError(self._primary)
        #: By the identity of the rows: successive looks at one champion estimate the same windows.
        self._made: dict[bytes, Estimate | None] = {}

    def __call__(self, rows: Unlabelled) -> Estimate | None:
        """The estimate for the rows.

        None when chance cannot be estimated, because a bootstrap has nothing to draw of the holdout or of `rows`, or
        the primary metric is not defined for what is expected of them, such as no positive row.
        """
        identity = rows.identity
        if identity not in self._made:
            self._made[identity] = self._estimate(rows)
        return self._made[identity]

    def _estimate(self, rows: Unlabelled) -> Estimate | None:
        expected = self._expected(rows.features, rows.scores, self._whole)
        of_rows = standard_error(expected, self._primary, rows.clusterings, self._seed)
        if of_rows is None or not self._of_holdout:
            return None
        metrics = expected.measure()
        before = self._on_holdout(self._whole).value(self._primary)
        drops, values = self._spread(rows)
        if self._primary not in metrics or not np.isfinite([before, drops, values]).all():
            return None
        return Estimate(
            metrics=metrics,
            drop=self._task.rules[self._primary].sign * (before - metrics[self._primary]),
            drop_error=float(np.hypot(drops, of_rows)),
            error=float(np.hypot(values, self._known.error * of_rows / self._of_holdout)),
        )

    def expected(self, rows: Unlabelled) -> Scored:
        """The scores of `rows`, measured by the estimates of their targets."""
        return self._expected(rows.features, rows.scores, self._whole)

    def _spread(self, rows: Unlabelled) -> tuple[float, float]:
        """The standard deviations of the drop and of the value for `rows`, over bootstrap samples of the holdout: of
        several kinds of clusters the largest."""
        drops, values = [], []
        for drawn in self._drawn:
            now = np.array([self._expected(rows.features, rows.scores, each).value(self._primary) for each, _ in drawn])
            then = np.array([before for _, before in drawn])
            kept = np.isfinite(now) & np.isfinite(then)
            drops.append(float((then - now)[kept].std(ddof=1)))
            values.append(float(now[kept].std(ddof=1)))
        return max(drops), max(values)

    @cached_property
    def _of_holdout(self) -> float | None:
        """The standard error of the estimate for the holdout's own rows: as of other rows, it lacks the chance of their
        labels. How many times that of the realised value is larger there is taken to be the same elsewhere."""
        known = self._known
        return standard_error(self._on_holdout(self._whole), self._primary, known.clusterings, self._seed)

    @cached_property
    def _drawn(self) -> list[list[tuple[Estimation, float]]]:
        """For each kind of clusters of the holdout: estimations fitted on bootstrap samples, and the primary metric as
        each estimates it for its own sample."""
        only = {self._primary: self._targets[self._primary]} if self._primary in self._targets else self._targets
        samples = CURVES if self._task.estimated_from == "scores" else MODELS
        learner, found = self._learner(only), []
        for clusters in self._known.clusterings:
            random = np.random.default_rng(self._seed)
            drawn = [clusters.draw(random) for _ in range(samples if clusters.count else 0)]
            fitted = [(learner.fit(sample.entity_weights), sample) for sample in drawn]
            found.append([(each, self._on_holdout(each).value(self._primary, sample)) for each, sample in fitted])
        return [each for each in found if each]

    def _learner(self, targets: Mapping[str, np.ndarray]) -> "Curves | Losses":
        learner = Curves if self._task.estimated_from == "scores" else Losses
        return learner(targets, self._known.scored.values, self._known.features)

    def _on_holdout(self, estimation: Estimation) -> Scored:
        return self._expected(self._known.features, self._known.scored.values, estimation)

    def _expected(self, features: np.ndarray, scores: np.ndarray, estimation: Estimation) -> Scored:
        nothing = np.zeros(len(scores), dtype=np.int64)
        targets = estimation(scores, features)
        return self._task.expected(EvaluationSet(nothing, None, nothing), scores, self._known.served, targets)


class Curves:
    """Each of the `targets` as a curve that never falls of the score in its place: isotonic regression, straight
    between the scores that occur. Source: Zadrozny & Elkan, Transforming Classifier Scores into Accurate Multiclass
    Probability Estimates, KDD 2002."""

    def __init__(self, targets: Mapping[str, np.ndarray], scores: np.ndarray, features: np.ndarray) -> None:
        columns = scores.reshape(len(scores), -1).T
        self._targets = [
            (name, *np.unique(column, return_inverse=True), values)
            for (name, values), column in zip(targets.items(), columns, strict=True)
        ]

    def fit(self, weights: np.ndarray) -> Estimation:
        """On rows that count `weights` times, [n]."""
        from scipy.optimize import isotonic_regression

        fitted: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name, points, rows, values in self._targets:
            counts, sums = np.bincount(rows, weights), np.bincount(rows, weights * values)
            used = counts > 0
            curve = isotonic_regression(sums[used] / counts[used], weights=counts[used]).x
            fitted[name] = points[used].astype(np.float64), curve

        def estimation(scores: np.ndarray, features: np.ndarray) -> dict[str, np.ndarray]:
            columns = scores.reshape(len(scores), -1)
            return {name: np.interp(columns[:, place], *points) for place, (name, points) in enumerate(fitted.items())}

        return estimation


class Losses:
    """Each of the `targets`, which are not negative, as learned from features and score by gradient-boosted trees."""

    def __init__(self, targets: Mapping[str, np.ndarray], scores: np.ndarray, features: np.ndarray) -> None:
        self._targets, self._matrix = targets, np.column_stack([features, scores])

    def fit(self, weights: np.ndarray) -> Estimation:
        """On rows that count `weights` times, [n]."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        used = weights > 0
        matrix, counts = self._matrix[used], weights[used]
        fitted = {
            name: HistGradientBoostingRegressor(random_state=0).fit(matrix, values[used], sample_weight=counts)
            for name, values in self._targets.items()
        }

        def estimation(scores: np.ndarray, features: np.ndarray) -> dict[str, np.ndarray]:
            matrix = np.column_stack([features, scores])
            return {name: np.maximum(model.predict(matrix), 0.0) for name, model in fitted.items()}

        return estimation


def compared(estimate: Estimate, window: Days, primary: str, realised: float, spec: MonitoringSpec) -> ComparedEstimate:
    """What was estimated for a window beside what its labels showed."""
    value = estimate.metrics[primary]
    inside = abs(realised - value) <= _width(estimate, spec)
    return ComparedEstimate(
        window=window, estimated=value, realised=realised, standard_error=estimate.error, inside=inside
    )


def estimated_performance(
    estimate: Estimate,
    window: Days,
    rows: int,
    test: Degradation,
    rule: MetricRule,
    earlier: Sequence[ComparedEstimate],
    spec: MonitoringSpec,
) -> EstimatedPerformance:
    """The estimate for `window`, the `test` of its drop, and whether it is trusted because of `earlier` estimates."""
    value, width = estimate.metrics[test.metric], _width(estimate, spec)
    return EstimatedPerformance(
        window=window,
        rows=rows,
        metrics=estimate.metrics,
        standard_error=estimate.error,
        low=max(value - width, rule.low),
        high=min(value + width, rule.high),
        test=test,
        compared=list(earlier),
        degraded=test.degraded,
        trusted=have_been_right(earlier, test.allowed),
    )


def have_been_right(earlier: Sequence[ComparedEstimate], allowed: float) -> bool:
    """Whether estimates have been right: at least MINIMUM_COMPARED of them were compared with what labels showed, the
    realised value lay in the interval of at least the share MINIMUM_INSIDE of them, and their mean absolute error is at
    most the `allowed` drop, so that an estimate can tell one from no drop."""
    if len(earlier) < MINIMUM_COMPARED:
        return False
    inside = sum(each.inside for each in earlier) / len(earlier)
    return inside >= MINIMUM_INSIDE and sum(abs(each.error) for each in earlier) / len(earlier) <= allowed


def _width(estimate: Estimate, spec: MonitoringSpec) -> float:
    """Half of the interval in which the realised value is expected."""
    return float(norm.isf((1 - spec.confidence) / 2) * estimate.error)
