"""The policy `drift`: a training when the data has drifted. The broker waits until the drift persists."""

from training.contract.model_spec import ModelSpec
from training.contract.registries import POLICIES
from training.domain.retraining import History
from training.domain.retraining_policy import Advice, Evidence


@POLICIES.register("drift")
def drift(evidence: Evidence, history: History, spec: ModelSpec) -> Advice:
    found, limit = evidence.drift, spec.monitoring.maximum_drifted_share
    if found is None or found.outcome != "measured":
        return Advice("drift was not measured")
    share = f"{found.drifted_share:.0%} of the features drifted"
    numbers = {"drifted_share": found.drifted_share, "maximum_drifted_share": limit}
    if not found.drifted:
        return Advice(f"{share}, {limit:.0%} would be a reason, or drifted outputs", numbers=numbers)
    drifted = sorted((c for c, d in found.columns.items() if d.drifted), key=lambda c: -found.columns[c].score)
    return Advice(f"{share} in {found.window}: {', '.join(drifted)}", ("drift",), numbers)
