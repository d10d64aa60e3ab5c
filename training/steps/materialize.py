"""Put the newest feature rows into the online store."""

import logging

from training.contract.messages import MaterializeInputs, MaterializeResult
from training.contract.source_spec import load_source_spec
from training.settings import StateSettings

log = logging.getLogger("perennial")


def run(inputs: MaterializeInputs, settings: StateSettings) -> MaterializeResult:
    """Materialize exactly the pinned versions of the feature tables; see OnlineRows.materialize."""
    spec = load_source_spec(inputs.source, settings.feature_repo)
    if not inputs.table_versions.keys() & spec.entities.keys():
        log.info("The features step wrote no rows, so there is nothing to put online")
        return MaterializeResult(as_of=None, rows=dict.fromkeys(spec.entities, 0), table_versions=inputs.table_versions)
    from training.adapters.features import OnlineRows

    as_of, rows = OnlineRows(settings, spec).materialize(inputs.table_versions)
    return MaterializeResult(as_of=as_of, rows=rows, table_versions=inputs.table_versions)
