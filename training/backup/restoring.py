"""Put the state of a backup where the settings say. Nothing may use the state meanwhile.

Folders must be empty, or hold what an interrupted restore of the same backup has put there: so it can be killed at any
point and run again. Whatever refers to something else is restored after it, so a half restored state has no ledger and
no champion.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from training import storage
from training.adapters import databases
from training.backup import files
from training.backup.making import Report
from training.backup.manifest import (
    AIRFLOW,
    ARTIFACTS,
    DATABASE,
    FEAST,
    LAKE,
    LEDGER,
    REGISTRY,
    WORK,
    Manifest,
    read_manifest,
)
from training.backup.verifying import problems
from training.contract.errors import DataContractError, InputError
from training.delta_log import LOG_FOLDER
from training.settings import Settings


def restore(uri: str, settings: Settings, report: Report = lambda part, count: None) -> Manifest:
    """Returns the manifest of the backup. Raises DataContractError, and changes nothing, when the backup is not whole;
    InputError when a folder or an SQLite database holds another state."""
    manifest = read_manifest(uri)
    if found := problems(uri):
        raise DataContractError(f"The backup {uri} is not intact: {'; '.join(found[:5])}", "Use another backup.")
    folders = {
        LAKE: settings.lake,
        WORK: settings.work,
        FEAST: str(Path(settings.feature_registry).parent),
        ARTIFACTS: settings.artifacts,
        LEDGER: settings.ledger,
    }
    stores = {REGISTRY: settings.registry_database, AIRFLOW: settings.airflow_database}
    if strange := [*_strange(folders, manifest), *_other_databases(uri, stores, manifest)]:
        hint = "Move the state away first (`make clean` deletes it), or restore into another folder (STATE=<folder>)."
        raise InputError(f"There is already another state: {', '.join(strange[:5])}", hint)
    for part in (LAKE, WORK, FEAST, ARTIFACTS):
        report(part, _folder(uri, part, folders[part], manifest))
    report(REGISTRY, _database(uri, REGISTRY, stores[REGISTRY], manifest))
    report(LEDGER, _folder(uri, LEDGER, folders[LEDGER], manifest))
    report(AIRFLOW, _database(uri, AIRFLOW, stores[AIRFLOW], manifest))
    return manifest


def _of(part: str, manifest: Manifest) -> list[str]:
    return [path.removeprefix(f"{part}/") for path in manifest.files if path.startswith(f"{part}/")]


def _strange(folders: dict[str, str], manifest: Manifest) -> Iterator[str]:
    for part, uri in folders.items():
        for path in storage.tree(uri):
            here = storage.join(uri, path)
            if not files.is_draft(path) and files.record(here) != manifest.files.get(f"{part}/{path}"):
                yield here


def _other_databases(uri: str, stores: dict[str, str], manifest: Manifest) -> Iterator[str]:
    for part, url in stores.items():
        path = databases.sqlite_path(url)
        # An interrupted restore has put the very bytes of the backup there.
        if path and path.exists() and files.record(str(path)) != manifest.files.get(f"{part}/{DATABASE}"):
            yield str(path)


def _folder(uri: str, part: str, target: str, manifest: Manifest) -> int:
    paths = _of(part, manifest)
    # Logs last: a table exists once its files do.
    for path in sorted(paths, key=lambda path: (f"/{LOG_FOLDER}/" in path, path)):
        if files.record(storage.join(target, path)) != manifest.files[f"{part}/{path}"]:
            files.copy(storage.join(uri, part, path), storage.join(target, path))
    return len(paths)


def _database(uri: str, part: str, url: str, manifest: Manifest) -> int:
    if f"{part}/{DATABASE}" not in manifest.files:
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary, DATABASE)
        files.copy(storage.join(uri, part, DATABASE), str(copy))
        databases.load(copy, url)
    return 1
