"""The protocol of task kinds: all that depends on what kind of prediction a model makes.

A kind is one module of training/domain/tasks, or an entry point of the group `perennial.task`: a subclass of TaskKind
that registers itself,

    @TASKS.register("binary")
    class Binary(TaskKind): ...

and a ServedTask, which is what serving needs of it. Serving imports the module too: it imports NumPy only.

`scores` are what model.onnx returns, float32: [n] for the targets `binary` and `number`, [n, k] for `classes`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from training.contract.errors import ConfigError, DataContractError
from training.contract.messages import Metrics
from training.contract.model_spec import ModelSpec
from training.contract.names import Target
from training.contract.registries import TASKS
from training.contract.tasks import MetricRule
from training.domain.charts import Chart
from training.domain.evaluation_set import EvaluationSet, Rows
from training.domain.resampling import Sample
from training.domain.row_measures import Calibrated, Rate


class ServedTask(ABC):
    """What the scores of one version mean: made of what its artifact holds, `stored`."""

    @property
    @abstractmethod
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs in the prediction log."""

    @abstractmethod
    def outputs(self, scores: np.ndarray) -> np.ndarray:
        """The outputs for the prediction log, float64 [n, len(output_names)]."""

    def logged(self, scores: np.ndarray) -> list[list[float]]:
        """The outputs as a list for each row."""
        found: list[list[float]] = self.outputs(scores).tolist()
        return found

    @abstractmethod
    def scores(self, outputs: np.ndarray) -> np.ndarray:
        """The scores that gave these logged outputs [n, len(output_names)]."""

    @property
    def decisions(self) -> tuple[str, ...]:
        """All decisions that `decide` can make. Empty: this kind makes none."""
        return ()

    def decide(self, scores: np.ndarray) -> np.ndarray | None:
        """For each row the place of its decision in `decisions`, [n]. None: this kind makes no decisions."""
        return None

    @abstractmethod
    def answer(self, outputs: Sequence[float]) -> dict[str, Any]:
        """The fields of the HTTP answer for one row with these `outputs`, besides the decision."""

    def answers(self, scores: np.ndarray) -> list[dict[str, Any]]:
        """For each row the fields of the HTTP answer that are of this kind: those of `answer`, and the decision."""
        found = [self.answer(outputs) for outputs in self.outputs(scores).tolist()]
        for fields, decision in zip(found, self.decided(scores), strict=True):
            if decision:
                fields["decision"] = decision
        return found

    def decided(self, scores: np.ndarray) -> list[str]:
        """The decision of each row; empty where this kind makes none."""
        places = self.decide(scores)
        return [""] * len(scores) if places is None else [self.decisions[place] for place in places.tolist()]

    def explained(self, scores: np.ndarray) -> int:
        """The place in `output_names` of the output that an explanation of one row's `scores`, [1] or [1, k], is of."""
        return 0

    # What monitoring compares

    def monitored(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        """What monitoring compares with the holdout: name → a number or a text for each row, [n]."""
        outputs = self.outputs(scores)
        return {name: outputs[:, place] for place, name in enumerate(self.output_names)}

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups into which outputs are sorted to compare two versions; ranges are in ascending order."""
        return ("all",)

    def grouped(self, scores: np.ndarray) -> np.ndarray:
        """For each row the place of its group in `groups`, [n]."""
        return np.zeros(len(scores), dtype=np.int64)

    def agree(self, scores: np.ndarray, other: "ServedTask", others: np.ndarray) -> np.ndarray | None:
        """For each row whether the `others`, scores of another version, mean the same as `scores`: bool [n].

        None: this kind cannot tell.
        """
        if not self.decisions:
            return None
        return np.array([a == b for a, b in zip(self.decided(scores), other.decided(others), strict=True)], dtype=bool)

    #: What the mean of `changes` is, with the number as a percentage in place of {}.
    changed: ClassVar[str] = "{} of the decisions flip"

    def changes(self, scores: np.ndarray, others: np.ndarray) -> np.ndarray | None:
        """How much the prediction of each row has changed where its `scores` became `others`: float64 [n], 1 where it
        means something else now. None: this kind cannot tell."""
        same = self.agree(scores, self, others)
        return None if same is None else 1.0 - same

    @abstractmethod
    def stored(self) -> dict[str, Any]:
        """The content of `task` in the artifact, with `kind`."""


class Scored:
    """Scores of the rows of an evaluation set, measured on all of them or on bootstrap samples."""

    def __init__(self, truth: EvaluationSet, scores: np.ndarray, metrics: Sequence[str]) -> None:
        """`metrics` are those that can be measured. Raises DataContractError unless each row has one finite score."""
        self.truth, self.values, self.metrics = truth, np.asarray(scores), metrics
        if len(self.values) != len(truth.labels) or not np.isfinite(self.values).all():
            problem = f"The scores have shape {self.values.shape} for {len(truth.labels)} rows, or are not all finite"
            raise DataContractError(problem, hint="Score every row, with a model that reproduces its golden rows.")

    def value(self, metric: str, sample: Sample | None = None) -> float:
        """One metric: by default what the method `_<metric>` makes of the rows' weights [n].

        NaN where it is not defined, such as for a sample without a positive row.
        """
        measured: float = getattr(self, f"_{metric}")((sample or self.truth.whole).entity_weights)
        return measured

    #: What `losses` are.
    loss: ClassVar[str] = ""

    @property
    def losses(self) -> np.ndarray | None:
        """What each row adds to the loss [n], to find where it is high. None: this kind has no loss of a single row."""
        return None

    @property
    def calibrated(self) -> Calibrated | None:
        """What was predicted and what came true. None: this kind has nothing to calibrate."""
        return None

    @property
    def rates(self) -> list[Rate]:
        """The measures by which groups are compared (evaluation.fairness). Empty: this kind has none."""
        return []

    def measure(self) -> Metrics:
        """All metrics on all rows. One that is not defined there is left out."""
        found = {metric: self.value(metric) for metric in self.metrics}
        return {metric: value for metric, value in found.items() if np.isfinite(value)}


@dataclass(frozen=True)
class LabelledRows:
    """Rows in time order: `labels` as `truth` gives them, `times` in UTC, and the columns of events that the task names
    in `reference_columns`, each [n]."""

    labels: np.ndarray
    times: np.ndarray
    columns: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Fitting:
    """What a fit left to decide by.

    `classes`: the names of the target's classes, in the order of the scores. `holdout_scores` are of all rows of the
    holdout. `calibration`: labels and scores of the rows that were not fitted; None when the task asks for none.
    """

    classes: tuple[str, ...]
    holdout_scores: np.ndarray
    calibration: tuple[np.ndarray, np.ndarray] | None = None


class TaskKind(ABC):
    """The task of one model, made of its spec."""

    #: What estimators learn.
    target: ClassVar[Target]
    #: The JSON Schema of each field of `ServedTask.answers`. Those of `optional` are not in every answer.
    answer_schema: ClassVar[Mapping[str, Any]]
    optional: ClassVar[frozenset[str]] = frozenset()
    #: Whether the groups of outputs are ranges in ascending order, so that neighbours can be taken together.
    ordered: ClassVar[bool] = True
    #: What `targets` are estimated from where labels have not come: each from the score in its place, which rises with
    #: it, or all from the features.
    estimated_from: ClassVar[Literal["scores", "features"]] = "scores"

    def __init__(self, spec: ModelSpec) -> None:
        """Raises ConfigError for a section that the kind does not accept."""
        self.spec, self.evaluation = spec, spec.evaluation

    @property
    def rules(self) -> Mapping[str, MetricRule]:
        """The metrics of the task. The first ones are shown first."""
        return self.spec.task.rules or {}

    @property
    def limits(self) -> Mapping[str, float]:
        """Limits of metrics that hold unless the spec sets others."""
        return {}

    # Labels

    @abstractmethod
    def truth(self, labels: np.ndarray) -> np.ndarray:
        """The labels [n] as metrics take them. Raises DataContractError for one that this kind does not have."""

    def counts(self, truth: np.ndarray) -> dict[str, int]:
        """Class → its rows, where labels are classes."""
        return {}

    @abstractmethod
    def lacks_to_fit(self, truth: np.ndarray, minimum: int) -> str:
        """What these labels lack to train on, given the least rows of a class. Empty: nothing."""

    @abstractmethod
    def lacks_to_measure(self, truth: np.ndarray, minimum: int) -> str:
        """What these labels lack for metrics, given the least rows of a class. Empty: nothing."""

    @abstractmethod
    def encode(self, truth: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """The labels as estimators take them for `target`, and the names of the classes (empty for a number)."""

    # Training

    def calibration_rows(self, rows: int) -> int:
        """How many of the last training rows the fit must not see."""
        return 0

    @abstractmethod
    def fit(self, fitting: Fitting) -> ServedTask:
        """What the artifact keeps of the task. Raises DataContractError when there are too few rows to calibrate on."""

    @staticmethod
    @abstractmethod
    def served(stored: Mapping[str, Any]) -> ServedTask:
        """What an artifact holds. Raises KeyError, TypeError or ValueError when it is not that of this kind."""

    def sample(self, truth: np.ndarray, random: np.random.Generator, maximum: int) -> np.ndarray:
        """About `maximum` rows on which a metric can be measured, as row numbers in order."""
        return np.sort(random.permutation(len(truth))[:maximum])

    # Measuring

    def evaluation_set(self, labels: Rows, entities: Rows | None, days: Rows, times: Rows | None) -> EvaluationSet:
        """Rows to measure on. Raises DataContractError when no metric is defined for their labels."""
        truth = self.truth(np.asarray(labels))
        if lacks := self.lacks_to_measure(truth, 1):
            problem = f"No metric is defined on the {len(truth)} evaluation rows: {lacks}"
            raise DataContractError(problem, hint="Evaluate on a longer window.")
        return EvaluationSet.of(truth, entities, days, times)

    @abstractmethod
    def scored(self, truth: EvaluationSet, scores: np.ndarray, served: ServedTask) -> Scored:
        """The scores of a version whose task is `served`."""

    def targets(self, scored: Scored) -> dict[str, np.ndarray]:
        """What must be known of rows to measure them, name → a number for each row [n]: taken from rows with labels, it
        is estimated for others. Empty: this kind cannot estimate its performance."""
        return {}

    def expected(
        self, rows: EvaluationSet, scores: np.ndarray, served: ServedTask, targets: Mapping[str, np.ndarray]
    ) -> Scored:
        """The scores of rows without labels, measured by the estimates of their `targets`. Its metrics are those that
        can be estimated. The labels of `rows` are not used."""
        raise NotImplementedError(f"{type(self).__name__} has no targets")

    @abstractmethod
    def reference(self, train: LabelledRows, rows: LabelledRows) -> tuple[str, np.ndarray, ServedTask]:
        """A naive prediction: what it is, its scores of `rows`, and what these mean. It sees only labels of `train`."""

    def predicted(self, truth: np.ndarray) -> dict[str, np.ndarray]:
        """Output of a model → what it predicts, as a number for each row: float64 [n]. Empty: this kind has no single
        outputs."""
        return {}

    def explained(self, actual: np.ndarray, scores: np.ndarray) -> float:
        """How much of `actual`, one of those of `predicted`, the `scores` [n] explain: 1 all, 0 nothing. NaN where that
        is not defined."""
        return float("nan")

    def charts(self, truth: np.ndarray, scores: np.ndarray, served: ServedTask) -> list[Chart]:
        """What a training run shows of the model on the holdout."""
        return []


def task_of(spec: ModelSpec) -> TaskKind:
    """The task of a model. Raises ConfigError for an unknown kind, or for metrics that the kind does not have."""
    task: TaskKind = TASKS.find(spec.task.kind)(spec)
    evaluation = spec.evaluation
    named = {evaluation.primary, *evaluation.limits, *evaluation.margins, evaluation.slices.metric} - {""}
    if unknown := sorted(named - set(task.rules)):
        problem = f"The task {spec.task.kind} has no metric {', '.join(map(repr, unknown))}"
        raise ConfigError(problem, hint=f"evaluation may name {', '.join(task.rules)}.")
    return task


def served_task(stored: Mapping[str, Any]) -> ServedTask:
    """The task that an artifact holds. Raises DataContractError when it cannot be read."""
    try:
        found: ServedTask = TASKS.find(stored["kind"]).served(stored)
    except (KeyError, TypeError, ValueError) as error:
        problem = f"The artifact's task {dict(stored)} cannot be read: {type(error).__name__}: {error}"
        raise DataContractError(problem, hint="Another version of this code wrote it. Train again.") from error
    return found
