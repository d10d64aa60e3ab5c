"""Decide whether the challenger may replace the champion. Every gate fails when its numbers are missing.

Limits: each metric with a limit must reach it. The first model must also be better than a naive reference. Against a
champion there are other gates: no metric may be worse by more than its margin, and the primary metric must be better
beyond chance. Beyond chance means that the whole paired bootstrap interval is on the better side of zero. Each end of
the interval alone holds with the spec's confidence.

The challenger was selected as the best of several candidates on the same rows, so it may be better by luck. The chance
of error is therefore divided by the number n of candidates (Bonferroni): each must be better with confidence
1 - (1 - c) / n. n counts all candidates, which are estimators on training windows, also those that failed, so that a
failure does not make the gate easier for the others.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.contract.messages import Metrics, Verdict
from training.contract.model_spec import EvaluationSpec, Metric
from training.contract.tasks import MetricRule, Relative, allowed
from training.domain.gates import Gate
from training.domain.task_kind import TaskKind

_NOT_MEASURED = float("nan")


@dataclass(frozen=True)
class Champion:
    """The model in service. When `differences` is None, the two cannot be compared and `problem` says why.

    `differences` are challenger minus champion in the primary metric on bootstrap samples. They are empty when nothing
    could be drawn; then the gate fails. `drawn` says what was drawn, and why it was not entities.
    """

    version: int
    metrics: Metrics | None = None
    differences: np.ndarray | None = None
    drawn: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Reference:
    """The naive prediction: what it is, and its metrics on the same rows."""

    described: str
    metrics: Metrics


@dataclass(frozen=True)
class Rules:
    """What a verdict is reached by: the spec's gates, and what each metric means."""

    spec: EvaluationSpec
    metrics: Mapping[str, MetricRule]
    limits: Mapping[str, float]

    @classmethod
    def of(cls, task: TaskKind) -> "Rules":
        return cls(task.evaluation, task.rules, {**task.limits, **task.evaluation.limits})

    @property
    def primary(self) -> MetricRule:
        return self.metrics[self.spec.primary]


def judge(
    rules: Rules,
    challenger: Metrics,
    reference: Reference,
    champion: Champion | None,
    candidates: int = 1,
    more: Sequence[Gate] = (),
) -> Verdict:
    """The verdict on a challenger with these holdout metrics, the best of `candidates` (including those that failed).

    `champion` is None when no model is in service yet. `more` are gates that need more than metrics.
    """
    spec = rules.spec
    confidence = 1 - (1 - spec.confidence) / candidates
    gates = list(_limits(rules, challenger))
    difference = None
    skilled = skill(rules.primary, challenger.get(spec.primary), reference.metrics.get(spec.primary))
    if champion is None:
        gates.append(_skill(spec, challenger, reference, skilled))
        gates.append(
            Gate("champion", True, "there is no champion yet, so only the limits and the naive reference count")
        )
    elif champion.metrics is None or champion.differences is None:
        gates.append(Gate("champion", False, f"against champion version {champion.version}: {champion.problem}"))
    else:
        difference = interval(champion.differences, confidence)
        gates += _margins(rules, challenger, champion.metrics)
        certainty = f"each end at {confidence:.1%}"
        if candidates > 1:
            certainty += f", which is {spec.confidence:.0%} for the best of {candidates} candidates"
        if champion.drawn:
            certainty += f"; the bootstrap draws {champion.drawn}"
        gates.append(_better(rules, challenger, champion.metrics, difference, certainty))
    gates += more
    failed = dict.fromkeys(gate.name for gate in gates if not gate.passed)
    return Verdict(
        promote=not failed,
        failed=list(failed),
        reasons=[str(gate) for gate in gates],
        primary=spec.primary,
        challenger=challenger,
        champion=champion.metrics if champion else None,
        reference=reference.metrics,
        skill=skilled,
        difference=difference if difference and np.isfinite(difference).all() else None,
        confidence=confidence,
    )


def skill(rule: MetricRule, value: float | None, reference: float | None) -> float | None:
    """What of the way from `reference` to a perfect value `value` goes; negative when it is worse than the reference.

    None when one is missing or the reference is perfect. Source: the skill score of Murphy, Skill Scores Based on the
    Mean Square Error and Their Relationships to the Correlation Coefficient, Monthly Weather Review 116, 1988.
    """
    perfect = rule.high if rule.higher_is_better else rule.low
    if value is None or reference is None or reference == perfect:
        return None
    return (value - reference) / (perfect - reference)


def interval(differences: np.ndarray, confidence: float) -> tuple[float, float]:
    """The percentile interval. Each end alone holds with `confidence`. Without samples it is infinite."""
    if not len(differences):
        return -np.inf, np.inf
    low, high = np.quantile(differences, [1 - confidence, confidence])
    return float(low), float(high)


def _limits(rules: Rules, challenger: Metrics) -> Iterator[Gate]:
    for metric, limit in rules.limits.items():
        value, rule = challenger.get(metric, _NOT_MEASURED), rules.metrics[metric]
        side = "at least" if rule.higher_is_better else "at most"
        # A comparison with NaN is false, so a missing metric fails.
        yield Gate("limits", rule.sign * value >= rule.sign * limit, f"{metric} {value:.4f} must be {side} {limit:.4f}")


def _skill(spec: EvaluationSpec, challenger: Metrics, reference: Reference, skilled: float | None) -> Gate:
    ours, theirs = (each.get(spec.primary, _NOT_MEASURED) for each in (challenger, reference.metrics))
    told = "cannot be computed" if skilled is None else f"{skilled:.4f}"
    sentence = (
        f"the skill in {spec.primary} {told}, must be above {spec.minimum_skill:.4f}: {ours:.4f} against {theirs:.4f} "
        f"of the naive reference, {reference.described}"
    )
    return Gate("skill", skilled is not None and skilled > spec.minimum_skill, sentence)


def _margins(rules: Rules, challenger: Metrics, champion: Metrics) -> Iterator[Gate]:
    for metric, margin in rules.spec.margins.items():
        ours, theirs = challenger.get(metric, _NOT_MEASURED), champion.get(metric, _NOT_MEASURED)
        rule, most = rules.metrics[metric], allowed(margin, theirs)
        side = "below" if rule.higher_is_better else "above"
        relative = f" ({margin.relative:.1%})" if isinstance(margin, Relative) else ""
        sentence = f"{metric} {ours:.4f} may be at most {most:.4f}{relative} {side} the champion's {theirs:.4f}"
        yield Gate("margins", rule.sign * (ours - theirs) >= -most, sentence)


def _better(
    rules: Rules, challenger: Metrics, champion: Metrics, difference: tuple[float, float], certainty: str
) -> Gate:
    primary: Metric = rules.spec.primary
    ours, theirs = challenger.get(primary, _NOT_MEASURED), champion.get(primary, _NOT_MEASURED)
    side = "above" if rules.primary.higher_is_better else "below"
    sentence = (
        f"{primary} {ours:.4f} must be {side} the champion's {theirs:.4f} beyond chance: difference "
        f"{ours - theirs:+.4f}, bootstrap interval [{difference[0]:+.4f}, {difference[1]:+.4f}], {certainty}"
    )
    sign, low, high = rules.primary.sign, *difference
    beyond_chance = low > 0 if sign > 0 else high < 0
    return Gate("better", sign * (ours - theirs) > 0 and beyond_chance, sentence)
