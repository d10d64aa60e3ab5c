"""The section `task` of a model spec: what kind of prediction the model makes, and how one becomes a decision.

Each of our kinds has a section here, so that a spec is checked where it is read. Another kind has its module in
training/domain/tasks (or an entry point) and checks its own section when the task is made: `make check` does that.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from training.contract.base import Spec
from training.contract.columns import Column
from training.contract.feeds import Share
from training.contract.problems import Mistake, raise_contradictions
from training.contract.registries import KnownTask


class MetricRule(NamedTuple):
    """Which values of a metric are better, and between which values it lies."""

    higher_is_better: bool
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 where higher values are better, else -1."""
        return 1 if self.higher_is_better else -1

    @property
    def bounded(self) -> bool:
        """Whether the metric has no unit: it lies between 0 and 1."""
        return (self.low, self.high) == (0, 1)


_INFINITE = float("inf")
_SHARE = MetricRule(True, 0, 1)
_LOSS = MetricRule(False, 0, _INFINITE)
#: Of a decision, or of each class against all others. The names are Fairlearn's.
_DECISION_RATES = ("selection_rate", "true_positive_rate", "false_positive_rate", "error_rate")


class Relative(Spec):
    """A share of the value that is compared with: 0.02 is 2 %."""

    relative: float = Field(ge=0)


#: An absolute difference of a metric, or one relative to the other's value.
Margin = Annotated[float, Field(ge=0)] | Relative


def allowed(margin: Margin, other: float) -> float:
    """The absolute difference from `other` that `margin` allows."""
    return margin.relative * abs(other) if isinstance(margin, Relative) else margin


class TaskSection(Spec):
    """What the sections of our kinds have in common."""

    #: Metric → its rule. None: only the kind itself knows.
    METRICS: ClassVar[Mapping[str, MetricRule] | None] = None
    #: Metrics that cannot be the primary one, because the naive reference is perfect in them or does not have them.
    NEVER_PRIMARY: ClassVar[frozenset[str]] = frozenset()
    #: Defaults of `evaluation`.
    PRIMARY: ClassVar[str] = ""
    K: ClassVar[int] = 1
    #: Whether a positive label may end an entity's events.
    ENDS_ENTITIES: ClassVar[bool] = False
    #: Whether `unlabelled_after_delay: negative` means anything.
    HAS_NEGATIVES: ClassVar[bool] = False
    #: Whether decisions raise alerts, whose rate a guard can limit.
    HAS_ALERTS: ClassVar[bool] = False
    #: The measures by which groups are compared (evaluation.fairness). None: only the kind itself knows.
    GROUP_MEASURES: ClassVar[tuple[str, ...] | None] = None
    #: Defaults of `rollout.guards`, where they are not those of GuardSpec.
    GUARDS: ClassVar[Mapping[str, Any]] = {}

    kind: str

    @property
    def rules(self) -> Mapping[str, MetricRule] | None:
        """The metrics of this task. None: only the kind itself knows."""
        return self.METRICS

    @property
    def alert_rate(self) -> float:
        """The share of events that the decision is set to raise an alert for; 0 when it is not set by a share."""
        return 0.0

    @property
    def reference_columns(self) -> tuple[str, ...]:
        """Columns of events that the naive reference needs in the dataset."""
        return ()

    def label_mistakes(self, column: Column, only_positives: bool) -> Iterator[Mistake]:
        """Why `column` cannot be the label: (field of the column, rest of the sentence, what to do).

        `only_positives`: an event without a report counts as negative.
        """
        yield from ()


class BinaryCosts(Spec):
    """What a decision costs for each true label, in any unit."""

    false_positive: float = Field(ge=0)
    false_negative: float = Field(ge=0)
    true_positive: float = 0.0
    true_negative: float = 0.0

    @model_validator(mode="after")
    def _errors_cost_more(self) -> "BinaryCosts":
        found: list[Mistake] = []
        for wrong, right in (("false_positive", "true_negative"), ("false_negative", "true_positive")):
            if getattr(self, wrong) <= getattr(self, right):
                what = f"is {getattr(self, wrong):g}, not above {right} ({getattr(self, right):g})"
                found.append((wrong, what, "An error must cost more than the right decision."))
        raise_contradictions(found)
        return self


