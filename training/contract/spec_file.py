"""What the files of source specs and model specs have in common."""

import hashlib
import re
from functools import cached_property
from pathlib import Path

from pydantic import Field

from training.contract.base import Spec
from training.contract.errors import ConfigError
from training.contract.names import NAME_PATTERN, Name
from training.contract.problems import Problem


class SpecFile(Spec):
    name: Name
    """The name of the file, without .yaml."""
    title: str = Field(min_length=1)
    description: str = ""
    owner: str = Field(min_length=1)

    @cached_property
    def config_hash(self) -> str:
        """The first 16 hex digits of the SHA-256 of the spec. Two runs with the same hash had the same spec."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


def spec_file(kind: str, name: str, folder: Path, known: list[str]) -> Path:
    """The file of the spec `name` in `folder`. `kind`: source or model. `known`: the names that have a spec.

    Raises ConfigError when there is no such file.
    """
    path = folder / f"{name}.yaml"
    if name in known and not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(
            f"{path}: {name!r} is not a name for a {kind}",
            hint="Rename the file and `name`. Use a-z, digits and underscores, a letter first, at most 63.",
        )
    if name not in known:
        hint = f"Known {kind}s: {', '.join(known) or 'none'}."
        raise ConfigError(f"No spec for {kind} {name!r} at {path}", hint=hint)
    return path


def broken_spec(kind: str, path: Path, problems: list[Problem]) -> ConfigError:
    """The error for the spec of a `kind` (source or model) whose fields have `problems`."""
    fixes = " ".join(dict.fromkeys(problem.fix for problem in problems))
    return ConfigError(f"{path} breaks the {kind} spec's schema: {'; '.join(map(str, problems))}", hint=fixes)


def misnamed_specs(folder: Path) -> list[Problem]:
    """Files in `folder` that look like specs but are not read because of their extension."""
    fix = "Rename it to end in .yaml."
    return [
        Problem(file=str(path), place="", what=f"{path} is not read: a spec ends in .yaml", fix=fix)
        for path in sorted(folder.glob("*"))
        if path.suffix.lower() in (".yml", ".yaml", ".json") and path.suffix != ".yaml"
    ]
