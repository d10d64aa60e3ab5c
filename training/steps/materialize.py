"""Put the newest feature rows into the online store."""

import logging

from training.contract.messages import MaterializeInputs, MaterializeResult
from training.contract.source_spec import load_source_spec
from training.settings import StateSettings

log = logging.getLogger("perennial")


def run(inputs: MaterializeInputs, settings: StateSettings) -> MaterializeResult:
    """Materialize exactly the pinned versions of the feature tables, or the newest; see OnlineRows.materialize."""
    spec = load_source_spec(inputs.source, settings.feature_repo)
    versions = inputs.table_versions
    if versions is None:
        from training.adapters.lake import Lake

        versions = Lake(settings.lake, spec.name).versions(*spec.entities)
    if not versions.keys() & spec.entities.keys():
        log.info("There are no feature rows yet, so there is nothing to put online")
        return MaterializeResult(as_of=None, rows=dict.fromkeys(spec.entities, 0), table_versions=versions)
    from training.adapters.features import OnlineRows

    as_of, rows = OnlineRows(settings, spec).materialize(versions, restore=inputs.table_versions is None)
    return MaterializeResult(as_of=as_of, rows=rows, table_versions=versions)
