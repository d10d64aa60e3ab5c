"""The model spec: everything Perennial must know about a model, in one YAML file, `training/models/<m>.yaml`.

The spec is policy: data rules, windows, gates, triggers, resources. It is validated when loaded and hashed into
the provenance of everything made under it.
"""

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from training.contract.base import Frozen
from training.contract.errors import ConfigError
from training.contract.resources import ResourcesSpec
from training.contract.rollout_spec import RolloutSpec

MODELS_DIR = Path(__file__).parent.parent / "models"

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Feed = Literal["events", "labels"]
EstimatorName = Literal["hist_gradient_boosting", "logistic_regression", "random_forest", "mlp"]
Metric = Literal["roc_auc", "average_precision", "card_precision_at_k"]
Trigger = Literal["first", "schedule", "drift", "performance", "new_data", "code", "person"]


class Column(Frozen):
    """One column of a feed. `minimum`, `maximum` and `values` are inclusive row-level rules.

    `unique` holds within a partition; in events over all partitions. A label reported again is a correction.
    """

    type: Literal["int64", "float64", "string", "bool", "timestamp"]
    description: str = ""
    nullable: bool = False
    unique: bool = False
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[int | str, ...] | None = None


class RowCount(Frozen):
    """Table-level rules on the rows of one delivered day. The ratios are against the median of the days before."""

    minimum: int = Field(1, ge=0)
    history_days: int = Field(28, ge=1)
    minimum_ratio: float = Field(0.3, ge=0)
    maximum_ratio: float = Field(3.0, gt=0)


class FeedSpec(Frozen):
    """One stream of landed files. `time_column` decides the day a row belongs to."""

    columns: dict[str, Column]
    time_column: str
    row_count: RowCount = RowCount()
    maximum_quarantined: Share = 0.05
    """A partition may break row-level rules in at most this share of its rows; more is a table-level failure."""
    slack_days: int = Field(0, ge=0)
    """Rows may lie at most this many days outside the days that the partition's name promises."""
    maximum_gap_days: int = Field(31, ge=1)
    """A partition may begin at most this many days after the newest day that the other partitions of its feed reach;
    one that is further ahead, such as one dated by a wrong clock, is refused. While the lake is empty any may be first.
    """

    @model_validator(mode="after")
    def _time_column_is_a_column(self) -> "FeedSpec":
        column = self.columns.get(self.time_column)
        if column is None or column.type != "timestamp":
            raise ValueError(f"time_column {self.time_column!r} must be a column of type timestamp")
        return self


class LabelSpec(Frozen):
    """Where the truth is, and how late it comes."""

    column: str
    id_column: str
    delay_days: int = Field(7, ge=0)
    """Days after the event within which its label has been reported: the gap between training and holdout."""
    unlabelled_after_delay: Literal["missing", "negative"] = "missing"
    """What an event is whose label has not been reported by then. `negative`: for feeds that only name positives, such
    as chargebacks. A delivery of labels that fails then looks like a time without positives (docs/your-model.md)."""


class FeatureSpec(Frozen):
    """Names of the Feast objects in `feature_repo/<m>.py`; the features themselves are defined there."""

    service: str
    tables: dict[Name, str]
    """Feature table in the lake → its entity column. The SQL in `feature_repo/<m>.sql` fills these."""
    history_days: int = Field(ge=1)
    """Days after an event in which it still changes a feature row: the longest window plus the label delay."""


class TrainingSpec(Frozen):
    window_days: int = Field(ge=1)
    holdout_days: int = Field(7, ge=1)
    minimum_labelled_share: Share = 0.9
    """Of each day's events in training window and holdout: a day with fewer labels lacks a delivery."""
    minimum_rows: int = Field(1000, ge=1)
    minimum_positives: int = Field(50, ge=1)
    seed: int = 20240601
    estimators: dict[EstimatorName, dict[str, Any]] = Field(min_length=1)
    """Estimator → its parameters. All are trained; the best on the holdout is the challenger."""


class EvaluationSpec(Frozen):
    """When a challenger may serve. Gates fail closed."""

    primary: Metric = "average_precision"
    floors: dict[Metric, float]
    """Absolute floors on the holdout; the only gates that the first model meets."""
    margins: dict[Metric, float] = {}
    """How much worse than the champion a metric may be."""
    k: int = Field(100, ge=1)
    """The k in card precision@k: cards that can be checked in a day."""
    entity: str
    """The entity of card precision@k, and of the rule that follows."""
    exclude_known_entities: bool = True
    """Leave out entities whose positive label was already known at the start of the row's day."""
    bootstrap_samples: int = Field(500, ge=50)
    confidence: float = Field(0.9, gt=0.5, lt=1)


