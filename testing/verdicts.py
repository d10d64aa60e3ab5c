"""Verdicts without what a clock says, to be compared."""

from training.contract.messages import Verdict

_MEASURED = ("p99 of one row", "the training took")


def computed(verdict: Verdict) -> Verdict:
    """What the inputs alone decide of a verdict: all but the latency and the cost."""
    reasons = [each for each in verdict.reasons if not any(measured in each for measured in _MEASURED)]
    return verdict.model_copy(update={"latency": None, "cost": None, "reasons": reasons})
