"""Decide whether the challenger may replace the champion. Every gate fails when its numbers are missing.

Floors: each metric with a floor in the spec must reach it. Against a champion there are more gates: no metric may be
worse by more than its margin, and the primary metric must be better beyond chance. Beyond chance means that the lower
end of the paired bootstrap interval is above zero. Each end of the interval alone holds with the spec's confidence.

The challenger was selected as the best of several candidates on the same rows, so it may be better by luck. The chance
of error is therefore divided by the number n of candidates (Bonferroni): each must be better with confidence
1 - (1 - c) / n. n counts all estimators of the spec, also those that failed, so that a failure does not make the gate
easier for the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from training.contract.messages import Metrics, Verdict
from training.contract.model_spec import EvaluationSpec, Metric


@dataclass(frozen=True)
class Gate:
    """One condition of a promotion, and a sentence with its numbers."""

    passed: bool
    sentence: str

    def __str__(self) -> str:
        return f"{'passed' if self.passed else 'FAILED'}: {self.sentence}"


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


def judge(spec: EvaluationSpec, challenger: Metrics, champion: Champion | None, candidates: int = 1) -> Verdict:
    """The verdict on a challenger with these holdout metrics, the best of `candidates` (including those that failed).

    `champion` is None when no model is in service yet.
    """
    confidence = 1 - (1 - spec.confidence) / candidates
    gates = list(_floors(spec, challenger))
    difference = None
    if champion is None:
        gates.append(Gate(True, "there is no champion yet, so only the floors count"))
    elif champion.metrics is None or champion.differences is None:
        gates.append(Gate(False, f"against champion version {champion.version}: {champion.problem}"))
    else:
        difference = interval(champion.differences, confidence)
        gates += _margins(spec, challenger, champion.metrics)
        certainty = f"each end at {confidence:.1%}"
        if candidates > 1:
            certainty += f", which is {spec.confidence:.0%} for the best of {candidates} candidates"
        if champion.drawn:
            certainty += f"; the bootstrap draws {champion.drawn}"
        gates.append(_better(spec.primary, challenger, champion.metrics, difference, certainty))
    return Verdict(
        promote=all(gate.passed for gate in gates),
        reasons=[str(gate) for gate in gates],
        primary=spec.primary,
        challenger=challenger,
        champion=champion.metrics if champion else None,
        difference=difference,
        confidence=confidence,
    )


def interval(differences: np.ndarray, confidence: float) -> tuple[float, float]:
    """The percentile interval. Each end alone holds with `confidence`. Without samples it is (-1, 1)."""
    if not len(differences):
        return -1.0, 1.0
    low, high = np.quantile(differences, [1 - confidence, confidence])
    return float(low), float(high)


def _floors(spec: EvaluationSpec, challenger: Metrics) -> Iterator[Gate]:
    for metric, floor in spec.floors.items():
        value = challenger.get(metric, float("nan"))
        # A comparison with NaN is false, so a missing metric fails.
        yield Gate(value >= floor, f"{metric} {value:.4f} must reach the floor {floor:.4f}")


def _margins(spec: EvaluationSpec, challenger: Metrics, champion: Metrics) -> Iterator[Gate]:
    for metric, margin in spec.margins.items():
        ours, theirs = challenger.get(metric, float("nan")), champion.get(metric, float("nan"))
        sentence = f"{metric} {ours:.4f} may be at most {margin:.4f} below the champion's {theirs:.4f}"
        yield Gate(ours >= theirs - margin, sentence)


def _better(
    primary: Metric, challenger: Metrics, champion: Metrics, difference: tuple[float, float], certainty: str
) -> Gate:
    ours, theirs = challenger[primary], champion[primary]
    sentence = (
        f"{primary} {ours:.4f} must be above the champion's {theirs:.4f} beyond chance: difference "
        f"{ours - theirs:+.4f}, bootstrap interval [{difference[0]:+.4f}, {difference[1]:+.4f}], {certainty}"
    )
    return Gate(ours > theirs and difference[0] > 0, sentence)
