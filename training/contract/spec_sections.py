"""The sections of a model spec: features, training, evaluation, monitoring, retraining, schedules."""

from typing import Annotated, Any, Literal

from pydantic import Field

from training.contract.approval_spec import ApprovalSpec
from training.contract.base import LONGEST_DAYS, DayCount, Spec
from training.contract.feeds import Share
from training.contract.gate_limits import CostLimits, LatencySpec, LeakageSpec, RobustnessSpec, StabilitySpec
from training.contract.names import DEFAULT_SERVICE, TRAINING_WINDOW_PATTERN, Metric, Name
from training.contract.registries import KnownDriftTest, KnownEstimator
from training.contract.resources import ResourcesSpec
from training.contract.retention_spec import ModelRetention
from training.contract.retraining_spec import RetrainingSpec
from training.contract.rollout_spec import RolloutSpec
from training.contract.scoring_spec import ScoringSpec
from training.contract.search_spec import SearchSpec
from training.contract.source_spec import SourceSpec
from training.contract.spec_file import SpecFile
from training.contract.tasks import Margin, Task
from training.contract.verdict_spec import CalibrationSpec, FairnessSpec, SlicesSpec


class NamedService(Spec):
    service: str
    """A feature service that `feature_repo/<source>.py` defines."""


#: How many days back a window reaches, or with which weights by age.
WindowName = Annotated[str, Field(pattern=TRAINING_WINDOW_PATTERN)]


class AfterChangeSpec(Spec):
    """How to train after monitoring has found the day of a change, as soon as labels allow. Docs: ADR 0003."""

    holdout_days: DayCount = 3
    """Instead of training.holdout_days, where that is longer."""
    gap_days: int = Field(0, ge=0, le=LONGEST_DAYS)
    """Days between training window and holdout, instead of the label delay, where that is longer."""
    train_days: DayCount = 4
    """The least days since the change to train on. Until they have their labels, no training is granted for it."""


class TrainingSpec(Spec):
    window_days: DayCount
    windows: Annotated[tuple[WindowName, ...], Field(strict=False)] = ()
    """Other windows to train on. Every estimator is also fitted on each of them, and the best candidate on the holdout
    is the challenger. `28d`: the last 28 days. `expanding`: all days with events. `half_life_7d`: weighted by age, so
    that a row that is 7 days older counts half as much. One that reaches back before the first event is left out."""
    after_change: AfterChangeSpec | None = None
    """Train with a shorter gap and holdout after a change that monitoring has dated, and with one more window: the days
    since the change. Unset: gap and holdout stay as usual."""
    holdout_days: DayCount = 7
    minimum_labelled_share: Share = 0.9
    """The least share of labelled events on every day of the training window and the holdout. A day with less lacks a
    delivery of labels."""
    minimum_rows: int = Field(1000, ge=1)
    minimum_class_rows: int = Field(50, ge=1)
    """The least training rows of each class. Regressions have no classes."""
    calibration: Literal["none", "sigmoid", "isotonic"] = "none"
    """How the probabilities of a binary or multiclass task are calibrated, on the last fifth of the training rows. The
    model is fitted on the rows before."""
    maximum_categories: int = Field(100, ge=1)
    """The most categories of a feature that is a text: the most frequent ones of the training rows. A column of events
    with `values` has these instead."""
    seed: int = 20240601
    estimators: dict[KnownEstimator, dict[str, Any]] = Field(min_length=1)
    """Estimator → its parameters. All are trained; the best on the holdout is the challenger. A name: a module of
    training/estimators, an entry point of the group `perennial.estimator`, or a path `package.module:factory`."""
    search: SearchSpec | None = None
    """Look for better parameters before the fit. Unset: the parameters are those of `estimators`."""


class EvaluationSpec(Spec):
    """When a challenger may serve. Gates fail closed."""

    primary: Metric = ""
    """The metric that decides. Default: `average_precision` (binary), `log_loss` (multiclass), `rmse` (regression)."""
    limits: dict[Metric, float]
    """The worst value of each metric on the holdout that may be promoted: the lowest, or the highest where lower values
    are better."""
    minimum_skill: float = Field(0.0, ge=0, lt=1)
    """The share of the way from a naive reference to a perfect model that a first champion must exceed, in the primary
    metric. The reference is the share of positives (binary), the shares of the classes (multiclass) or
    `task.reference`."""
    margins: dict[Metric, Margin] = {}
    """By how much a metric may be worse than the champion's: absolute, or `{relative: 0.02}` of the champion's."""
    k: int = Field(1, ge=1)
    """The k in precision@k, the entities that can be checked in a day (binary, default 100), and in top-k accuracy
    (multiclass, default 2)."""
    entity: str | None = None
    """The column whose values make rows depend on each other: the bootstrap draws all rows of one value together. It is
    the entity of precision@k and of the rule that follows. Without one, blocks of time are drawn."""
    exclude_known_entities: bool = False
    """Leave out entities whose positive label was already known at the start of the row's day. Default: true for a
    binary task with an entity."""
    bootstrap_samples: int = Field(500, ge=50)
    confidence: float = Field(0.9, gt=0.5, lt=1)
    robustness: RobustnessSpec = RobustnessSpec()
    cost: CostLimits = CostLimits()
    latency: LatencySpec = LatencySpec()
    stability: StabilitySpec = StabilitySpec()
    leakage: LeakageSpec = LeakageSpec()
    slices: SlicesSpec = SlicesSpec()
    calibration: CalibrationSpec = CalibrationSpec()
    fairness: FairnessSpec = FairnessSpec()


