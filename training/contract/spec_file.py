"""What the files of source specs and model specs have in common."""

import hashlib
import re
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import Field

from training.contract.base import Spec
from training.contract.errors import ConfigError
from training.contract.names import NAME_PATTERN, Name, Text, did_you_mean
from training.contract.problems import SEE_REFERENCE, Problem, fixes_of

#: Feast's own file in the folder of the source specs.
FEATURE_STORE = "feature_store.yaml"


class SpecFile(Spec):
    name: Name
    """The name of the file, without .yaml."""
    title: Text = Field(min_length=1)
    description: Text = ""
    owner: Text = Field(min_length=1)

    @cached_property
    def config_hash(self) -> str:
        """The first 16 hex digits of the SHA-256 of the spec. Two runs with the same hash had the same spec."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


S = TypeVar("S", bound=SpecFile)
#: What changes with the content of a file: time of the last change in ns, size in bytes, inode.
Stamp = tuple[int, int, int]
#: Seconds. A file that changed more recently is not kept: its next change may get the same time.
RECENT = 1.0


class SpecCache(Generic[S]):
    """The specs that this process has read, so that it parses each file once, and again when the file has changed."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[Stamp, S]] = {}

    def find(self, path: Path) -> S | None:
        """The spec in the file at `path`; None when it was not read since its last change."""
        stamp, spec = self._kept.get(path, (None, None))
        return spec if stamp == _stamp(path) else None

    def read(self, path: Path, read: Callable[[], S | list[Problem]]) -> S | list[Problem]:
        """Call `read`, which reads the file at `path`, and keep the spec that it returns. Problems are not kept."""
        stamp, now = _stamp(path), time.time()
        found = read()
        if stamp is not None and not isinstance(found, list) and now - stamp[0] / 1e9 > RECENT:
            self._kept[path] = (stamp, found)
        return found


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def spec_file(kind: str, name: str, folder: Path, known: Callable[[Path], list[str]]) -> Path:
    """The file of the spec `name` in `folder`. `kind`: source or model. `known` lists the names that have a spec.

    Raises ConfigError when there is no such file.
    """
    path = folder / f"{name}.yaml"
    # Listing a folder of a thousand specs takes longer than reading one of them.
    if re.fullmatch(NAME_PATTERN, name) and path.name != FEATURE_STORE and path.is_file():
        return path
    names = known(folder)
    if name in names:
        raise ConfigError(
            f"{path}: {name!r} is not a name for a {kind}",
            hint="Rename the file and `name`. Use a-z, digits and underscores, a letter first, at most 63.",
        )
    hint = f"{did_you_mean(name, names)}Known {kind}s: {', '.join(names) or 'none'}."
    raise ConfigError(f"No spec for {kind} {name!r} at {path}", hint=hint)


def broken_spec(kind: str, path: Path, problems: list[Problem]) -> ConfigError:
    """The error for the spec of a `kind` (source or model) whose fields have `problems`."""
    see = [SEE_REFERENCE] if any(problem.fix.endswith(SEE_REFERENCE) for problem in problems) else []
    fixes = " ".join(fixes_of(problems) + see)
    return ConfigError(f"{path} breaks the {kind} spec's schema: {'; '.join(map(str, problems))}", hint=fixes)


def misnamed_specs(folder: Path) -> list[Problem]:
    """Files in `folder` that look like specs but are not read because of their extension."""
    fix = "Rename it to end in .yaml."
    return [
        Problem(file=str(path), place="", what=f"{path} is not read: a spec ends in .yaml", fix=fix)
        for path in sorted(folder.glob("*"))
        if path.suffix.lower() in (".yml", ".yaml", ".json") and path.suffix != ".yaml"
    ]
