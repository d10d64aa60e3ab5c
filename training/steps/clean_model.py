"""Delete old data of a model: work files, reports, and artifacts of runs that no registered version belongs to."""

import logging
from datetime import UTC, date, datetime, timedelta

from training import storage
from training.adapters.lake import PREDICTIONS, Lake
from training.adapters.registry.retention import delete_artifacts
from training.contract.errors import TransientError
from training.contract.life import EVENTS
from training.contract.messages import CleanModelInputs, CleanResult
from training.contract.model_spec import load_model_spec
from training.settings import StateSettings
from training.workspace import DATA_DOCS, EVIDENCE, MADE_AGAIN, delete_old, hours_until

#: How often the table is compacted when another writer rewrites it meanwhile.
_TRIES = 3

log = logging.getLogger("perennial")


def run(inputs: CleanModelInputs, settings: StateSettings) -> CleanResult:
    """Apply `retention` of the model spec. Of its predictions, only files that no version of the table needs are
    deleted; the small files of past days are merged.

    Registered versions, their runs and the ledger stay for ever. Raises TransientError when MLflow or a store does not
    answer.
    """
    spec = load_model_spec(inputs.model, settings.models_dir, settings.feature_repo)
    now, keep, deleted = inputs.now or datetime.now(UTC), spec.retention, dict[str, int]()
    for folder in storage.folders(storage.join(settings.work, spec.name)):
        days = keep.work_days if folder in MADE_AGAIN else keep.reports_days
        if folder not in (DATA_DOCS, EVIDENCE):
            uri = storage.join(settings.work, spec.name, folder)
            deleted[folder] = delete_old(uri, days, now, inputs.dry_run)
    events = storage.join(settings.work, EVENTS, "models", spec.name)
    deleted["life"] = delete_old(events, keep.reports_days, now, inputs.dry_run)
    before = now - timedelta(days=keep.run_artifacts_days)
    deleted["runs"] = len(delete_artifacts(settings.tracking_uri, spec.name, before, inputs.dry_run))
    lake = Lake(settings.lake, spec.source.name, spec.name)
    # First, so that the small files are as old as can be when a later run deletes them.
    compacted = {} if inputs.dry_run else {PREDICTIONS: _compact(lake, datetime.now(UTC).date())}
    deleted[PREDICTIONS] = len(lake.vacuum(PREDICTIONS, hours_until(keep.work_days, now), (), inputs.dry_run))
    log.info("%s: %s", "Would be deleted" if inputs.dry_run else "Deleted", deleted)
    return CleanResult(deleted=deleted, compacted=compacted)


def _compact(lake: Lake, today: date) -> int:
    """Merge the files of the days before `today`. A replica commits when it has enough predictions or has waited."""
    for _ in range(_TRIES - 1):
        try:
            return lake.compact(PREDICTIONS, "day", today)
        except TransientError as error:
            log.warning("%s", error.message)
    return lake.compact(PREDICTIONS, "day", today)