class DecisionSpec(Frozen):
    """How a score becomes a decision: flag this share of the holdout's payments."""

    alert_rate: Annotated[float, Field(gt=0, lt=1)] = 0.005


class DriftSpec(Frozen):
    window_days: int = Field(7, ge=1)
    maximum_drifted_share: Share = 0.3
    """The model has drifted when this share of its features has."""
    maximum_rows: int = Field(20_000, ge=100)
    """Rows sampled per window for the report: its cost grows with them (1M × 20 columns takes 2 minutes)."""
    maximum_performance_drop: float = Field(0.1, ge=0)
    """Performance on matured labels may fall this far (absolute, in the primary metric) below the holdout's."""
    minimum_positives: int = Field(20, ge=1)


class RetrainingSpec(Frozen):
    """The broker's policy. Days are days of data (`as_of`), so a replay decides as the original did."""

    persistence: int = Field(1, ge=1)
    """Successive windows that must show drift before it is a reason to train."""
    cooldown_days: int = Field(7, ge=0)
    """Days after a granted request in which no other of its kind is granted: drift and performance are one kind, a
    first champion and new data each one; schedule, code and people do not wait."""
    budget_per_30_days: int = Field(8, ge=1)
    """Granted requests in any 30 days, those by a person apart."""


class ScheduleSpec(Frozen):
    """Cron expressions, UTC."""

    train: str = "0 3 * * 1"
    drift: str = "0 6 * * *"


class ModelSpec(Frozen):
    name: Name
    title: str
    description: str = ""
    owner: str
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

    @model_validator(mode="before")
    @classmethod
    def _stick_to_the_entity(cls, fields: Any) -> Any:
        """Without `rollout.sticky_by` the entity of evaluation decides which version answers."""
        entity = fields.get("evaluation", {}).get("entity") if isinstance(fields, dict) else None
        rollout = fields.get("rollout", {}) if isinstance(fields, dict) else None
        return (
            {**fields, "rollout": {"sticky_by": entity, **rollout}} if entity and isinstance(rollout, dict) else fields
        )

    @model_validator(mode="after")
    def _names_agree(self) -> "ModelSpec":
        if set(self.feeds) != {"events", "labels"}:
            raise ValueError("feeds must be exactly events and labels")
        events, labels = self.feeds["events"].columns, self.feeds["labels"].columns
        wanted = [("label.column", self.label.column, labels), ("label.id_column", self.label.id_column, labels)]
        wanted += [("label.id_column", self.label.id_column, events)]
        wanted += [("evaluation.entity", self.evaluation.entity, events)]
        wanted += [(f"features.tables.{t}", entity, events) for t, entity in self.features.tables.items()]
        wanted += [("rollout.sticky_by", self.rollout.sticky_by, events)]
        for field, column, columns in wanted:
            if column not in columns:
                raise ValueError(f"{field} names {column!r}, which is not one of the columns {sorted(columns)}")
        if untrained := sorted(set(self.resources.estimators) - set(self.training.estimators)):
            raise ValueError(f"resources.estimators names {untrained}, which training.estimators does not")
        if self.evaluation.primary not in self.evaluation.floors:
            raise ValueError(f"evaluation.floors must hold a floor for the primary metric {self.evaluation.primary!r}")
        return self

    @cached_property
    def config_hash(self) -> str:
        """SHA-256 of the canonical spec, first 16 hex digits: two runs with the same hash ran the same policy."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @property
    def request_columns(self) -> dict[str, Column]:
        """The columns of an event: what a prediction request carries."""
        return self.feeds["events"].columns


def model_names(models_dir: Path = MODELS_DIR) -> list[str]:
    """The models that have a spec in `models_dir`, sorted."""
    return sorted(path.stem for path in models_dir.glob("*.yaml"))


def load_model_spec(name: str, models_dir: Path = MODELS_DIR) -> ModelSpec:
    """The spec of model `name`.

    Raises ConfigError when there is no such spec, when it is not valid YAML, or when it breaks the schema.
    """
    path = models_dir / f"{name}.yaml"
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name) or not path.is_file():
        known = ", ".join(model_names(models_dir)) or "none"
        raise ConfigError(f"No spec for model {name!r} at {path}", hint=f"Known models: {known}.")
    try:
        spec = ModelSpec.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}", hint="Mend the file.") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'spec'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path} breaks the model spec's schema: {problems}", hint="Mend these fields.") from error
    if spec.name != name:
        raise ConfigError(f"{path} holds the spec of {spec.name!r}", hint="The file is named after the model.")
    return spec
