"""The policy `performance`: a training when the champion has become worse than it was on its holdout, beyond chance.

Estimates of performance, made before labels come, ask for a training too, once they have been right before.
"""

from training.contract.messages import Degradation
from training.contract.model_spec import ModelSpec
from training.contract.registries import POLICIES
from training.domain.retraining import History
from training.domain.retraining_policy import Advice, Evidence


@POLICIES.register("performance")
def performance(evidence: Evidence, history: History, spec: ModelSpec) -> Advice:
    found = evidence.performance
    if found is None:
        return Advice("performance was not measured")
    primary, estimated = spec.evaluation.primary, found.estimated
    before = _number(found.reference.get(primary))
    if found.degraded:
        text = f"{primary} {_number(found.current.get(primary))} on matured labels, {before} on the holdout"
        return _asks(text, found.test)
    if estimated is not None and estimated.degraded and estimated.trusted:
        now = _number(estimated.metrics.get(primary))
        return _asks(f"{primary} {now} is estimated for {estimated.window}, {before} on the holdout", estimated.test)
    if found.test is not None:
        return Advice(str(found.test), numbers=_numbers(found.test))
    return Advice("performance was not compared" if found.outcome == "measured" else f"performance: {found.outcome}")


def _asks(text: str, test: Degradation | None) -> Advice:
    return Advice(text + (f": {test}" if test else ""), ("performance",), _numbers(test), test)


def _numbers(test: Degradation | None) -> dict[str, float]:
    return {} if test is None else test.model_dump(exclude={"metric"})


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
