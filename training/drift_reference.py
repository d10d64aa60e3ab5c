"""The rows that drift is measured against: a sample of those that the champion was trained on."""

import logging

from training.adapters.lake import Lake
from training.adapters.registry import REFERENCE, ModelVersion
from training.contract.artifact import ArtifactMetadata
from training.contract.errors import InputError
from training.contract.messages import DatasetInputs, Snapshot
from training.contract.model_spec import ModelSpec
from training.domain.comparison import Rows, compared, sample
from training.domain.entity_age import age_column, age_name, complete
from training.domain.identity import dataset_id
from training.settings import StateSettings
from training.signing import fetch_signed

log = logging.getLogger("perennial")


def champion_reference(
    champion: ModelVersion, metadata: ArtifactMetadata, spec: ModelSpec, settings: StateSettings
) -> Rows:
    """A sample of the features that the champion was trained on, from its dataset or, when that is gone, its run; and
    how long the entities of its rows were known, under the name `age_name`, where that is known of all.

    Datasets of earlier versions do not have the entities and times of the sample. Raises InputError when it is gone.
    """
    import pandas as pd

    from training.adapters import datasets

    work = settings.scratch / spec.name
    path = work / "datasets" / metadata.dataset_id / datasets.REFERENCE
    if metadata.window or not path.is_file():
        # Not beside the dataset's files: a folder with some of them is not a dataset. They are of the usual window.
        path = work / "references" / metadata.dataset_id / metadata.window / datasets.REFERENCE
    kept = f"{REFERENCE}/{datasets.REFERENCE}"
    named = f"version {champion.version} of {champion.model}"
    if not path.is_file() and not fetch_signed(champion.run_id, kept, path, named, settings):
        problem = f"The champion's reference, of dataset {metadata.dataset_id}, is neither in {work} nor in its run as"
        raise InputError(f"{problem} {kept}", hint=_how_to_restore(metadata, spec, settings))
    log.info("Reference read from %s", path)
    found = sample(pd.read_parquet(path), spec.monitoring.maximum_rows, spec.training.seed)
    known = set(spec.drift_keys) <= set(found.columns)
    columns = compared(found, metadata.columns, spec.monitoring.embeddings)
    if not known:
        return Rows(columns, None)
    kinds = [name for name in spec.entity_columns if age_column(name) in found]
    ages = complete({name: found[age_column(name)].to_numpy() for name in kinds}, found)
    return Rows(columns.assign(**{age_name(name): each for name, each in ages.items()}), found[spec.drift_keys])


def _how_to_restore(metadata: ArtifactMetadata, spec: ModelSpec, settings: StateSettings) -> str:
    """What to do about a missing reference. The dataset step can make it again while its dataset has the same id."""
    from training.adapters.features import definitions_digest

    definitions, days = definitions_digest(settings.feature_repo, spec.source), len(metadata.train_days)
    versions = metadata.table_versions
    tables = Lake(settings.lake, spec.source.name, spec.name).identities(versions)
    now = dataset_id(spec, metadata.as_of, versions, tables, days, spec.training.seed, definitions, metadata.change)
    if metadata.window:
        return f"Restore the artifacts of MLflow from a backup, or train a new champion ({spec.name}_train with Force)."
    if now != metadata.dataset_id:
        changed = "The parts of the model spec or the feature definitions that decide the dataset have changed since"
        return f"{changed}: train a new champion (run {spec.name}_train with Force)."
    snapshot = Snapshot(as_of=metadata.as_of, table_versions=metadata.table_versions)
    inputs = DatasetInputs(model=spec.name, snapshot=snapshot, window_days=days, change=metadata.change)
    return f"Make it again with `make step STEP=dataset INPUTS='{inputs.model_dump_json(exclude_none=True)}'`."
