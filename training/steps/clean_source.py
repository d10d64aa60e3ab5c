"""Delete earlier versions of a source's tables that no registered version was made of, and old pages."""

import logging
from datetime import UTC, datetime

from training import storage
from training.adapters.lake import QUARANTINE, Lake
from training.adapters.registry.retention import needed_table_versions
from training.contract.life import EVENTS
from training.contract.messages import CleanResult, CleanSourceInputs
from training.contract.model_spec import source_of
from training.contract.source_spec import load_source_spec
from training.settings import StateSettings
from training.workspace import DATA_DOCS, UNDER_WAY, delete_old, hours_until

log = logging.getLogger("perennial")


def run(inputs: CleanSourceInputs, settings: StateSettings) -> CleanResult:
    """Apply `retention` of the source spec: Delta's vacuum, except for what registered versions were made of.

    The newest version of a table always stays. A model without a spec counts as one that learns from the source. Raises
    DataContractError when a registered version does not say what it was made of, TransientError when MLflow or a store
    does not answer.
    """
    spec, now = load_source_spec(inputs.source, settings.feature_repo), inputs.now or datetime.now(UTC)
    kept = needed_table_versions(
        settings.tracking_uri, lambda model: source_of(model, settings.models_dir) in (None, spec.name)
    )
    lake, deleted = Lake(settings.lake, spec.name), dict[str, int]()
    hours = hours_until(spec.retention.table_versions_days, now)
    for table in [*spec.tables, QUARANTINE]:
        deleted[table] = len(lake.vacuum(table, hours, kept.get(table, set()), inputs.dry_run))
    docs = storage.join(settings.work, spec.name, DATA_DOCS)
    deleted[DATA_DOCS] = delete_old(docs, spec.retention.pages_days, now, inputs.dry_run)
    events = storage.join(settings.work, EVENTS, "sources", spec.name)
    deleted["life"] = delete_old(events, spec.retention.pages_days, now, inputs.dry_run)
    # What an ingest that was killed has left.
    deleted["ingest"] = delete_old(str(settings.scratch / spec.name / UNDER_WAY), 1, now, inputs.dry_run)
    kept_versions = {table: len(versions) for table, versions in kept.items() if table in spec.tables}
    log.info(
        "%s: %s; versions kept for registered versions: %s",
        "Would be deleted" if inputs.dry_run else "Deleted",
        *(deleted, kept_versions),
    )
    return CleanResult(deleted=deleted, kept_versions=kept_versions)
