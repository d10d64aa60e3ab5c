"""The policy `fixed`: trainings by schedule only. What monitoring finds is shown and asks for nothing."""

from training.contract.model_spec import ModelSpec
from training.contract.registries import POLICIES
from training.domain.retraining import History
from training.domain.retraining_policy import Advice, Evidence


@POLICIES.register("fixed")
def fixed(evidence: Evidence, history: History, spec: ModelSpec) -> Advice:
    return Advice("the policy `fixed` trains by schedule only")
