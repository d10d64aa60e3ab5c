"""The files of a feature repository: where they are, their digest, and the Feast objects that the .py file creates."""

import hashlib
import json
import linecache
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from training.adapters.features.feature_plan import Transform
from training.compat.feast import quick_import
from training.contract.errors import ConfigError
from training.contract.source_spec import SourceSpec
from training.domain.feature_sql import declared_queries


def definitions_path(folder: Path, spec: SourceSpec, extension: str) -> Path:
    """`<folder>/<source>.<extension>`. A source without features of that kind has no such file."""
    return folder / f"{spec.name}.{extension}"


def definitions_digest(folder: Path, spec: SourceSpec) -> str:
    """SHA-256 of what defines the features, first 16 hex digits: files, and declared tables. Does not import Feast."""
    digest = hashlib.sha256()
    for extension in ("py", "sql"):
        digest.update(_content(definitions_path(folder, spec, extension)))
    tables = {
        name: [
            sql,
            spec.features.tables[name].ttl_days,
            [each.default for each in spec.features.tables[name].features()],
        ]
        for name, sql in declared_queries(spec).items()
    }
    if tables:
        digest.update(json.dumps(tables).encode())
    return digest.hexdigest()[:16]


def _content(path: Path) -> bytes:
    """Empty when there is no such file."""
    return path.read_bytes() if path.is_file() else b""


def definition_objects(folder: Path, spec: SourceSpec, source: bytes | None = None) -> list[Any]:
    """All objects that the source's .py file creates. Every call creates new ones.

    `source` is the content of the file; None: read it. None are created when there is no such file. Raises ConfigError
    when the file fails.
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
        exec(compile(_content(path) if source is None else source, path, "exec"), vars(module))
    except Exception as error:
        line = f" (line {number})" if (number := _line_of(error, path)) else ""
        problem = f"{path} failed{line}: {type(error).__name__}: {' '.join(str(error).split())}"
        raise ConfigError(problem, hint="Correct the definitions.") from error
    return list(vars(module).values())


def _line_of(error: Exception, path: Path) -> int | None:
    """The line of the file at which it failed."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines else None


@dataclass(frozen=True)
class RequestCode:
    """The functions of the request views."""

    #: SHA-256 of the file that defines them.
    digest: str
    #: Request view → its function.
    functions: Mapping[str, Transform]


def request_code(folder: Path, spec: SourceSpec) -> RequestCode:
    """The functions of the request views in `<folder>/<source>.py` as it is now.

    Ignores what else the file defines, because it may belong to another model version than the caller's. There are none
    when there is no such file. Raises ConfigError when the file fails.
    """
    source = _content(definitions_path(folder, spec, "py"))
    objects = definition_objects(folder, spec, source)
    from feast.on_demand_feature_view import OnDemandFeatureView

    functions = functions_of(o for o in objects if isinstance(o, OnDemandFeatureView))
    return RequestCode(hashlib.sha256(source).hexdigest(), functions)


def functions_of(on_demand: Iterable[Any]) -> dict[str, Transform]:
    """On-demand view → its function."""
    return {view.name: view.feature_transformation.udf for view in on_demand}