class MonitoringSpec(Spec):
    test: KnownDriftTest = "shares"
    """How a column is compared with the reference: `shares` (tests with p-values and false-discovery control) or
    `distance` (Evidently's distances and thresholds). A module of training/adapters/drift_tests, or an entry point of
    the group `perennial.drift_test`."""
    window_days: DayCount = 7
    minimum_shift: Share = 0.02
    """The least part of the rows that must have changed for a column to drift. For the test `shares`."""
    minimum_new_share: Share = 0.005
    """The least part of the rows with a value that the reference nearly lacks (a 0, a category, a missing value) for a
    column to drift. 1: such values count as any other change; so they do with the test `distance`, and with
    `seasonality: [year]`."""
    embeddings: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Columns of the event file with lists of floats of a fixed length. Each is compared as a whole: it drifts when a
    classifier can tell current values from those of the training window. Datasets keep these columns."""
    seasonality: Annotated[tuple[Literal["day_of_week", "hour_of_day", "year"], ...], Field(strict=False)] = ()
    """What may change without being drift. `day_of_week`, `hour_of_day` (UTC): the reference gets the window's mix of
    days or hours. `year`: the reference is the same week of the year before, where the lake has it."""
    maximum_drifted_share: Share | None = None
    """The data has drifted when this share of its features, entities and ages has, or an output. Unset: when any column
    has; with the test `distance` 0.3."""
    maximum_rows: int = Field(20_000, ge=100)
    """Rows of the window, and of the training window, that are sampled and compared. More find smaller changes."""
    minimum_rows: int = Field(1000, ge=1)
    """With fewer events in the window nothing is compared: little can be found in them."""
    maximum_performance_drop: Margin | None = None
    """By how much the primary metric on matured labels may be worse than on the holdout, beyond chance: absolute, or
    `{relative: 0.1}`. Default: a tenth of the holdout's value, and of a metric between 0 and 1 at most 0.05."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """The probability that an unchanged champion is never called degraded, and unchanged data never called drifted,
    however often they are looked at."""
    minimum_class_rows: int = Field(20, ge=1)
    """Performance is measured when the matured window has this many labels of each class, or of two classes when there
    are more than two. A regression needs this many labels."""
    maximum_unmeasured_looks: int = Field(3, ge=1)
    """The monitoring run fails when this many runs in a row, each on another day, could not measure drift or
    performance because events, predictions or labels were missing."""


class ScheduleSpec(Spec):
    """Cron expressions, UTC."""

    train: str | None = "0 3 * * 1"
    """`null`: no training by schedule. What monitoring finds, new data, code and people ask for trainings."""
    monitor: str = "0 6 * * *"


class SpecSections(SpecFile):
    """The sections of a model spec. What must hold between them is in spec_rules.py."""

    source: SourceSpec
    """The name of the source that the model learns from, `feature_repo/<source>.yaml`."""
    label: str
    """One of the source's labels."""
    features: Literal["all"] | Annotated[tuple[str, ...], Field(strict=False)] | NamedService = "all"
    """`all` of the source's features, a list of their names, or `service:` with the name of a feature service."""
    task: Task
    """What kind of prediction the model makes: `kind: binary`, `multiclass`, `regression` or another."""
    training: TrainingSpec
    evaluation: EvaluationSpec
    monitoring: MonitoringSpec = MonitoringSpec()
    retraining: RetrainingSpec = RetrainingSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    approval: ApprovalSpec = ApprovalSpec()
    rollout: RolloutSpec = RolloutSpec()
    scoring: ScoringSpec | None = None
    """Score events in batch. Unset: the model only answers requests."""
    resources: ResourcesSpec = ResourcesSpec()
    retention: ModelRetention = ModelRetention()
    serving: Name | None = DEFAULT_SERVICE
    """The name of the prediction service that serves the model (CT_SERVING_NAME). `null`: none; it is scored in batch
    only, and a rollout has no stages."""
