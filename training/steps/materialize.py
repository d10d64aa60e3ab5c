"""Put the newest feature rows into the online store."""

from training.contract.messages import MaterializeInputs, MaterializeResult
from training.contract.model_spec import load_model_spec
from training.settings import Settings


def run(inputs: MaterializeInputs, settings: Settings) -> MaterializeResult:
    """Materialize exactly the pinned versions of the feature tables; see Features.materialize."""
    from training.adapters.features import Features

    spec = load_model_spec(inputs.model, settings.models_dir)
    as_of, rows = Features(settings, spec).materialize(inputs.table_versions)
    return MaterializeResult(as_of=as_of, rows=rows, table_versions=inputs.table_versions)
