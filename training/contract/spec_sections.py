"""The sections of a model spec: labels, features, training, evaluation, drift, retraining, schedules."""

from typing import Annotated, Any, Literal

from pydantic import Field

from training.contract.base import Spec
from training.contract.feeds import FeedSpec, Share
from training.contract.names import Feed, Metric, Name
from training.contract.registries import KnownDriftTest, KnownEstimator
from training.contract.resources import ResourcesSpec
from training.contract.rollout_spec import RolloutSpec

#: A hundred years: a larger number is a typing error, and dates would overflow.
DayCount = Annotated[int, Field(ge=1, le=36_500)]


class LabelSpec(Spec):
    """Where the truth is, and how late it comes."""

    column: str
    id_column: str
    delay_days: int = Field(7, ge=0, le=36_500)
    """Days after the event within which its label has been reported: the gap between training and holdout."""
    unlabelled_after_delay: Literal["missing", "negative"] = "missing"
    """What an event is whose label has not been reported by then. `negative`: for feeds that only name positives, such
    as chargebacks. A delivery of labels that fails then looks like a time without positives (docs/your-model.md)."""


class FeatureSpec(Spec):
    """Names of the Feast objects in `feature_repo/<m>.py`; the features themselves are defined there."""

    service: str
    tables: dict[Name, str]
    """Feature table in the lake → its entity column. The SQL in `feature_repo/<m>.sql` fills these."""
    history_days: DayCount
    """Days after an event in which it still changes a feature row: the longest window plus the label delay."""


class TrainingSpec(Spec):
    window_days: DayCount
    holdout_days: DayCount = 7
    minimum_labelled_share: Share = 0.9
    """Of each day's events in training window and holdout: a day with fewer labels lacks a delivery."""
    minimum_rows: int = Field(1000, ge=1)
    minimum_positives: int = Field(50, ge=1)
    seed: int = 20240601
    estimators: dict[KnownEstimator, dict[str, Any]] = Field(min_length=1)
    """Estimator → its parameters. All are trained; the best on the holdout is the challenger. A name: a module of
    training/estimators, an entry point of the group `perennial.estimator`, or a path `package.module:factory`."""


class EvaluationSpec(Spec):
    """When a challenger may serve. Gates fail closed."""

    primary: Metric = "average_precision"
    floors: dict[Metric, Share]
    """Absolute floors on the holdout; the only gates that the first model meets."""
    margins: dict[Metric, Share] = {}
    """How much worse than the champion a metric may be."""
    k: int = Field(100, ge=1)
    """The k in card precision@k: cards that can be checked in a day."""
    entity: str
    """The entity of card precision@k, and of the rule that follows."""
    exclude_known_entities: bool = True
    """Leave out entities whose positive label was already known at the start of the row's day."""
    bootstrap_samples: int = Field(500, ge=50)
    confidence: float = Field(0.9, gt=0.5, lt=1)


class DecisionSpec(Spec):
    """How a score becomes a decision: flag this share of the holdout's payments."""

    alert_rate: Annotated[float, Field(gt=0, lt=1)] = 0.005


class DriftSpec(Spec):
    test: KnownDriftTest = "distance"
    """How a feature is compared with the reference: a module of training/adapters/drift_tests, or an entry point of the
    group `perennial.drift_test`."""
    window_days: DayCount = 7
    maximum_drifted_share: Share = 0.3
    """The model has drifted when this share of its features has."""
    maximum_rows: int = Field(20_000, ge=100)
    """Rows sampled per window for the report: its cost grows with them (1M × 20 columns takes 2 minutes)."""
    minimum_rows: int = Field(1000, ge=1)
    """Events in the window below which nothing is compared, because columns then move by chance. At 1,000 rows against
    a reference of 20,000 of the same distribution the score is 0.04, and 0.08 to 0.1, the threshold, in 1 of 100 cases;
    at 500 rows it is beyond."""
    maximum_performance_drop: float = Field(0.1, ge=0, le=1)
    """Performance on matured labels may fall this far (absolute, in the primary metric) below the holdout's."""
    minimum_positives: int = Field(20, ge=1)
    """Positive labels in the matured window below which performance is not measured."""
    maximum_unmeasured_looks: int = Field(3, ge=1)
    """The monitoring run fails when this many runs in a row, each as of another day, could not measure drift or
    performance for lack of events, predictions or labels."""


class RetrainingSpec(Spec):
    """The broker's policy. Days are days of data (`as_of`), so a replay decides as the original did."""

    persistence: int = Field(1, ge=1)
    """Successive windows that must show drift before it is a reason to train."""
    cooldown_days: int = Field(7, ge=0)
    """Days after a granted request in which no other of its kind is granted: drift and performance are one kind, a
    first champion and new data each one; schedule, code and people do not wait."""
    budget_per_30_days: int = Field(8, ge=1)
    """Granted requests in any 30 days, those by a person apart."""


class ScheduleSpec(Spec):
    """Cron expressions, UTC."""

    train: str = "0 3 * * 1"
    drift: str = "0 6 * * *"


class SpecSections(Spec):
    """The sections of a model spec. What must hold between them is in spec_rules.py."""

    name: Name
    title: str = Field(min_length=1)
    description: str = ""
    owner: str = Field(min_length=1)
    feeds: dict[Feed, FeedSpec]
    label: LabelSpec
    features: FeatureSpec
    training: TrainingSpec
    evaluation: EvaluationSpec
    decision: DecisionSpec = DecisionSpec()
    drift: DriftSpec = DriftSpec()
    retraining: RetrainingSpec = RetrainingSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    rollout: RolloutSpec = RolloutSpec()
    resources: ResourcesSpec = ResourcesSpec()
