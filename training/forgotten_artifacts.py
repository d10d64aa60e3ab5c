"""What registered versions keep of single rows in MLflow."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.adapters import datasets
from training.adapters.registry import REFERENCE, SERVED, ModelVersion, Registry, Runs
from training.adapters.registry.versions import METADATA_DIGEST
from training.contract.artifact import METADATA_FILE, SIGNATURES, ArtifactMetadata
from training.contract.errors import DataContractError
from training.contract.recipe import RECIPE_FILE, RECIPE_FOLDER
from training.domain.forgetting import Entity, without
from training.settings import StateSettings
from training.signing import artifact_check, fetch_signed, sign_run

_SAMPLE = f"{REFERENCE}/{datasets.REFERENCE}"


def clean_versions(
    model: str, entity: Entity, settings: StateSettings, dry_run: bool
) -> tuple[dict[str, int], list[str]]:
    """Take the person's rows out of the golden rows and the reference samples of the registered versions of `model`.

    Returns what was removed, or would be, and what was left with the reason. A signed version is signed again; without
    the private key, or when it is not as it was signed, it is left. Raises TransientError when MLflow does not answer.
    """
    removed, left = dict[str, int](), list[str]()
    for version in Registry(settings.tracking_uri).versions(model):
        if not version.run_id:
            continue
        named = f"version {version.version} of {model}"
        with TemporaryDirectory() as folder:
            changed, rows = _without_person(version, entity, Path(folder), settings)
            if features := _knowing(Path(folder), entity):
                where = f"the categories of {', '.join(features)}, and may name it in evidence, reports and ledger"
                left.append(f"{named} has the value among {where}: train another one, then delete this one and its run")
            if not rows:
                continue
            if problem := _problem(version, changed, settings):
                left.append(f"{rows} golden and reference rows of {named} are the person's: {problem}")
                continue
            removed[f"golden and reference rows of {named}"] = rows
            if not dry_run:
                _put_back(version, changed, settings)
    return removed, left


def _without_person(
    version: ModelVersion, entity: Entity, folder: Path, settings: StateSettings
) -> tuple[dict[str, Path], int]:
    """Artifact folder → the folder with its file as it is without the person; and how many rows were left out."""
    registry, changed, rows = Registry(settings.tracking_uri), dict[str, Path](), 0
    for path in (_SAMPLE, f"{SERVED}/{METADATA_FILE}"):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if not registry.download_file(version.run_id, path, file):
            continue
        found = _shortened_sample(file, entity) if path == _SAMPLE else _shortened_golden(file, entity)
        if found:
            changed[path.partition("/")[0]] = file.parent
            rows += found
    return changed, rows


def _knowing(folder: Path, entity: Entity) -> list[str]:
    """The features of the version in `folder` that have the entity's value as a category."""
    file = folder / SERVED / METADATA_FILE
    features = ArtifactMetadata.model_validate_json(file.read_bytes()).features if file.exists() else None
    return [name for name, values in features.categories.items() if entity.value in values] if features else []


def _shortened_sample(file: Path, entity: Entity) -> int:
    table = pq.read_table(file)
    if entity.column not in table.column_names:
        return 0
    mine = pc.fill_null(pc.equal(table[entity.column].cast(_type(entity)), pa.scalar(entity.value)), False)
    count = pc.sum(mine).as_py() or 0
    if count:
        pq.write_table(table.filter(pc.invert(mine)), file)
    return int(count)


def _type(entity: Entity) -> pa.DataType:
    return pa.int64() if isinstance(entity.value, int) else pa.string()


def _shortened_golden(file: Path, entity: Entity) -> int:
    metadata = ArtifactMetadata.model_validate_json(file.read_bytes())
    golden = without(metadata.golden, entity)
    count = len(metadata.golden.events) - len(golden.events)
    if count:
        file.write_text(metadata.model_copy(update={"golden": golden}).model_dump_json(indent=2))
    return count


def _problem(version: ModelVersion, changed: dict[str, Path], settings: StateSettings) -> str:
    """Why the artifacts must stay as they are; empty when they may be changed."""
    if SERVED in changed:
        metadata = ArtifactMetadata.model_validate_json((changed[SERVED] / METADATA_FILE).read_bytes())
        if not metadata.golden.events:
            return "it would have no golden row any more. Train another version and delete this one."
    signed = Registry(settings.tracking_uri).files(version.run_id, SIGNATURES)
    if signed and not settings.signing_key_file:
        return "the version is signed. Run this again with CT_SIGNING_KEY_FILE."
    if signed and (why := _altered(version, settings)):
        return why
    if SERVED in changed and _metadata_altered(version, changed[SERVED] / METADATA_FILE, settings):
        return f"its {METADATA_FILE} is not as it was registered. Restore it from a backup, then run this again."
    return ""


def _metadata_altered(version: ModelVersion, shortened: Path, settings: StateSettings) -> bool:
    """Whether the metadata in MLflow are neither those that were registered nor those of a run that was killed before
    it put the `shortened` ones in their place."""
    with TemporaryDirectory() as folder:
        stored = Path(folder, METADATA_FILE)
        Registry(settings.tracking_uri).download_file(version.run_id, f"{SERVED}/{METADATA_FILE}", stored)
        known = {hashlib.sha256(file.read_bytes()).hexdigest() for file in (stored, shortened)}
    return version.metadata_digest not in {"", *known}


def _altered(version: ModelVersion, settings: StateSettings) -> str:
    """Why the version must not be signed again: it is not as it was signed. The reference sample is not compared: a run
    that was killed may have changed it."""
    named = f"version {version.version} of {version.model}"
    check = artifact_check(version.model, version.version, settings)
    with TemporaryDirectory() as folder:
        try:
            served = Path(folder, SERVED)
            Registry(settings.tracking_uri).download(version, served, settings.artifact_maximum_mib, check)
            recipe = f"{RECIPE_FOLDER}/{RECIPE_FILE}"
            fetch_signed(version.run_id, recipe, Path(folder, RECIPE_FILE), named, settings)
        except DataContractError as error:
            return f"{error.message}. {error.hint} Then run this again."
    return ""


def _put_back(version: ModelVersion, changed: dict[str, Path], settings: StateSettings) -> None:
    registry = Registry(settings.tracking_uri)
    runs = Runs(settings.tracking_uri, version.model, str(settings.home / "mlflow"))
    if SERVED in changed and version.metadata_digest:
        # First: killed in between, the next run finds the rows and does both again.
        made = hashlib.sha256((changed[SERVED] / METADATA_FILE).read_bytes()).hexdigest()
        registry.tag(version.model, version.version, METADATA_DIGEST, made)
    for name, folder in changed.items():
        runs.log_files(version.run_id, folder, name)
    if registry.files(version.run_id, SIGNATURES):
        with TemporaryDirectory() as fetched:
            served = registry.download(version, Path(fetched, SERVED), settings.artifact_maximum_mib)
            sign_run(version.model, version.run_id, version.digest, str(served), settings)
