"""Put the newest feature rows into the online store."""

import logging

from training.contract.messages import MaterializeInputs, MaterializeResult
from training.contract.model_spec import load_model_spec
from training.settings import StateSettings

log = logging.getLogger("perennial")


def run(inputs: MaterializeInputs, settings: StateSettings) -> MaterializeResult:
    """Materialize exactly the pinned versions of the feature tables; see Features.materialize."""
    spec = load_model_spec(inputs.model, settings.models_dir)
    if not inputs.table_versions.keys() & spec.features.tables.keys():
        log.info("The features step wrote no rows, so there is nothing to put online")
        return MaterializeResult(
            as_of=None, rows=dict.fromkeys(spec.features.tables, 0), table_versions=inputs.table_versions
        )
    from training.adapters.features import Features

    as_of, rows = Features(settings, spec).materialize(inputs.table_versions)
    return MaterializeResult(as_of=as_of, rows=rows, table_versions=inputs.table_versions)