class BinaryDecision(Spec):
    """How a score becomes an alert. Give one of the three; without any it is `alert_rate: 0.005`."""

    alert_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The share of the holdout's events with an alert. It sets the threshold of each version when it is trained."""
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    """A fixed threshold. Scores at or above it raise an alert."""
    costs: BinaryCosts | None = None
    """The threshold is where an alert begins to cost less than none. This needs scores that are probabilities."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "BinaryDecision":
        given = [name for name in ("alert_rate", "threshold", "costs") if getattr(self, name) is not None]
        if len(given) > 1:
            raise_contradictions([(given[1], f"is given beside {given[0]}", "Give one of them.")])
        return self


class BinaryTask(TaskSection):
    """An event is positive or not. The score is the probability that it is."""

    METRICS = {
        "roc_auc": _SHARE,
        "average_precision": _SHARE,
        "log_loss": _LOSS,
        "brier": MetricRule(False, 0, 1),
        "precision_at_decision": _SHARE,
        "recall_at_decision": _SHARE,
        "precision_at_k": _SHARE,
    }
    NEVER_PRIMARY = frozenset({"recall_at_decision"})
    GROUP_MEASURES = _DECISION_RATES
    PRIMARY = "average_precision"
    K = 100
    ENDS_ENTITIES = True
    HAS_NEGATIVES = True
    HAS_ALERTS = True

    kind: Literal["binary"]
    decision: BinaryDecision = BinaryDecision()

    @property
    def alert_rate(self) -> float:
        decision = self.decision
        if decision.threshold is None and decision.costs is None:
            return decision.alert_rate or DEFAULT_ALERT_RATE
        return 0.0

    def label_mistakes(self, column: Column, only_positives: bool) -> Iterator[Mistake]:
        if _is_whole(column):
            if not _zero_or_one(column):
                what = "must limit the label to 0 and 1"
                yield "values", what, "Write `values: [0, 1]`. 1 is the positive class."
        elif column.kind != "bool":
            what = f"is {column.type}, but the label of a binary task must be an integer (0 or 1) or bool"
            yield "type", what, "Deliver the label as 0 and 1 or as a boolean. 1 is the positive class."
        if _only_positive(column) and not only_positives:
            what = "allows positive labels only, so no event would ever be negative"
            fix = "Allow both values, or write `unlabelled_after_delay: negative` if the feed only has positives."
            yield "minimum" if column.values is None else "values", what, fix


#: The decision of a binary task unless the spec says otherwise.
DEFAULT_ALERT_RATE = 0.005


#: The decision of a multiclass task whose highest probability is below `reject_below`.
REJECT = "reject"


class MulticlassDecision(Spec):
    """How probabilities become a decision: the likeliest class, unless there are costs."""

    reject_below: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decide `reject` when the highest probability is below it."""
    costs: Annotated[dict[str, dict[str, float]], Field(min_length=1)] | None = None
    """Decision → class that comes true → cost; 0 where it is left out. The decision of the least expected cost is
    taken. A decision may have any name, such as a class's or `reject`."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "MulticlassDecision":
        if self.costs is not None and self.reject_below is not None:
            fix = "Give one of them. With costs, `reject` may be a decision with costs of its own."
            raise_contradictions([("reject_below", "is given beside costs", fix)])
        return self


class MulticlassTask(TaskSection):
    """An event belongs to one of several classes. The outputs are the probabilities of all classes."""

    METRICS = {
        "log_loss": _LOSS,
        "macro_f1": _SHARE,
        "balanced_accuracy": _SHARE,
        "ovr_auc": _SHARE,
        "top_k_accuracy": _SHARE,
    }
    GROUP_MEASURES = _DECISION_RATES
    PRIMARY = "log_loss"
    K = 2
    GUARDS = {"maximum_score_shift": 0.25}

    kind: Literal["multiclass"]
    decision: MulticlassDecision = MulticlassDecision()

    def label_mistakes(self, column: Column, only_positives: bool) -> Iterator[Mistake]:
        if not (_is_whole(column) or column.kind in ("string", "bool")):
            what = f"is {column.type}, but the label of a multiclass task must be text, an integer or bool"
            yield "type", what, "Deliver the name of the class."
        if column.values is not None and len(column.values) < 2:
            yield "values", "allows one class only", "List all classes."
        if self.decision.reject_below is not None and REJECT in (column.values or ()):
            what = f"has the class {REJECT}, which is also the decision below task.decision.reject_below"
            yield "values", what, "Rename the class, or remove reject_below."


class IntervalSpec(Spec):
    """Prediction intervals by split conformal prediction: their half-width is a quantile of the absolute errors on rows
    that the fit did not see."""

    coverage: float = Field(0.9, gt=0.5, lt=1)
    """The share of labels that lie in their interval."""
    calibration_share: float = Field(0.2, ge=0.05, le=0.5)
    """The last part of the training window. It is not fitted; its errors set the width."""
    maximum_shortfall: Share = 0.05
    """The share of the holdout's labels in their interval may be this much below `coverage`."""


