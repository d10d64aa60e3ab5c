"""The policy `cost_aware`: a training when it very likely saves more than it costs.

Two costs in one unit are compared, as in Mahadevan & Mathioudakis, Cost-aware retraining for machine learning
(Knowledge-Based Systems 293, 2024), who hold the cost of staleness against that of retraining; and as in Regol et al.,
When to retrain a machine learning model (ICML 2025, PMLR 267), who add the trainings of a schedule, at a price, to the
losses of the models that serve, forecast these with their uncertainty, and decide by a quantile of the forecast. Their
forecasts learn from several past models; ours is a random walk (training/domain/staleness.py), which needs one look.

    saved = staleness · predictions per day · horizon_days / 1000 · loss_per_1000_predictions
    train when P(saved > training) ≥ confidence

Both losses are those of the next `horizon_days`. With a training, staleness begins at 0 again; what changes afterwards
costs both models alike and cancels. One look ahead would never pay for a small loss that lasts, hence a horizon. Losses
are counted from now: what was lost before cannot be saved.

Drift alone asks for nothing here, as its loss is unknown. While no performance of the champion has been tested, the
policy `combined` decides.
"""

from dataclasses import replace
from datetime import date
from typing import NamedTuple

from training.contract.messages import Degradation
from training.contract.model_spec import ModelSpec
from training.contract.registries import POLICIES
from training.domain.policies.combined import combined
from training.domain.retraining import History
from training.domain.retraining_policy import Advice, Evidence
from training.domain.staleness import staleness


@POLICIES.register("cost_aware")
def cost_aware(evidence: Evidence, history: History, spec: ModelSpec) -> Advice:
    costs, looks = spec.retraining.costs, _tested(evidence, history)
    if not looks or costs.training is None or costs.loss_per_1000_predictions is None:
        advice = combined(evidence, history, spec)
        lacks = "no performance of this champion has been tested yet" if not looks else "retraining.costs lacks a price"
        return replace(advice, text=f"{advice.text} (cost_aware: {lacks}, so the policy combined decides)")
    price, (_, test, per_day) = costs.training, looks[-1]
    predictions = per_day * costs.horizon_days
    per_unit = predictions / 1000 * costs.loss_per_1000_predictions
    stale = staleness([look.test for look in looks])
    pays_from = price / per_unit
    sure = stale.chance_above(pays_from)
    unit = f" {costs.unit}" if costs.unit else ""
    text = (
        f"a training saves {per_unit * stale.mean:.4g} ± {per_unit * stale.standard_error:.4g}{unit} in "
        f"{costs.horizon_days} days and costs {price:g}{unit}: it pays with a probability of {sure:.0%} "
        f"(needed: {costs.confidence:.0%}). {test.metric} of the champion is worse than a new model's by "
        f"{stale.mean:.4g} ± {stale.standard_error:.4g}; from {pays_from:.4g} on a training pays"
    )
    numbers = {
        "saves": per_unit * stale.mean,
        "saves_standard_error": per_unit * stale.standard_error,
        "training_costs": price,
        "pays_with_probability": sure,
        "confidence": costs.confidence,
        "staleness": stale.mean,
        "staleness_standard_error": stale.standard_error,
        "pays_from_staleness": pays_from,
        "predictions": predictions,
    }
    return Advice(text, ("performance",) if sure >= costs.confidence else (), numbers, test)


class _Tested(NamedTuple):
    as_of: date
    test: Degradation
    per_day: float
    """Labelled predictions."""


def _tested(evidence: Evidence, history: History) -> list[_Tested]:
    """The newest test of this champion for each of its windows, in the order of the windows."""
    by_window: dict[int, _Tested] = {}
    for look in (*history.looks, *filter(None, [evidence.look])):
        if look.champion_version != evidence.champion_version or look.as_of > evidence.as_of:
            continue
        if look.test is None or look.window is None or not look.rows:
            continue
        number = look.test.look
        if number not in by_window or by_window[number].as_of <= look.as_of:
            by_window[number] = _Tested(look.as_of, look.test, look.rows / len(look.window))
    return [by_window[number] for number in sorted(by_window)]
