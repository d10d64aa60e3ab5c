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
    columns = sorted(found.columns.items(), key=lambda item: item[1].certainty)
    surest = next((f". {name}: {column.shift}" for name, column in columns if column.shift), "")
    numbers = {"drifted_share": found.drifted_share}
    numbers |= {f"{name}: adjusted p-value": each.shift.adjusted_p_value for name, each in columns[:3] if each.shift}
    if not found.drifted:
        enough = "one drifted column" if limit is None else f"{limit:.0%}, or drifted outputs,"
        return Advice(f"{share}, {enough} would be a reason{surest}", numbers=numbers)
    drifted = ", ".join(name for name, column in columns if column.drifted)
    return Advice(f"{share} in {found.window}: {drifted}{surest}", ("drift",), numbers)
