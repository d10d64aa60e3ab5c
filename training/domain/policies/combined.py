"""The policy `combined`, the default: a training when performance is worse or the data has drifted.

Performance says more than drift, which only suggests that performance may suffer: it comes first. Both are one request.
"""

from training.contract.model_spec import ModelSpec
from training.contract.registries import POLICIES
from training.domain.policies.drift import drift
from training.domain.policies.performance import performance
from training.domain.retraining import History
from training.domain.retraining_policy import Advice, Evidence


@POLICIES.register("combined")
def combined(evidence: Evidence, history: History, spec: ModelSpec) -> Advice:
    both = [policy(evidence, history, spec) for policy in (performance, drift)]
    said = [each for each in both if each.asks] or both
    return Advice(
        text="; ".join(each.text for each in said),
        triggers=tuple(trigger for each in said for trigger in each.triggers),
        numbers=both[1].numbers | both[0].numbers,
        test=both[0].test,
    )
