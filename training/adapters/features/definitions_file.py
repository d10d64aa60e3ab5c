"""The files of a feature repository: where they are, their digest, and the Feast objects that the .py file creates."""

import hashlib
import linecache
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from training.adapters.features.feature_plan import Transform
from training.compat.feast import quick_import
from training.contract.errors import ConfigError
from training.contract.source_spec import SourceSpec


def definitions_path(folder: Path, spec: SourceSpec, extension: str) -> Path:
    """`<folder>/<source>.<extension>`. Raises ConfigError when there is no such file."""
    path = folder / f"{spec.name}.{extension}"
    if not path.is_file():
        raise ConfigError(f"No feature definitions at {path}", hint="A source is a spec, a .py and a .sql file.")
    return path


def definitions_digest(folder: Path, spec: SourceSpec) -> str:
    """SHA-256 of the files that define the features, first 16 hex digits. Does not import Feast."""
    digest = hashlib.sha256()
    for extension in ("py", "sql"):
        digest.update(definitions_path(folder, spec, extension).read_bytes())
    return digest.hexdigest()[:16]


def definition_objects(folder: Path, spec: SourceSpec, source: bytes | None = None) -> list[Any]:
    """All objects that the source's .py file creates. Every call creates new ones.

    `source` is the content of the file; None: read it. Raises ConfigError when the file is missing or fails.
    """
    with quick_import():
        import feast  # noqa: F401
    path = definitions_path(folder, spec, "py")
    module = ModuleType(f"perennial_features_{spec.name}")
    module.__file__ = str(path)
    # Feast reads the source of on-demand views from linecache. Without this it may get an earlier state of the file.
    linecache.checkcache(str(path))
    try:
        # Not by an import: its cache does not notice a new file with the same size and the same second.
        exec(compile(path.read_bytes() if source is None else source, path, "exec"), vars(module))
    except Exception as error:
        raise ConfigError(f"{path} failed: {type(error).__name__}: {error}", hint="Correct the definitions.") from error
    return list(vars(module).values())


@dataclass(frozen=True)
class RequestCode:
    """The functions of the request views."""

    #: SHA-256 of the file that defines them.
    digest: str
    #: Request view → its function.
    functions: Mapping[str, Transform]


def request_code(folder: Path, spec: SourceSpec) -> RequestCode:
    """The functions of the request views in `<folder>/<source>.py` as it is now.

    Ignores what else the file defines, because it may belong to another model version than the caller's. Raises
    ConfigError when the file is missing or fails.
    """
    source = definitions_path(folder, spec, "py").read_bytes()
    objects = definition_objects(folder, spec, source)
    from feast.on_demand_feature_view import OnDemandFeatureView

    functions = functions_of(o for o in objects if isinstance(o, OnDemandFeatureView))
    return RequestCode(hashlib.sha256(source).hexdigest(), functions)


def functions_of(on_demand: Iterable[Any]) -> dict[str, Transform]:
    """On-demand view → its function."""
    return {view.name: view.feature_transformation.udf for view in on_demand}
