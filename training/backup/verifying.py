"""What is missing or altered in a backup, and what its parts name that other parts lack."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from training import storage
from training.adapters import databases
from training.adapters.ledger import Ledger
from training.adapters.registry import TABLE
from training.backup import files
from training.backup.manifest import (
    AIRFLOW,
    ARTIFACTS,
    DATABASE,
    LAKE,
    LEDGER,
    MANIFEST,
    REGISTRY,
    Manifest,
    read_manifest,
)
from training.delta_log import LOG_FOLDER

#: Fields of ledger entries that name versions of the model.
_VERSIONS = {"version", "champion", "previous", "champion_version"}
_COMMIT = re.compile(rf"{LAKE}/([^/]+)/(.+)/{LOG_FOLDER}/(\d{{20}})\.json")


def problems(uri: str) -> list[str]:
    """A sentence per problem of the backup in folder `uri`, none when it is whole.

    Raises InputError when it is not a backup, DataContractError when its manifest cannot be read.
    """
    manifest = read_manifest(uri)
    found = list(_files(uri, manifest))
    if found:  # What follows would only say the same in other words.
        return found
    tables = dict[tuple[str, str], int]()
    for path in manifest.files:
        if commit := _COMMIT.fullmatch(path):
            source, table, number = commit.groups()
            tables[source, table] = max(tables.get((source, table), -1), int(number))
    found += _tables(uri, manifest, tables)
    with tempfile.TemporaryDirectory() as temporary:
        for part in (AIRFLOW, REGISTRY):
            path = f"{part}/{DATABASE}"
            if path in manifest.files:
                copy = Path(temporary, part)
                files.copy(storage.join(uri, path), str(copy))
                if problem := databases.problem_of(copy):
                    found.append(f"{path} cannot be read: {problem}")
        registry = Path(temporary, REGISTRY)
        versions = set(_registered(registry, manifest, tables, found)) if registry.exists() else None
    return found + _ledger(uri, manifest, tables, versions)


def _files(uri: str, manifest: Manifest) -> Iterator[str]:
    there = set(storage.tree(uri)) - {MANIFEST}
    for path, wanted in manifest.files.items():
        if path not in there:
            yield f"{path} is missing"
        elif files.record(storage.join(uri, path)) != wanted:
            yield f"{path} was altered"
    for path in sorted(there - set(manifest.files)):
        yield f"{path} was added: the manifest does not name it"


def _tables(uri: str, manifest: Manifest, tables: dict[tuple[str, str], int]) -> Iterator[str]:
    for (source, table), version in sorted(tables.items()):
        folder = f"{LAKE}/{source}/{table}"
        commit = f"{folder}/{LOG_FOLDER}/{version:020d}.json"
        if manifest.files[commit].size == 0:  # Delta takes it for a commit that changes nothing.
            yield f"{commit}, the last commit of a table, is empty"
            continue
        try:
            named = DeltaTable(storage.join(uri, folder), version).file_uris()
        except DeltaError as error:
            yield f"{folder} cannot be opened at version {version}: {error}"
            continue
        for file in named:
            path = f"{folder}/{file.partition(f'/{folder}/')[2]}"
            if path not in manifest.files:
                yield f"{folder} names {path} at version {version}, which the backup lacks"


def _registered(
    registry: Path, manifest: Manifest, tables: dict[tuple[str, str], int], found: list[str]
) -> Iterator[tuple[str, int]]:
    """The versions of the registry, as (model, version). Adds problems to `found`."""
    root = manifest.artifacts.rstrip("/")
    runs = {run: where for run, where in databases.rows(registry, "runs", "run_uuid", "artifact_uri")}
    tags = {(m, v, key): value for m, v, key, value in _tags(registry)}
    versions = databases.rows(registry, "model_versions", "name", "version", "run_id", "current_stage")
    for model, version, run, stage in versions:
        yield model, int(version)
        if stage == "Deleted_Internal" or not run:
            continue
        where = f"{model} version {version} in MLflow's database"
        if run not in runs:
            found.append(f"{where} names run {run}, which it lacks")
            continue
        inside = runs[run].removeprefix("file://").removeprefix("mlflow-artifacts:").removeprefix(root).strip("/")
        model_file = manifest.files.get(f"{ARTIFACTS}/{inside}/served/model.onnx")
        digest = tags.get((model, version, "digest"))
        if model_file is None:
            found.append(f"{where} has no served/model.onnx among the artifacts of run {run}")
        elif digest and model_file.sha256 != digest:
            found.append(f"{where} has the digest {digest}, its served/model.onnx has {model_file.sha256}")
    for model, version, key, value in _tags(registry):
        if key.startswith(TABLE):
            named = {key.removeprefix(TABLE): int(value)}
            found += _too_new(named, manifest.sources.get(model), tables, f"{model} version {version}")
    known = {(model, version) for model, version, *_ in versions}
    for model, alias, version in databases.rows(registry, "registered_model_aliases", "name", "alias", "version"):
        if (model, version) not in known:
            found.append(f"The alias {alias} of {model} names version {version}, which MLflow's database lacks")


def _tags(registry: Path) -> list[tuple[str, ...]]:
    return databases.rows(registry, "model_version_tags", "name", "version", "key", "value")


def _ledger(
    uri: str, manifest: Manifest, tables: dict[tuple[str, str], int], versions: set[tuple[str, int]] | None
) -> list[str]:
    found, ledger = list[str](), Ledger(storage.join(uri, LEDGER))
    for model in ledger.models():
        broken = ledger.problems(model)
        found += broken
        for entry in () if broken else ledger.entries(model):
            where = f"Entry {entry.seq} ({entry.kind}) of the ledger of {model}"
            for name, value in _named(entry.body):
                if name == "table_versions":
                    found += _too_new(value, manifest.sources.get(model), tables, where)
                elif versions is not None and (model, value) not in versions:
                    found.append(f"{where} names version {value}, which MLflow's database lacks")
    return found


def _named(body: Any) -> Iterator[tuple[str, Any]]:
    """The fields of an entry's body, however deep, that name versions of the model or of tables."""
    for name, value in body.items() if isinstance(body, dict) else ():
        if (name == "table_versions" and value) or (name in _VERSIONS and isinstance(value, int)):
            yield name, value
        else:
            yield from _named(value)


def _too_new(
    named: dict[str, int], source: str | None, tables: dict[tuple[str, str], int], where: str
) -> Iterator[str]:
    for table, version in named.items():
        newest = [have for (of, name), have in tables.items() if of == source and name.split("/")[0] == table]
        if source is not None and version > max(newest, default=-1):
            yield f"{where} names version {version} of table {table}, which the lake's copy lacks"
