"""Regression: label and score are numbers. Prediction intervals by split conformal prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np

from training.contract.errors import DataContractError
from training.contract.registries import TASKS
from training.contract.tasks import RegressionTask
from training.domain.charts import Chart, Cloud, Histogram, Line
from training.domain.evaluation_set import EvaluationSet
from training.domain.resampling import Sample
from training.domain.row_measures import Calibrated, Rate
from training.domain.task_kind import Fitting, LabelledRows, Scored, ServedTask, TaskKind
from training.domain.tasks._weighted import mean, median

#: Parts of the holdout's scores, by which the outputs of two versions are compared.
GROUPS = 20
#: The places of the quartiles among the bounds of the groups.
_QUARTILES = (GROUPS // 4 - 1, 3 * GROUPS // 4 - 1)


@dataclass(frozen=True)
class ServedRegression(ServedTask):
    """The score is the prediction. With `half_width`, the interval around it covers the share `coverage` of labels.

    `bounds` divide the scores of the holdout into GROUPS parts of equal size.
    """

    half_width: float | None = None
    coverage: float | None = None
    bounds: tuple[float, ...] = ()

    @property
    def output_names(self) -> tuple[str, ...]:
        return ("value",) if self.half_width is None else ("value", "lower", "upper")

    def outputs(self, scores: np.ndarray) -> np.ndarray:
        values = scores.astype(np.float64)
        if self.half_width is None:
            return values[:, np.newaxis]
        return np.column_stack([values, values - self.half_width, values + self.half_width])

    def scores(self, outputs: np.ndarray) -> np.ndarray:
        return outputs[:, 0]

    def monitored(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        return {"value": scores}

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(str(part) for part in range(1, len(self.bounds) + 2))

    def grouped(self, scores: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.bounds, scores, side="right")

    def agree(self, scores: np.ndarray, other: ServedTask, others: np.ndarray) -> np.ndarray | None:
        """Whether the others lie in the interval around the scores. Without intervals, whether they are closer to them
        than the quartiles of the holdout are to each other. Where these are equal, the outer bounds take their place;
        where all bounds are equal, it cannot tell."""
        if self.half_width is not None:
            return np.abs(scores - others) <= self.half_width
        return None if self._spread is None else np.abs(scores - others) <= self._spread

    changed = "predictions change by {} of the distance between the quartiles of the holdout's predictions on average"

    def changes(self, scores: np.ndarray, others: np.ndarray) -> np.ndarray | None:
        """The distance of the two in those between the quartiles of the holdout's scores."""
        distances = np.abs(scores.astype(np.float64) - others)
        return None if self._spread is None else distances / self._spread

    @cached_property
    def _spread(self) -> float | None:
        """How far the quartiles of the holdout's scores are from each other; where these are equal, the outer bounds.
        None: all bounds are equal, or there are none."""
        if not self.bounds:
            return None
        quartiles, outer = ([self.bounds[place] for place in places] for places in (_QUARTILES, (0, -1)))
        return next((high - low for low, high in (quartiles, outer) if high > low), None)

    def answer(self, outputs: Sequence[float]) -> dict[str, Any]:
        if self.half_width is None:
            return {"value": outputs[0]}
        return {"value": outputs[0], "interval": {"lower": outputs[1], "upper": outputs[2], "coverage": self.coverage}}

    def stored(self) -> dict[str, Any]:
        found: dict[str, Any] = {"kind": "regression", "bounds": list(self.bounds)}
        return found if self.half_width is None else found | {"half_width": self.half_width, "coverage": self.coverage}


