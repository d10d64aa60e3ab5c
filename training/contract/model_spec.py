"""The model spec: everything Perennial needs to know about a model, in `training/models/<model>.yaml`.

It names the source that the model learns from (source_spec.py), and holds windows, gates, triggers and resources. It is
validated when it is loaded, together with its source, and the hash of both is recorded with every result.
"""

from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from training.contract.columns import Column
from training.contract.errors import ConfigError
from training.contract.feeds import EVENTS, FeedSpec, RowCount
from training.contract.names import EstimatorName, Metric, Name, Trigger, did_you_mean
from training.contract.problems import Problem, problems_of, raise_contradictions
from training.contract.retraining_spec import RetrainingSpec
from training.contract.source_spec import SOURCES_DIR, LabelColumn, SourceSpec, load_source_spec, source_names
from training.contract.spec_file import SpecCache, broken_spec, spec_file
from training.contract.spec_rules import contradictions
from training.contract.spec_sections import EvaluationSpec, NamedService, SpecSections
from training.contract.tasks import defaults, guard_defaults
from training.contract.yaml_file import read_fields

__all__ = [
    "Column",
    "EstimatorName",
    "EvaluationSpec",
    "FeedSpec",
    "Metric",
    "ModelSpec",
    "Name",
    "NamedService",
    "RetrainingSpec",
    "RowCount",
    "Trigger",
    "load_model_spec",
    "model_names",
    "source_of",
]

MODELS_DIR = Path(__file__).parent.parent / "models"


class ModelSpec(SpecSections):
    @model_validator(mode="before")
    @classmethod
    def _defaults_by_task_and_entity(cls, fields: Any) -> Any:
        """The defaults that depend on other sections: of `evaluation` and of the guards on the task, of
        `rollout.sticky_by` on the entity of evaluation. Without an entity, it is the id."""
        if not isinstance(fields, dict):
            return fields
        evaluation, rollout = (fields.get(name, {}) for name in ("evaluation", "rollout"))
        if not all(isinstance(section, dict) for section in (evaluation, rollout)):
            return fields
        if isinstance(guards := rollout.get("guards", {}), dict):
            rollout = {**rollout, "guards": {**guard_defaults(fields.get("task")), **guards}}
        entity = evaluation.get("entity")
        evaluation = {**defaults(fields.get("task"), entity), **evaluation}
        source = fields.get("source")
        identity = source.id_column if isinstance(source, SourceSpec) else ""
        return {**fields, "evaluation": evaluation, "rollout": {"sticky_by": entity or identity, **rollout}}

    @model_validator(mode="after")
    def _names_agree(self) -> "ModelSpec":
        raise_contradictions(contradictions(self))
        return self

    @property
    def label_spec(self) -> LabelColumn:
        """The label that the model learns."""
        return self.source.label(self.label)

    @property
    def feed_names(self) -> list[str]:
        """The feeds that the model learns from: `events`, and that of its label."""
        return list(dict.fromkeys([EVENTS, self.label_spec.feed]))

    @property
    def entity_columns(self) -> list[str]:
        """The columns of events whose values are entities: that of evaluation first, if there is one. Events of one
        entity may resemble each other."""
        own = [] if self.evaluation.entity is None else [self.evaluation.entity]
        return list(dict.fromkeys([*own, *self.source.entities.values()]))

    @property
    def drift_keys(self) -> list[str]:
        """The columns of events that say which rows resemble each other: the time and the entities."""
        return list(dict.fromkeys([self.source.events.time_column, *self.entity_columns]))

    @property
    def drift_columns(self) -> list[str]:
        """The columns of events, beside the features, of which a reference for drift is kept."""
        return list(dict.fromkeys([*self.drift_keys, *self.monitoring.embeddings]))

    @property
    def request_columns(self) -> dict[str, Column]:
        """The columns of an event, which are the fields of a prediction request."""
        return self.source.request_columns


_specs: SpecCache[ModelSpec] = SpecCache()


def model_names(models_dir: Path = MODELS_DIR) -> list[str]:
    """The models that have a spec in `models_dir`, sorted."""
    return sorted(path.stem for path in models_dir.glob("*.yaml"))


def source_of(name: str, models_dir: Path = MODELS_DIR) -> str | None:
    """The name of the source that the spec of model `name` says; None when it says none or is not YAML."""
    try:
        found = read_fields(models_dir / f"{name}.yaml").get("source")
    except (ConfigError, OSError):
        return None
    return found if isinstance(found, str) else None


def models_of(source: str, models_dir: Path = MODELS_DIR) -> list[str]:
    """The models whose specs name `source`, sorted."""
    return [name for name in model_names(models_dir) if source_of(name, models_dir) == source]


def load_model_spec(name: str, models_dir: Path = MODELS_DIR, sources_dir: Path = SOURCES_DIR) -> ModelSpec:
    """The spec of model `name`, with that of its source.

    Raises ConfigError when there is no such spec, when one of the two is not valid YAML, or when it breaks the schema.
    """
    found = read_model_spec(name, models_dir, sources_dir)
    if isinstance(found, ModelSpec):
        return found
    raise broken_spec("model", models_dir / f"{name}.yaml", found)


def read_model_spec(
    name: str, models_dir: Path = MODELS_DIR, sources_dir: Path = SOURCES_DIR
) -> ModelSpec | list[Problem]:
    """The spec of model `name`, or everything that is wrong with its fields.

    Raises ConfigError when there is no such spec, its file does not hold fields, or its source cannot be loaded.
    """
    path = spec_file("model", name, models_dir, model_names)
    kept = _specs.find(path)
    # The source's file may have changed, it may be in another folder, or it may be gone.
    if (
        kept is not None
        and (sources_dir / f"{kept.source.name}.yaml").is_file()
        and kept.source is _loaded_source(kept.source.name, path, sources_dir)
    ):
        return kept
    return _specs.read(path, lambda: _read(name, path, sources_dir))


def _loaded_source(name: str, path: Path, sources_dir: Path) -> SourceSpec:
    try:
        return load_source_spec(name, sources_dir)
    except ConfigError as error:
        raise ConfigError(f"{path}: its source cannot be loaded: {error.message}", hint=error.hint) from error


def _read(name: str, path: Path, sources_dir: Path) -> ModelSpec | list[Problem]:
    fields = read_fields(path)
    if "feeds" in fields:
        hint = f"`make migrate` shows how it is split into feature_repo/{name}.yaml and training/models/{name}.yaml."
        raise ConfigError(f"{path} has the feeds of a source: it is a spec of the layout before", hint)
    if (source := fields.get("source")) is not None:
        if not isinstance(source, str):
            what, fix = f"is {source!r}, not the name of a source", f"Known: {', '.join(source_names(sources_dir))}."
            return [Problem(file=str(path), place="source", what=what, fix=fix)]
        if not (sources_dir / f"{source}.yaml").is_file():
            known = source_names(sources_dir)
            what = f"names {source!r}, but there is no spec at {sources_dir / source}.yaml"
            fix = f"{did_you_mean(source, known)}Known sources: {', '.join(known) or 'none'}."
            return [Problem(file=str(path), place="source", what=what, fix=fix)]
        fields |= {"source": _loaded_source(source, path, sources_dir)}
    try:
        spec = ModelSpec.model_validate(fields)
    except ValidationError as error:
        return problems_of(error, str(path), ModelSpec, fields)
    if spec.name != name:
        raise ConfigError(f"{path} holds the spec of {spec.name!r}", hint="Name the file after the model.")
    return spec
