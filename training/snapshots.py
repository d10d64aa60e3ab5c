"""How the first step of a run resolves the snapshot that all its steps read."""

import logging
from datetime import date
from urllib.parse import quote

from training import storage
from training.adapters.lake import EVENTS, PREDICTIONS, Lake
from training.adapters.registry import CHAMPION, Registry
from training.adapters.tables import covered
from training.contract.messages import Snapshot, SnapshotInputs
from training.contract.model_spec import ModelSpec
from training.settings import StateSettings

log = logging.getLogger("perennial")


def snapshot_of(inputs: SnapshotInputs, spec: ModelSpec, settings: StateSettings, champion: bool = True) -> Snapshot:
    """The snapshot that the step was given or, when it is run by hand without one, the state now.

    A step that does not look at the `champion` says so: it then runs without MLflow.
    """
    return inputs.snapshot or resolve(spec, settings, inputs.as_of, champion)


def snapshot_of_run(run: str, spec: ModelSpec, settings: StateSettings, as_of: date | None = None) -> Snapshot:
    """The state now, kept as `<work>/<model>/snapshots/<run>.json`: a retry of the run's first step gets the same one.

    `run` is the orchestrator's id of the run; without one the state now is not kept.
    """
    if not run:
        return resolve(spec, settings, as_of)
    uri = storage.join(settings.work, spec.name, "snapshots", f"{quote(run, safe=':+')}.json")
    kept = storage.read(uri)
    if kept is None:
        storage.create(uri, resolve(spec, settings, as_of).model_dump_json(indent=2).encode())
        kept = storage.read(uri)
    else:
        log.info("Snapshot of run %s, resolved by an earlier try: %s", run, uri)
    assert kept is not None
    return Snapshot.model_validate_json(kept)


def resolve(spec: ModelSpec, settings: StateSettings, as_of: date | None = None, champion: bool = True) -> Snapshot:
    """The newest tables and, if asked for, the champion. `as_of` None: the day after the newest events.

    Without events nothing can be measured, and the registry is not asked.

    Raises TransientError when the lake's store or MLflow does not answer.
    """
    lake = Lake(settings.lake, spec.source.name, spec.name)
    versions = lake.versions(*spec.source.tables, PREDICTIONS)
    if as_of is None and EVENTS in versions:
        events = covered(lake, spec.source, EVENTS, versions[EVENTS])
        as_of = events.end if events else None
    serving = champion_version(spec, settings) if champion and as_of else None
    found = Snapshot(as_of=as_of, table_versions=versions, champion_version=serving)
    log.info("Snapshot: %s", found.model_dump_json())
    return found


def champion_version(spec: ModelSpec, settings: StateSettings) -> int | None:
    """The version that is the champion now. Raises TransientError when MLflow does not answer."""
    champion = Registry(settings.tracking_uri).by_alias(spec.name, CHAMPION)
    return champion.version if champion else None
