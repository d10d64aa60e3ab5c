"""Binary classification: an event is positive or not; the score is the probability that it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from training.contract.errors import DataContractError
from training.contract.predictions import ALERT, PASS, SCORE
from training.contract.registries import TASKS
from training.contract.tasks import BinaryTask
from training.domain.charts import Chart, Grid, Line
from training.domain.evaluation_set import EvaluationSet
from training.domain.resampling import Sample
from training.domain.row_measures import Calibrated, Rate, decision_rates
from training.domain.task_kind import Fitting, LabelledRows, Scored, ServedTask, TaskKind
from training.domain.tasks._precision_at_k import DailyEntities
from training.domain.tasks._ranking import Ranked, calibration, explained
from training.domain.tasks._weighted import EPSILON, mean

_CALIBRATION_BINS = 10
#: Between the groups of scores.
_BOUNDS = 1 / (1 + np.exp(-np.arange(-20, 21) / 2))


@dataclass(frozen=True)
class ServedBinary(ServedTask):
    """Scores at or above `threshold` raise an alert."""

    threshold: float

    output_names = (SCORE,)
    decisions = (PASS, ALERT)

    #: Ranges of half a unit of log-odds, which are narrow near 0, where the scores of rare events lie.
    groups = tuple(f"{low:.5f}" for low in (0.0, *_BOUNDS))

    def outputs(self, scores: np.ndarray) -> np.ndarray:
        return scores.astype(np.float64)[:, np.newaxis]

    def scores(self, outputs: np.ndarray) -> np.ndarray:
        return outputs[:, 0]

    def decide(self, scores: np.ndarray) -> np.ndarray:
        return (scores >= self._rounded).astype(np.int64)

    @cached_property
    def _rounded(self) -> float:
        """A score that was rounded to float32 must not miss its own threshold."""
        return float(np.float32(self.threshold))

    def answers(self, scores: np.ndarray) -> list[dict[str, Any]]:
        # As the base class does, in a third of the time for a single row.
        rounded, threshold = self._rounded, self.threshold
        return [
            {"score": score, "decision": ALERT if score >= rounded else PASS, "threshold": threshold}
            for score in scores.tolist()
        ]

    def grouped(self, scores: np.ndarray) -> np.ndarray:
        return np.searchsorted(_BOUNDS, scores, side="right")

    def answer(self, outputs: Sequence[float]) -> dict[str, Any]:
        return {"score": outputs[0], "threshold": self.threshold}

    def stored(self) -> dict[str, Any]:
        return {"kind": "binary", "threshold": self.threshold}


class ScoredBinary(Scored):
    loss = "log loss"

    def __init__(
        self, truth: EvaluationSet, scores: np.ndarray, metrics: Sequence[str], k: int, alerts: np.ndarray
    ) -> None:
        super().__init__(truth, scores, metrics)
        self._k, self._alerts = k, alerts
        self._ranked = Ranked(truth.labels, self.values)

    def value(self, metric: str, sample: Sample | None = None) -> float:
        if metric == "precision_at_k":
            return self._daily.precision(self._k, sample or self.truth.whole)
        return super().value(metric, sample)

    @cached_property
    def _daily(self) -> DailyEntities:
        return DailyEntities(self.truth, self.values)

    def _roc_auc(self, weights: np.ndarray) -> float:
        return self._ranked.roc_auc(weights)

    def _average_precision(self, weights: np.ndarray) -> float:
        return self._ranked.average_precision(weights)

    def _log_loss(self, weights: np.ndarray) -> float:
        return mean(self._losses, weights)

    def _brier(self, weights: np.ndarray) -> float:
        """Mean squared difference of score and label (Brier, Verification of forecasts, 1950)."""
        return mean((self.values.astype(np.float64) - self.truth.labels) ** 2, weights)

    def _precision_at_decision(self, weights: np.ndarray) -> float:
        """0 without an alert, as scikit-learn has it by default."""
        alerts = weights @ self._alerts
        return float(weights @ (self._alerts * self.truth.labels) / alerts) if alerts else 0.0

    def _recall_at_decision(self, weights: np.ndarray) -> float:
        positives = weights @ self.truth.labels
        return float(weights @ (self._alerts * self.truth.labels) / positives) if positives else np.nan

    @cached_property
    def _losses(self) -> np.ndarray:
        likely = np.clip(self.values.astype(np.float64), EPSILON, 1 - EPSILON)
        return -np.where(self.truth.labels == 1, np.log(likely), np.log1p(-likely))

    @property
    def losses(self) -> np.ndarray:
        return self._losses

    @property
    def calibrated(self) -> Calibrated:
        return Calibrated("the score", self.values.astype(np.float64), self.truth.labels.astype(np.float64))

    @property
    def rates(self) -> list[Rate]:
        return decision_rates(self._alerts, self.truth.labels)


class ExpectedBinary(ScoredBinary):
    """Measured by the probabilities that rows are positive: `truth.labels` are these, not 0 and 1.

    The metrics then take the expected numbers of true and false alerts. Source: NannyML's documentation,
    "Confidence-based Performance Estimation". precision_at_k is left out: it needs the probability that some row of an
    entity is positive.
    """

    def _brier(self, weights: np.ndarray) -> float:
        return super()._brier(weights) + mean(self.truth.labels * (1 - self.truth.labels), weights)

    @cached_property
    def _losses(self) -> np.ndarray:
        likely, positive = np.clip(self.values.astype(np.float64), EPSILON, 1 - EPSILON), self.truth.labels
        return -(positive * np.log(likely) + (1 - positive) * np.log1p(-likely))


@TASKS.register("binary")
class Binary(TaskKind):
    target = "binary"
    answer_schema = {
        "score": {"type": "number", "description": "Probability of the positive class."},
        "decision": {"type": "string", "enum": [ALERT, PASS]},
        "threshold": {"type": "number", "description": "Scores at or above it raise an alert."},
    }

    def truth(self, labels: np.ndarray) -> np.ndarray:
        values = np.asarray(labels).astype(np.int64)
        if wrong := sorted(set(np.unique(values).tolist()) - {0, 1}):
            named = ", ".join(map(str, wrong[:5]))
            raise DataContractError(f"Labels must be 0 or 1, but there are {named}", "Correct the label column.")
        return values

    def counts(self, truth: np.ndarray) -> dict[str, int]:
        positives = int(truth.sum())
        return {"negative": len(truth) - positives, "positive": positives}

    def lacks_to_fit(self, truth: np.ndarray, minimum: int) -> str:
        return self.lacks_to_measure(truth, minimum)

    def lacks_to_measure(self, truth: np.ndarray, minimum: int) -> str:
        few = [f"{rows} {name}" for name, rows in self.counts(truth).items() if rows < minimum]
        return f"{' and '.join(few)}, where {minimum} of each class are needed" if few else ""

    def encode(self, truth: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        return truth, ("negative", "positive")

    def fit(self, fitting: Fitting) -> ServedBinary:
        decision, section = self._section.decision, self._section
        if decision.threshold is not None:
            return ServedBinary(decision.threshold)
        if costs := decision.costs:
            # An alert costs less from the probability on where both decisions cost the same (Elkan, The Foundations of
            # Cost-Sensitive Learning, IJCAI 2001, equation 2).
            of_alert = costs.false_positive - costs.true_negative
            of_none = costs.false_negative - costs.true_positive
            return ServedBinary(of_alert / (of_alert + of_none))
        return ServedBinary(threshold_at(fitting.holdout_scores, section.alert_rate))

    @staticmethod
    def served(stored: Mapping[str, Any]) -> ServedBinary:
        return ServedBinary(float(stored["threshold"]))

    def sample(self, truth: np.ndarray, random: np.random.Generator, maximum: int) -> np.ndarray:
        """All positive rows, and at least as many negative ones."""
        positive, negative = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
        negative = random.permutation(negative)[: max(maximum - len(positive), len(positive))]
        return np.sort(np.concatenate([positive, negative]))

    def scored(self, truth: EvaluationSet, scores: np.ndarray, served: ServedTask) -> ScoredBinary:
        assert isinstance(served, ServedBinary)
        values = np.asarray(scores)
        return ScoredBinary(truth, values, tuple(self.rules), self.evaluation.k, served.decide(values))

    def targets(self, scored: Scored) -> dict[str, np.ndarray]:
        return {"positive": scored.truth.labels.astype(np.float64)}

    def expected(
        self, rows: EvaluationSet, scores: np.ndarray, served: ServedTask, targets: Mapping[str, np.ndarray]
    ) -> ExpectedBinary:
        assert isinstance(served, ServedBinary)
        metrics = tuple(name for name in self.rules if name != "precision_at_k")
        truth, values = replace(rows, labels=targets["positive"]), np.asarray(scores)
        return ExpectedBinary(truth, values, metrics, self.evaluation.k, served.decide(values))

    def reference(self, train: LabelledRows, rows: LabelledRows) -> tuple[str, np.ndarray, ServedBinary]:
        prevalence = float(train.labels.mean())
        scores = np.full(len(rows.labels), prevalence, dtype=np.float32)
        return f"the share of positives in training, {prevalence:.4f}", scores, ServedBinary(prevalence)

    def predicted(self, truth: np.ndarray) -> dict[str, np.ndarray]:
        return {SCORE: truth.astype(np.float64)}

    def explained(self, actual: np.ndarray, scores: np.ndarray) -> float:
        return explained(actual, scores)

    def charts(self, truth: np.ndarray, scores: np.ndarray, served: ServedTask) -> list[Chart]:
        ranked, share = Ranked(truth, scores), truth.mean()
        ends, alerts = np.array([0.0, 1.0]), served.decide(scores)
        assert alerts is not None
        curve = calibration(truth, scores, _CALIBRATION_BINS)
        diagonal = np.array([min(curve.x.min(), curve.y.min()), 1.0])
        chance = Line(ends, np.array([share, share]), f"by chance: {share:.4f}", "dotted")
        confusion = Grid(
            np.bincount(2 * truth + alerts, minlength=4).reshape(2, 2), ("negative", "positive"), served.decisions
        )
        return [
            Chart(
                "pr_curve",
                "Precision and recall on the holdout",
                "recall",
                "precision",
                (ranked.precision_recall(), chance),
            ),
            Chart(
                "roc_curve",
                "ROC curve on the holdout",
                "share of negatives",
                "share of positives",
                (ranked.roc(), Line(ends, ends, "by chance", "dotted")),
            ),
            Chart(
                "calibration",
                "Calibration on the holdout",
                "mean score",
                "share of positives",
                (Line(diagonal, diagonal, "calibrated", "dotted"), curve),
                logarithmic=True,
            ),
            Chart("confusion_matrix", "Decisions on the holdout", "decision", "label", (confusion,)),
        ]

    @property
    def _section(self) -> BinaryTask:
        assert isinstance(self.spec.task, BinaryTask)
        return self.spec.task


def threshold_at(scores: np.ndarray, alert_rate: float) -> float:
    """The lowest threshold at which at most the share `alert_rate` of `scores`, and at least one score, has an alert.

    Scores at or above the threshold do. When many scores tie at the top, the share may be higher.
    """
    ranked = np.sort(scores)[::-1]
    allowed = max(1, int(alert_rate * len(ranked)))
    candidate = ranked[allowed - 1]
    if np.count_nonzero(scores >= candidate) <= allowed:
        return float(candidate)
    # Several scores are equal to the candidate. Take only the higher ones, if there are any.
    above = ranked[ranked > candidate]
    return float(above[-1]) if len(above) else float(candidate)