class ReferenceSpec(Spec):
    """The naive prediction that a first champion must beat: a statistic of the training labels."""

    statistic: Literal["mean", "median", "last"] = "mean"
    """`last`: the newest label of the group in the training window."""
    by: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Columns of events, such as an entity: one number for each of their values. Groups that the training window does
    not have get the number of all."""
    season: Literal["hour", "weekday"] | None = None
    """One number for each hour of the day or each day of the week, in UTC, within the group."""


class RegressionTask(TaskSection):
    """The label is a number, and so is the output."""

    METRICS = {
        "rmse": _LOSS,
        "mae": _LOSS,
        "median_absolute_error": _LOSS,
        "r2": MetricRule(True, -_INFINITE, 1),
        "pinball_loss": _LOSS,
        "interval_coverage": _SHARE,
    }
    NEVER_PRIMARY = frozenset({"interval_coverage"})
    GROUP_MEASURES = ("mean_error", "mean_absolute_error")
    PRIMARY = "rmse"
    GUARDS = {"maximum_score_shift": 0.25}

    kind: Literal["regression"]
    interval: IntervalSpec | None = None
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The quantile that the metric `pinball_loss` takes the output for."""
    reference: ReferenceSpec = ReferenceSpec()

    @property
    def rules(self) -> Mapping[str, MetricRule]:
        return {name: rule for name, rule in self.METRICS.items() if self.interval or name != "interval_coverage"}

    @property
    def reference_columns(self) -> tuple[str, ...]:
        return self.reference.by

    def label_mistakes(self, column: Column, only_positives: bool) -> Iterator[Mistake]:
        if not (_is_whole(column) or column.kind in ("float", "decimal")):
            what = f"is {column.type}, but the label of a regression must be a number"
            yield "type", what, "Deliver the label as a number."


class OtherTask(TaskSection):
    """The section of another kind. Its own fields are checked when the task is made."""

    model_config = ConfigDict(extra="allow")
    HAS_ALERTS = True

    kind: KnownTask


_SECTIONS = ("binary", "multiclass", "regression")


def _tag(section: Any) -> str:
    kind = section.get("kind") if isinstance(section, dict) else getattr(section, "kind", None)
    return kind if kind in _SECTIONS else "other"


Task = Annotated[
    Annotated[BinaryTask, Tag("binary")]
    | Annotated[MulticlassTask, Tag("multiclass")]
    | Annotated[RegressionTask, Tag("regression")]
    | Annotated[OtherTask, Tag("other")],
    Discriminator(_tag),
]


def defaults(section: Any, entity: str | None) -> dict[str, Any]:
    """The fields of `evaluation` whose default depends on the raw section `task`."""
    kind = _section_class(section)
    ends = kind.ENDS_ENTITIES and entity is not None
    return {"primary": kind.PRIMARY, "k": kind.K, "exclude_known_entities": ends}


def guard_defaults(section: Any) -> dict[str, Any]:
    """The fields of `rollout.guards` whose default depends on the raw section `task`."""
    return dict(_section_class(section).GUARDS)


def _section_class(section: Any) -> type[TaskSection]:
    kinds: dict[str, type[TaskSection]] = {
        "binary": BinaryTask,
        "multiclass": MulticlassTask,
        "regression": RegressionTask,
    }
    return kinds.get(_tag(section), OtherTask)


def _is_whole(column: Column) -> bool:
    return column.kind == "int"


def _zero_or_one(column: Column) -> bool:
    if column.values is not None:
        return {1} <= set(column.values) <= {0, 1}
    return column.minimum in (0, 1) and column.maximum == 1


def _only_positive(column: Column) -> bool:
    return column.minimum == 1 if column.values is None else set(column.values) == {1}