class ScoredRegression(Scored):
    loss = "squared error"

    def __init__(
        self,
        truth: EvaluationSet,
        scores: np.ndarray,
        metrics: Sequence[str],
        quantile: float,
        half_width: float | None,
    ) -> None:
        measured = [name for name in metrics if half_width is not None or name != "interval_coverage"]
        super().__init__(truth, scores, measured)
        self._quantile, self._half_width = quantile, half_width
        self._errors = truth.labels - self.values.astype(np.float64)

    def _rmse(self, weights: np.ndarray) -> float:
        return float(np.sqrt(mean(self._errors**2, weights)))

    def _mae(self, weights: np.ndarray) -> float:
        return mean(self._absolute, weights)

    def _median_absolute_error(self, weights: np.ndarray) -> float:
        return median(self._absolute, weights)

    def _r2(self, weights: np.ndarray) -> float:
        """1 − the squared errors over those of the labels' mean. NaN when the labels do not vary."""
        spread = weights @ (self.truth.labels - mean(self.truth.labels, weights)) ** 2
        return float(1 - weights @ self._errors**2 / spread) if spread > 0 else np.nan

    def _pinball_loss(self, weights: np.ndarray) -> float:
        """Koenker & Bassett, Regression Quantiles, Econometrica 46, 1978."""
        return mean(self._pinball, weights)

    def _interval_coverage(self, weights: np.ndarray) -> float:
        if self._half_width is None:
            return np.nan
        return mean((self._absolute <= self._half_width).astype(np.float64), weights)

    @cached_property
    def _pinball(self) -> np.ndarray:
        return np.maximum(self._quantile * self._errors, (self._quantile - 1) * self._errors)

    @cached_property
    def _absolute(self) -> np.ndarray:
        return np.abs(self._errors)

    @property
    def losses(self) -> np.ndarray:
        """Squared errors."""
        return self._errors**2

    @property
    def calibrated(self) -> Calibrated:
        inside = None if self._half_width is None else (self._absolute <= self._half_width).astype(np.float64)
        predicted = self.values.astype(np.float64)
        return Calibrated("the prediction", predicted, self.truth.labels, probability=False, inside=inside)

    @property
    def rates(self) -> list[Rate]:
        """Means of the error, prediction − label, and of its absolute value."""
        everything = np.ones(len(self._errors))
        return [Rate("mean_error", -self._errors, everything), Rate("mean_absolute_error", self._absolute, everything)]

    def each(self) -> dict[str, np.ndarray]:
        """Metric → what it is the mean of (rmse: the root of the mean), a number for each row."""
        found = {"rmse": self._errors**2, "mae": self._absolute, "pinball_loss": self._pinball}
        if self._half_width is not None:
            found["interval_coverage"] = (self._absolute <= self._half_width).astype(np.float64)
        return found


class ExpectedRegression(Scored):
    """Measured by the estimates of what each metric is the mean of: `targets`, metric → a number for each row."""

    def __init__(self, truth: EvaluationSet, scores: np.ndarray, targets: Mapping[str, np.ndarray]) -> None:
        super().__init__(truth, scores, tuple(targets))
        self._targets = targets

    def value(self, metric: str, sample: Sample | None = None) -> float:
        found = mean(self._targets[metric], (sample or self.truth.whole).entity_weights)
        return float(np.sqrt(found)) if metric == "rmse" else found

    @property
    def losses(self) -> np.ndarray | None:
        return self._targets.get("rmse")


