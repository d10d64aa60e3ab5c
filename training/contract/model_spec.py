"""The model spec: everything Perennial must know about a model, in one YAML file, `training/models/<m>.yaml`.

The spec is policy: data rules, windows, gates, triggers, resources. It is validated when loaded and hashed into
the provenance of everything made under it.
"""

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from training.contract.base import Spec
from training.contract.errors import ConfigError
from training.contract.feeds import Column, FeedSpec, RowCount, Share
from training.contract.problems import Problem, problems_of, raise_contradictions
from training.contract.resources import ResourcesSpec
from training.contract.rollout_spec import RolloutSpec
from training.contract.spec_rules import contradictions
from training.contract.yaml_file import read_fields

__all__ = ["Column", "FeedSpec", "ModelSpec", "RowCount", "load_model_spec", "model_names"]

MODELS_DIR = Path(__file__).parent.parent / "models"

_NAME = r"^[a-z][a-z0-9_]{0,62}$"
Name = Annotated[str, Field(pattern=_NAME)]
#: A hundred years: a larger number is a typing error, and dates would overflow.
DayCount = Annotated[int, Field(ge=1, le=36_500)]
Feed = Literal["events", "labels"]
EstimatorName = Literal["hist_gradient_boosting", "logistic_regression", "random_forest", "mlp"]
Metric = Literal["roc_auc", "average_precision", "card_precision_at_k"]
Trigger = Literal["first", "schedule", "drift", "performance", "new_data", "code", "person"]


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
    estimators: dict[EstimatorName, dict[str, Any]] = Field(min_length=1)
    """Estimator → its parameters. All are trained; the best on the holdout is the challenger."""


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


class ModelSpec(Spec):
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
        raise_contradictions(contradictions(self))
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


def misnamed_specs(models_dir: Path = MODELS_DIR) -> list[Problem]:
    """Files in `models_dir` that look like specs and are not read, for their ending."""
    fix = "Rename it to end in .yaml."
    return [
        Problem(file=str(path), place="", what=f"{path} is not read: a spec ends in .yaml", fix=fix)
        for path in sorted(models_dir.glob("*"))
        if path.suffix.lower() in (".yml", ".yaml", ".json") and path.suffix != ".yaml"
    ]


def load_model_spec(name: str, models_dir: Path = MODELS_DIR) -> ModelSpec:
    """The spec of model `name`.

    Raises ConfigError when there is no such spec, when it is not valid YAML, or when it breaks the schema.
    """
    found = read_model_spec(name, models_dir)
    if isinstance(found, ModelSpec):
        return found
    path = models_dir / f"{name}.yaml"
    problems = "; ".join(map(str, found))
    fixes = " ".join(dict.fromkeys(problem.fix for problem in found))
    raise ConfigError(f"{path} breaks the model spec's schema: {problems}", hint=fixes)


def read_model_spec(name: str, models_dir: Path = MODELS_DIR) -> ModelSpec | list[Problem]:
    """The spec of model `name`, or everything that is wrong with its fields.

    Raises ConfigError when there is no such spec or its file does not hold fields.
    """
    path = models_dir / f"{name}.yaml"
    if re.fullmatch(r"[\w. -]+", name) and path.is_file() and not re.fullmatch(_NAME, name):
        raise ConfigError(
            f"{path}: {name!r} is not a name for a model",
            hint="Rename the file and `name`: small letters, digits and underscores, a letter first, at most 63.",
        )
    if not re.fullmatch(_NAME, name) or not path.is_file():
        known = ", ".join(model_names(models_dir)) or "none"
        raise ConfigError(f"No spec for model {name!r} at {path}", hint=f"Known models: {known}.")
    try:
        spec = ModelSpec.model_validate(read_fields(path))
    except ValidationError as error:
        return problems_of(error, str(path))
    if spec.name != name:
        raise ConfigError(f"{path} holds the spec of {spec.name!r}", hint="The file is named after the model.")
    return spec
