"""The source spec: data that lands, and the features that are made of it, in `feature_repo/<source>.yaml`.

Several models may learn from one source. It is ingested once and its features are computed once.
"""

from pathlib import Path

from pydantic import ValidationError, model_validator

from training.contract.errors import ConfigError
from training.contract.problems import Problem, problems_of, raise_contradictions
from training.contract.source_rules import contradictions
from training.contract.source_sections import LabelColumn, LabelSpec, SourceSections
from training.contract.spec_file import FEATURE_STORE, SpecCache, broken_spec, spec_file
from training.contract.yaml_file import read_fields

__all__ = ["FEATURE_STORE", "LabelColumn", "LabelSpec", "SourceSpec", "load_source_spec", "source_names"]

SOURCES_DIR = Path(__file__).parent.parent.parent / "feature_repo"


class SourceSpec(SourceSections):
    @model_validator(mode="after")
    def _names_agree(self) -> "SourceSpec":
        raise_contradictions(contradictions(self))
        return self


_specs: SpecCache[SourceSpec] = SpecCache()


def source_names(sources_dir: Path = SOURCES_DIR) -> list[str]:
    """The sources that have a spec in `sources_dir`, sorted."""
    return sorted(path.stem for path in sources_dir.glob("*.yaml") if path.name != FEATURE_STORE)


def load_source_spec(name: str, sources_dir: Path = SOURCES_DIR) -> SourceSpec:
    """The spec of source `name`.

    Raises ConfigError when there is no such spec, when it is not valid YAML, or when it breaks the schema.
    """
    found = read_source_spec(name, sources_dir)
    if isinstance(found, SourceSpec):
        return found
    raise broken_spec("source", sources_dir / f"{name}.yaml", found)


def read_source_spec(name: str, sources_dir: Path = SOURCES_DIR) -> SourceSpec | list[Problem]:
    """The spec of source `name`, or everything that is wrong with its fields.

    Raises ConfigError when there is no such spec or its file does not hold fields.
    """
    path = spec_file("source", name, sources_dir, source_names)
    return _specs.find(path) or _specs.read(path, lambda: _read(name, path))


def _read(name: str, path: Path) -> SourceSpec | list[Problem]:
    fields = read_fields(path)
    try:
        spec = SourceSpec.model_validate(fields)
    except ValidationError as error:
        return problems_of(error, str(path), SourceSpec, fields)
    if spec.name != name:
        raise ConfigError(f"{path} holds the spec of {spec.name!r}", hint="Name the file after the source.")
    return spec