@TASKS.register("regression")
class Regression(TaskKind):
    target = "number"
    answer_schema = {
        "value": {"type": "number", "description": "The prediction."},
        "interval": {
            "type": "object",
            "properties": {name: {"type": "number"} for name in ("lower", "upper", "coverage")},
            "required": ["lower", "upper", "coverage"],
            "description": "Labels lie in it with the probability `coverage`.",
        },
    }
    optional = frozenset({"interval"})
    estimated_from = "features"

    @property
    def limits(self) -> Mapping[str, float]:
        interval = self._section.interval
        return {} if interval is None else {"interval_coverage": interval.coverage - interval.maximum_shortfall}

    def truth(self, labels: np.ndarray) -> np.ndarray:
        values = np.asarray(labels, dtype=np.float64)
        if bad := np.count_nonzero(~np.isfinite(values)):
            problem = f"{bad} of {len(values)} labels are not finite numbers"
            raise DataContractError(problem, hint="Correct the label column.")
        return values

    def lacks_to_fit(self, truth: np.ndarray, minimum: int) -> str:
        return self.lacks_to_measure(truth, 2)

    def lacks_to_measure(self, truth: np.ndarray, minimum: int) -> str:
        if len(truth) < max(minimum, 2):
            return f"{len(truth)} rows, where {max(minimum, 2)} are needed"
        return f"one label only, {truth[0]:g}, in all {len(truth)} rows" if (truth == truth[0]).all() else ""

    def encode(self, truth: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        return truth, ()

    def calibration_rows(self, rows: int) -> int:
        interval = self._section.interval
        return 0 if interval is None else int(interval.calibration_share * rows)

    def fit(self, fitting: Fitting) -> ServedRegression:
        """Half the width is the ⌈(n + 1) · coverage⌉-th smallest absolute error of the n rows that were not fitted.

        Source: Lei, G'Sell, Rinaldo, Tibshirani & Wasserman, Distribution-Free Predictive Inference for Regression,
        JASA 113, 2018, algorithm 2.
        """
        bounds = _bounds(fitting.holdout_scores)
        interval = self._section.interval
        if interval is None or fitting.calibration is None:
            return ServedRegression(bounds=bounds)
        labels, scores = fitting.calibration
        errors = np.sort(np.abs(labels - scores.astype(np.float64)))
        rank = ceil((len(errors) + 1) * interval.coverage)
        if rank > len(errors):
            problem = f"{len(errors)} rows are too few to calibrate intervals that cover {interval.coverage:.1%}"
            raise DataContractError(problem, hint="Train on a longer window, or raise task.interval.calibration_share.")
        return ServedRegression(float(errors[rank - 1]), interval.coverage, bounds)

    @staticmethod
    def served(stored: Mapping[str, Any]) -> ServedRegression:
        return ServedRegression(stored.get("half_width"), stored.get("coverage"), tuple(stored.get("bounds", ())))

    def scored(self, truth: EvaluationSet, scores: np.ndarray, served: ServedTask) -> ScoredRegression:
        assert isinstance(served, ServedRegression)
        return ScoredRegression(truth, scores, tuple(self.rules), self._section.quantile, served.half_width)

    def targets(self, scored: Scored) -> dict[str, np.ndarray]:
        assert isinstance(scored, ScoredRegression)
        return scored.each()

    def expected(
        self, rows: EvaluationSet, scores: np.ndarray, served: ServedTask, targets: Mapping[str, np.ndarray]
    ) -> ExpectedRegression:
        """Means of losses: r2 and the median of the errors cannot be estimated from them."""
        return ExpectedRegression(rows, scores, targets)

    def reference(self, train: LabelledRows, rows: LabelledRows) -> tuple[str, np.ndarray, ServedRegression]:
        """A statistic of the training labels, for each group and season that occurs there; else for each group."""
        section = self._section.reference
        grouped = [section.by] if section.by else []
        if section.season:
            grouped.append((*section.by, section.season))
        found = np.full(len(rows.labels), _statistic(section.statistic, train.labels))
        for names in grouped:
            keys = [_keys(each, names) for each in (train, rows)]
            distinct, numbers = np.unique(np.concatenate(keys), return_inverse=True)
            known, wanted = numbers[: len(train.labels)], numbers[len(train.labels) :]
            values = np.full(len(distinct), np.nan)
            order = np.argsort(known, kind="stable")
            starts = np.flatnonzero(np.diff(known[order], prepend=-1))
            for rows_of in np.split(order, starts[1:]):
                values[known[rows_of[0]]] = _statistic(section.statistic, train.labels[rows_of])
            found = np.where(np.isnan(values[wanted]), found, values[wanted])
        by = ", ".join([*section.by, *([section.season] if section.season else [])])
        told = f"the {section.statistic} of the labels in training" + (f" by {by}" if by else "")
        return told, found.astype(np.float32), ServedRegression()

    def predicted(self, truth: np.ndarray) -> dict[str, np.ndarray]:
        return {"value": truth}

    def explained(self, actual: np.ndarray, scores: np.ndarray) -> float:
        """R²."""
        errors, spread = actual - scores.astype(np.float64), actual - actual.mean()
        return float(1 - errors @ errors / (spread @ spread)) if (spread != 0).any() else np.nan

    def charts(self, truth: np.ndarray, scores: np.ndarray, served: ServedTask) -> list[Chart]:
        both = np.array([min(truth.min(), scores.min()), max(truth.max(), scores.max())])
        diagonal = Line(both, both, "equal", "dotted")
        residuals = truth - scores
        zero = Line(np.array([scores.min(), scores.max()]), np.zeros(2), style="dotted")
        return [
            Chart(
                "predicted_against_actual",
                "Predicted against actual on the holdout",
                "label",
                "prediction",
                (Cloud(truth, scores), diagonal),
            ),
            Chart("residuals", "Residuals on the holdout", "label − prediction", "rows", (Histogram(residuals),)),
            Chart(
                "residuals_by_prediction",
                "Residuals by prediction on the holdout",
                "prediction",
                "label − prediction",
                (Cloud(scores, residuals), zero),
            ),
        ]

    @property
    def _section(self) -> RegressionTask:
        assert isinstance(self.spec.task, RegressionTask)
        return self.spec.task


def _bounds(scores: np.ndarray) -> tuple[float, ...]:
    """The scores that divide all of them into GROUPS parts of equal size."""
    if not len(scores):
        return ()
    return tuple(np.quantile(scores.astype(np.float64), np.arange(1, GROUPS) / GROUPS).tolist())


def _statistic(name: str, labels: np.ndarray) -> float:
    """Of labels in time order."""
    if name == "last":
        return float(labels[-1])
    return float(np.median(labels) if name == "median" else labels.mean())


def _keys(rows: LabelledRows, names: Sequence[str]) -> np.ndarray:
    """One text per row for the values of the columns and seasons `names`, [n]."""
    found = np.full(len(rows.labels), "", dtype=object)
    for name in names:
        found = found + "\x1f" + _column(rows, name)
    return found.astype(str)


def _column(rows: LabelledRows, name: str) -> np.ndarray:
    if name in rows.columns:
        return rows.columns[name].astype(str).astype(object)
    hours = rows.times.astype("datetime64[h]").astype(np.int64)
    numbers = hours % 24 if name == "hour" else hours // 24 % 7
    return numbers.astype(str).astype(object)
