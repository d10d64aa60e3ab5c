"""Whether the state is unchanged: the ledger, the registered versions, the files of the lake. Each fault is a sentence
that names what was changed, added or removed."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from training import file_digests
from training.adapters.lake import PREDICTIONS, QUARANTINE, Lake
from training.adapters.ledger import Ledger
from training.adapters.registry import ModelVersion, Registry
from training.adapters.registry.anchors import ledger_anchors
from training.adapters.registry.retention import needed_table_versions
from training.contract.artifact import METADATA_FILE
from training.contract.errors import DataContractError, InputError, TransientError
from training.contract.model_spec import load_model_spec, models_of, source_of
from training.contract.recipe import RECIPE_FILE, RECIPE_FOLDER, Recipe
from training.contract.source_spec import SourceSpec
from training.delta_log import LOG_FOLDER, RECORDS, commits
from training.nightly_share import NightlyShare
from training.settings import StateSettings
from training.signing import artifact_check, fetch_signed

log = logging.getLogger("perennial")

#: What a commit counts in a night's share: few are larger.
_COMMIT_BYTES = 4096


def ledger_faults(model: str, settings: StateSettings) -> tuple[list[str], int]:
    """What is wrong with the ledger of `model`, and with how many registered versions it was compared.

    Without an answer of MLflow the chain alone is checked, and a warning says so.
    """
    ledger = Ledger(settings.ledger)
    if found := ledger.problems(model):
        return found, 0
    try:
        anchors = ledger_anchors(settings.tracking_uri, model)
    except TransientError as error:
        log.warning("Not compared with the anchors in MLflow: %s", error.message)
        return [], 0
    return [
        f"Version {version} of {model} was registered when the ledger's newest entry was {anchor}, but {problem}"
        for version, anchor in anchors.items()
        if (problem := ledger.anchor_problem(model, anchor))
    ], len(anchors)


def version_faults(model: str, settings: StateSettings) -> tuple[list[str], int]:
    """What is wrong with the registered versions of `model`, and how many there are.

    Each is fetched and compared with its digest and, with CT_TRUSTED_KEYS, its signature. The files of the tables that
    it was trained on must be recorded as they were then. Raises TransientError when MLflow does not answer.
    """
    versions, found = Registry(settings.tracking_uri).versions(model), list[str]()
    for version in versions:
        try:
            with TemporaryDirectory() as folder:
                found += _version_faults(version, Path(folder), settings)
        except (DataContractError, InputError) as error:
            found.append(_naming(version, error.message))
    return found, len(versions)


def _naming(version: ModelVersion, message: str) -> str:
    named = f"Version {version.version} of {version.model}"
    return message if named.lower() in message.lower() else f"{named}: {message}"


def _version_faults(version: ModelVersion, folder: Path, settings: StateSettings) -> list[str]:
    check = artifact_check(version.model, version.version, settings)
    Registry(settings.tracking_uri).download(version, folder / "served", settings.artifact_maximum_mib, check)
    named, file = f"Version {version.version} of {version.model}", folder / RECIPE_FILE
    faults = _metadata_faults(version, folder / "served" / METADATA_FILE, named)
    if not fetch_signed(version.run_id, f"{RECIPE_FOLDER}/{RECIPE_FILE}", file, named, settings):
        return faults
    try:
        recipe = Recipe.model_validate_json(file.read_bytes())
    except ValidationError as error:
        return [*faults, f"{named}: its recipe is not valid: {error}"]
    source = load_model_spec(version.model, settings.models_dir, settings.feature_repo).source.name
    return faults + [f"{named} was trained on other files: {each}" for each in pinned_faults(recipe, source, settings)]


def _metadata_faults(version: ModelVersion, file: Path, named: str) -> list[str]:
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if version.metadata_digest in ("", found):  # Empty: registered by an earlier version of Perennial.
        return []
    return [
        f"{named}: {file.name} was changed: its SHA-256 is {found}, it was registered with {version.metadata_digest}"
    ]


def pinned_faults(recipe: Recipe, source: str, settings: StateSettings, read: bool = False) -> list[str]:
    """Which table versions of `recipe` consist of other files than it says. `read`: read the files, too."""
    lake, found = Lake(settings.lake, source, recipe.dataset.model), list[str]()
    snapshot = recipe.dataset.snapshot
    for table, number in (snapshot.table_versions if snapshot else {}).items():
        if table not in recipe.files or recipe.tables.get(table) != lake.identity(table):
            continue  # Made before there were digests, or of a table that is gone: reproduce says that.
        if (newest := lake.version(table)) is None or number > newest:
            continue  # Restored from an older copy.
        paths = lake.files(table, number)
        known = file_digests.recorded(lake.uri(table))
        if file_digests.digest_of(known, paths) != recipe.files[table]:
            where = f"{lake.uri(table)}/{RECORDS}"
            found.append(f"the record of what version {number} of table {table} consists of was changed, in {where}")
        if read:
            found += file_digests.problems(lake.uri(table), paths).values()
    return found


def lake_faults(
    spec: SourceSpec, settings: StateSettings, tonight: NightlyShare | None = None
) -> tuple[list[str], dict[str, int]]:
    """What is wrong with files of the tables of a source and of the predictions of its models; table → files read.

    Those of the newest version, and of the versions that registered versions were made of, are read: all of them, or
    what is due `tonight`. Files without a record are recorded. Raises TransientError when MLflow or the lake's store
    does not answer.
    """
    needed = needed_table_versions(
        settings.tracking_uri, lambda model: source_of(model, settings.models_dir) in (None, spec.name)
    )
    lake = Lake(settings.lake, spec.name)
    tables = {table: (lake, table, _files(lake, table, needed)) for table in [*spec.tables, QUARANTINE]}
    for model in models_of(spec.name, settings.models_dir):
        of_model = Lake(settings.lake, spec.name, model)
        tables[f"{PREDICTIONS}/{model}"] = (of_model, PREDICTIONS, _files(of_model, PREDICTIONS, {}))
    found, read = list[str](), dict[str, int]()
    for name, (lake, table, sizes) in tables.items():
        log_sizes = dict.fromkeys(_commits(lake, table), _COMMIT_BYTES)
        file_digests.record_missing(lake.uri(table), [*sizes, *log_sizes])
        for part, files in ((name, sizes), (f"{name}/{LOG_FOLDER}", log_sizes)):
            paths = files.keys() if tonight is None else tonight.of(part, files)
            faults = file_digests.problems(lake.uri(table), paths)
            if tonight is not None:
                tonight.found_good(part, paths - faults.keys())
            found += faults.values()
            read[name] = read.get(name, 0) + (len(paths) if part == name else 0)
    if tonight is not None:
        tonight.keep()
    return found, read


def _commits(lake: Lake, table: str) -> set[str]:
    """The commits of a table: those of its log, and recorded ones that it lacks. Delta deletes old ones of streams."""
    uri = lake.uri(table)
    known = file_digests.recorded(uri) if table != PREDICTIONS else {}
    return {*commits(uri), *(path for path in known if path.startswith(f"{LOG_FOLDER}/"))}


def _files(lake: Lake, table: str, needed: Mapping[str, set[int]]) -> dict[str, int]:
    """Path → bytes."""
    newest = lake.version(table)
    if newest is None:
        return {}
    versions = {newest, *(number for number in needed.get(table, ()) if number <= newest)}
    return {path: size for number in sorted(versions) for path, size in lake.file_sizes(table, number).items()}
