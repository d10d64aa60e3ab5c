"""Multiclass classification: an event belongs to one of several classes; the scores are the probabilities of all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from training.contract.errors import ConfigError
from training.contract.names import listed, shown
from training.contract.registries import TASKS
from training.contract.tasks import REJECT, MulticlassTask
from training.domain.charts import Chart, Grid, Line
from training.domain.evaluation_set import EvaluationSet
from training.domain.row_measures import Calibrated, Rate, decision_rates
from training.domain.task_kind import Fitting, LabelledRows, Scored, ServedTask, TaskKind
from training.domain.tasks._ranking import Ranked, explained
from training.domain.tasks._weighted import EPSILON, mean


@dataclass(frozen=True)
class ServedMulticlass(ServedTask):
    """The scores are the probabilities of `classes`.

    The decision is the likeliest class, or `reject` when its probability is below `reject_below`. With `costs`
    [classes, decisions] it is the one of `costly` that costs the least on average.
    """

    classes: tuple[str, ...]
    reject_below: float | None = None
    costly: tuple[str, ...] = ()
    costs: tuple[tuple[float, ...], ...] = ()

    @property
    def output_names(self) -> tuple[str, ...]:
        return self.classes

    @property
    def decisions(self) -> tuple[str, ...]:
        return self.costly or (self.classes if self.reject_below is None else (*self.classes, REJECT))

    def outputs(self, scores: np.ndarray) -> np.ndarray:
        return scores.astype(np.float64)

    def scores(self, outputs: np.ndarray) -> np.ndarray:
        return outputs

    def decide(self, scores: np.ndarray) -> np.ndarray:
        if self.costly:
            return np.argmin(scores @ np.asarray(self.costs), axis=1)
        likeliest = np.argmax(scores, axis=1)
        if self.reject_below is None:
            return likeliest
        return np.where(scores.max(axis=1) < np.float32(self.reject_below), len(self.classes), likeliest)

    def explained(self, scores: np.ndarray) -> int:
        return int(np.argmax(scores[0]))

    def monitored(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "class": np.asarray(self.classes, dtype=object)[self.grouped(scores)],
            "probability": scores.max(axis=1),
        }

    @property
    def groups(self) -> tuple[str, ...]:
        return self.classes

    def grouped(self, scores: np.ndarray) -> np.ndarray:
        return np.argmax(scores, axis=1)

    def answer(self, outputs: Sequence[float]) -> dict[str, Any]:
        probabilities = dict(zip(self.classes, outputs, strict=True))
        return {"class": max(probabilities, key=probabilities.__getitem__), "probabilities": probabilities}

    def stored(self) -> dict[str, Any]:
        found: dict[str, Any] = {"kind": "multiclass", "classes": list(self.classes)}
        if self.costly:
            return found | {"decisions": list(self.costly), "costs": [list(row) for row in self.costs]}
        return found | ({} if self.reject_below is None else {"reject_below": self.reject_below})


class ScoredMulticlass(Scored):
    """`truth.labels` are names of classes. A class that the model does not know has the probability 0."""

    loss = "log loss"

    def __init__(
        self,
        truth: EvaluationSet,
        scores: np.ndarray,
        served: ServedMulticlass,
        metrics: Sequence[str],
        k: int,
    ) -> None:
        super().__init__(truth, scores, metrics)
        self._served, self.classes = served, served.classes
        known = list(served.classes)
        self._names = known + sorted(set(truth.labels.tolist()) - set(known))
        numbers = {name: number for number, name in enumerate(self._names)}
        self._labels = np.array([numbers[name] for name in truth.labels.tolist()], dtype=np.int64)
        self._probabilities = np.zeros((len(truth.labels), len(self._names)), dtype=np.float32)
        self._probabilities[:, : len(known)] = self.values
        self._predicted = np.argmax(self._probabilities, axis=1)
        self._k = min(k, len(self._names))

    def confusion(self, weights: np.ndarray) -> np.ndarray:
        """Rows of each class (first axis) by the likeliest class (second axis)."""
        size = len(self._names)
        return np.bincount(self._labels * size + self._predicted, weights, minlength=size**2).reshape(size, size)

    def _log_loss(self, weights: np.ndarray) -> float:
        return mean(self._losses, weights)

    def _macro_f1(self, weights: np.ndarray) -> float:
        """Mean of the F1 of all classes that occur as a label or as a prediction."""
        matrix = self.confusion(weights)
        labels, predictions = matrix.sum(axis=1), matrix.sum(axis=0)
        used = labels + predictions > 0
        return float((2 * np.diag(matrix)[used] / (labels + predictions)[used]).mean()) if used.any() else np.nan

    def _balanced_accuracy(self, weights: np.ndarray) -> float:
        """Mean of the recall of all classes that occur."""
        matrix = self.confusion(weights)
        labels = matrix.sum(axis=1)
        return float((np.diag(matrix)[labels > 0] / labels[labels > 0]).mean()) if labels.any() else np.nan

    def _ovr_auc(self, weights: np.ndarray) -> float:
        """Mean of the ROC AUC of each class against all others. Classes that do not occur are left out."""
        found = np.array([ranked.roc_auc(weights) for ranked in self._ranked])
        return float(found[np.isfinite(found)].mean()) if np.isfinite(found).any() else np.nan

    def _top_k_accuracy(self, weights: np.ndarray) -> float:
        """The share of rows whose class is among the k likeliest. Of equal ones the last counts as the likeliest, as in
        scikit-learn."""
        return mean(self._among_the_first, weights)

    @cached_property
    def _losses(self) -> np.ndarray:
        likely = self._probabilities[np.arange(len(self._labels)), self._labels].astype(np.float64)
        return -np.log(np.clip(likely, EPSILON, 1 - EPSILON))

    @cached_property
    def _ranked(self) -> list[Ranked]:
        return [
            Ranked((self._labels == number).astype(np.int64), self._probabilities[:, number])
            for number in range(len(self._names))
        ]

    @cached_property
    def _among_the_first(self) -> np.ndarray:
        first = np.argsort(self._probabilities, axis=1, kind="stable")[:, ::-1][:, : self._k]
        return (first == self._labels[:, np.newaxis]).any(axis=1).astype(np.float64)

    @property
    def losses(self) -> np.ndarray:
        return self._losses

    @property
    def calibrated(self) -> Calibrated:
        confidence = self._probabilities.max(axis=1).astype(np.float64)
        right = (self._predicted == self._labels).astype(np.float64)
        return Calibrated("the probability of the likeliest class", confidence, right)

    @property
    def rates(self) -> list[Rate]:
        """Of each class against all others. A decision that is no class, such as `reject`, is none of them."""
        decided = np.array(self._served.decided(self.values), dtype=object)
        of_classes = [(decided == name, self._labels == number, name) for number, name in enumerate(self._names)]
        return [rate for each in of_classes for rate in decision_rates(*each)]

    def charts(self) -> list[Chart]:
        weights = np.ones(len(self._labels))
        names = tuple(self._names)
        ends = np.array([0.0, 1.0])
        curves = [
            ranked.roc(name)
            for number, (name, ranked) in enumerate(zip(names, self._ranked, strict=True))
            if 0 < (self._labels == number).sum() < len(self._labels)
        ]
        confidence, right = self._probabilities.max(axis=1), self._predicted == self._labels
        confusion = Grid(self.confusion(weights).astype(np.int64), names, names)
        return [
            Chart("confusion_matrix", "Likeliest class on the holdout", "likeliest class", "class", (confusion,)),
            Chart(
                "roc_curves",
                "ROC curve of each class on the holdout",
                "share of the others",
                "share of the class",
                (*curves, Line(ends, ends, "by chance", "dotted")),
            ),
            Chart(
                "calibration",
                "Calibration of the likeliest class on the holdout",
                "mean probability",
                "share of right ones",
                (Line(ends, ends, "calibrated", "dotted"), _reliability(confidence, right)),
            ),
        ]


class ExpectedMulticlass(ScoredMulticlass):
    """Measured by the probabilities `expected` [n, classes] of each row's class; `truth.labels` are not used.

    Source: NannyML's documentation, "Confidence-based Performance Estimation", Multiclass Classification.
    """

    def __init__(
        self,
        truth: EvaluationSet,
        scores: np.ndarray,
        served: ServedMulticlass,
        metrics: Sequence[str],
        k: int,
        expected: np.ndarray,
    ) -> None:
        likeliest = np.asarray(served.classes, dtype=object)[np.argmax(scores, axis=1)]
        super().__init__(replace(truth, labels=likeliest), scores, served, metrics, k)
        self._expected = expected

    def confusion(self, weights: np.ndarray) -> np.ndarray:
        size = len(self._names)
        rows = [np.bincount(self._predicted, weights * self._expected[:, k], minlength=size) for k in range(size)]
        return np.array(rows)

    @cached_property
    def _losses(self) -> np.ndarray:
        likely = np.clip(self._probabilities.astype(np.float64), EPSILON, 1 - EPSILON)
        return -(self._expected * np.log(likely)).sum(axis=1)

    @cached_property
    def _ranked(self) -> list[Ranked]:
        return [Ranked(self._expected[:, k], self._probabilities[:, k]) for k in range(len(self._names))]

    @cached_property
    def _among_the_first(self) -> np.ndarray:
        first = np.argsort(self._probabilities, axis=1, kind="stable")[:, ::-1][:, : self._k]
        return np.take_along_axis(self._expected, first, axis=1).sum(axis=1)


@TASKS.register("multiclass")
class Multiclass(TaskKind):
    target = "classes"
    answer_schema = {
        "class": {"type": "string", "description": "The likeliest class."},
        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
        "decision": {"type": "string", "description": "A class, or `reject`; with costs, one of their decisions."},
    }
    ordered = False

    def truth(self, labels: np.ndarray) -> np.ndarray:
        """The names of the classes: text as it is, other values as their text."""
        return np.array([_name(value) for value in np.asarray(labels).tolist()], dtype=object)

    def counts(self, truth: np.ndarray) -> dict[str, int]:
        names, rows = np.unique(truth.astype(str), return_counts=True)
        return dict(zip(names.tolist(), rows.tolist(), strict=True))

    def lacks_to_fit(self, truth: np.ndarray, minimum: int) -> str:
        counts = self.counts(truth)
        few = [f"{rows} of {shown(name)}" for name, rows in counts.items() if rows < minimum]
        if few:
            return f"{', '.join(few)}, where {minimum} of each class are needed"
        return f"{len(counts)} class, where two are needed" if len(counts) < 2 else ""

    def lacks_to_measure(self, truth: np.ndarray, minimum: int) -> str:
        enough = [rows for rows in self.counts(truth).values() if rows >= minimum]
        return "" if len(enough) > 1 else f"{len(enough)} classes with {minimum} rows, where two are needed"

    def encode(self, truth: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        names, numbers = np.unique(truth.astype(str), return_inverse=True)
        return numbers.astype(np.int64), tuple(names.tolist())

    def fit(self, fitting: Fitting) -> ServedMulticlass:
        decision = self._section.decision
        self._check_classes(fitting.classes)
        if decision.costs is None:
            return ServedMulticlass(fitting.classes, decision.reject_below)
        named = {name for costs in decision.costs.values() for name in costs}
        if unknown := sorted(named - set(fitting.classes)):
            problem = f"task.decision.costs names {listed(unknown)}, which is no class of the training rows"
            raise ConfigError(problem, hint=f"The classes are {listed(fitting.classes)}.")
        costs = tuple(tuple(float(of.get(name, 0.0)) for of in decision.costs.values()) for name in fitting.classes)
        return ServedMulticlass(fitting.classes, None, tuple(decision.costs), costs)

    def _check_classes(self, classes: tuple[str, ...]) -> None:
        """Raises ConfigError where the spec does not suit the classes that the training rows have."""
        if self._section.decision.reject_below is not None and REJECT in classes:
            problem = f"A class is named {REJECT}, which is also the decision below task.decision.reject_below"
            raise ConfigError(problem, hint="Rename the class, or remove reject_below.")
        k = self.evaluation.k
        if self.evaluation.primary == "top_k_accuracy" and k >= len(classes):
            problem = f"evaluation.primary is top_k_accuracy with k = {k}, which is always 1 for {len(classes)} classes"
            raise ConfigError(problem, hint="Lower evaluation.k, or choose another primary metric.")

    @staticmethod
    def served(stored: Mapping[str, Any]) -> ServedMulticlass:
        return ServedMulticlass(
            tuple(stored["classes"]),
            stored.get("reject_below"),
            tuple(stored.get("decisions", ())),
            tuple(tuple(row) for row in stored.get("costs", ())),
        )

    def sample(self, truth: np.ndarray, random: np.random.Generator, maximum: int) -> np.ndarray:
        """An equal part of every class, and all rows of a rare one."""
        classes = np.unique(truth.astype(str), return_inverse=True)[1]
        share = maximum // (int(classes.max()) + 1)
        rows = [random.permutation(np.flatnonzero(classes == number))[:share] for number in range(classes.max() + 1)]
        return np.sort(np.concatenate(rows))

    def scored(self, truth: EvaluationSet, scores: np.ndarray, served: ServedTask) -> ScoredMulticlass:
        assert isinstance(served, ServedMulticlass)
        return ScoredMulticlass(truth, scores, served, tuple(self.rules), self.evaluation.k)

    def targets(self, scored: Scored) -> dict[str, np.ndarray]:
        """Whether each class that the model knows is that of the row."""
        assert isinstance(scored, ScoredMulticlass)
        return {name: (scored.truth.labels == name).astype(np.float64) for name in scored.classes}

    def expected(
        self, rows: EvaluationSet, scores: np.ndarray, served: ServedTask, targets: Mapping[str, np.ndarray]
    ) -> ExpectedMulticlass:
        assert isinstance(served, ServedMulticlass)
        raised = np.column_stack([targets[name] for name in served.classes])
        total = raised.sum(axis=1, keepdims=True)
        # Where no class is expected, what the model says.
        probabilities = np.where(total > 0, raised / np.where(total > 0, total, 1), scores)
        return ExpectedMulticlass(rows, scores, served, tuple(self.rules), self.evaluation.k, probabilities)

    def reference(self, train: LabelledRows, rows: LabelledRows) -> tuple[str, np.ndarray, ServedMulticlass]:
        counts = self.counts(train.labels)
        shares = np.array(list(counts.values()), dtype=np.float32) / len(train.labels)
        told = ", ".join(f"{shown(name)} {share:.1%}" for name, share in zip(counts, shares, strict=True))
        scores = np.tile(shares, (len(rows.labels), 1))
        return f"the shares of the classes in training, {told}", scores, ServedMulticlass(tuple(counts))

    def predicted(self, truth: np.ndarray) -> dict[str, np.ndarray]:
        """Whether each class is that of the row."""
        return {name: (truth.astype(str) == name).astype(np.float64) for name in self.counts(truth)}

    def explained(self, actual: np.ndarray, scores: np.ndarray) -> float:
        return explained(actual, scores)

    def charts(self, truth: np.ndarray, scores: np.ndarray, served: ServedTask) -> list[Chart]:
        rows = EvaluationSet(truth, None, np.zeros(len(truth), dtype=np.int64))
        return self.scored(rows, scores, served).charts()

    @property
    def _section(self) -> MulticlassTask:
        assert isinstance(self.spec.task, MulticlassTask)
        return self.spec.task


def _name(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _reliability(confidence: np.ndarray, right: np.ndarray) -> Line:
    """Mean probability and share of right predictions in ten bins of equal numbers of rows."""
    parts = [part for part in np.array_split(np.argsort(confidence, kind="stable"), 10) if len(part)]
    x, y = (np.array([values[part].mean() for part in parts]) for values in (confidence, right))
    return Line(x, y, f"{len(parts)} bins of rows", "marked")
