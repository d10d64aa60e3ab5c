"""The model spec: everything Perennial needs to know about a model, in one YAML file, `training/models/<m>.yaml`.

It holds data rules, windows, gates, triggers and resources. It is validated when it is loaded, and its hash is recorded
with every result.
"""

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from training.contract.errors import ConfigError
from training.contract.feeds import Column, FeedSpec, RowCount
from training.contract.names import NAME_PATTERN, EstimatorName, Feed, Metric, Name, Trigger
from training.contract.problems import Problem, problems_of, raise_contradictions
from training.contract.spec_rules import contradictions
from training.contract.spec_sections import EvaluationSpec, RetrainingSpec, SpecSections
from training.contract.tasks import defaults
from training.contract.yaml_file import read_fields

__all__ = [
    "Column",
    "EstimatorName",
    "EvaluationSpec",
    "Feed",
    "FeedSpec",
    "Metric",
    "ModelSpec",
    "Name",
    "RetrainingSpec",
    "RowCount",
    "Trigger",
    "load_model_spec",
    "model_names",
]

MODELS_DIR = Path(__file__).parent.parent / "models"


class ModelSpec(SpecSections):
    @model_validator(mode="before")
    @classmethod
    def _defaults_by_task_and_entity(cls, fields: Any) -> Any:
        """The defaults that depend on other sections: of `evaluation` on the task, of `rollout.sticky_by` on the entity
        of evaluation. Without an entity, it is the id."""
        if not isinstance(fields, dict):
            return fields
        evaluation, rollout, label = (fields.get(name, {}) for name in ("evaluation", "rollout", "label"))
        if not all(isinstance(section, dict) for section in (evaluation, rollout, label)):
            return fields
        entity = evaluation.get("entity")
        evaluation = {**defaults(fields.get("task"), entity), **evaluation}
        sticky = {"sticky_by": entity or label.get("id_column", "")}
        return {**fields, "evaluation": evaluation, "rollout": {**sticky, **rollout}}

    @model_validator(mode="after")
    def _names_agree(self) -> "ModelSpec":
        raise_contradictions(contradictions(self))
        return self

    @cached_property
    def config_hash(self) -> str:
        """The first 16 hex digits of the SHA-256 of the spec. Two runs with the same hash had the same spec."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @property
    def request_columns(self) -> dict[str, Column]:
        """The columns of an event, which are the fields of a prediction request."""
        return self.feeds["events"].columns


def model_names(models_dir: Path = MODELS_DIR) -> list[str]:
    """The models that have a spec in `models_dir`, sorted."""
    return sorted(path.stem for path in models_dir.glob("*.yaml"))


def misnamed_specs(models_dir: Path = MODELS_DIR) -> list[Problem]:
    """Files in `models_dir` that look like specs but are not read because of their extension."""
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
    if re.fullmatch(r"[\w. -]+", name) and path.is_file() and not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(
            f"{path}: {name!r} is not a name for a model",
            hint="Rename the file and `name`. Use a-z, digits and underscores, a letter first, at most 63.",
        )
    if not re.fullmatch(NAME_PATTERN, name) or not path.is_file():
        known = ", ".join(model_names(models_dir)) or "none"
        raise ConfigError(f"No spec for model {name!r} at {path}", hint=f"Known models: {known}.")
    try:
        spec = ModelSpec.model_validate(read_fields(path))
    except ValidationError as error:
        return problems_of(error, str(path))
    if spec.name != name:
        raise ConfigError(f"{path} holds the spec of {spec.name!r}", hint="Name the file after the model.")
    return spec
