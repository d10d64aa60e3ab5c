"""Slices: the challenger may be worse than the champion in no part of the rows, beyond chance and margin.

Every slice is measured in one metric on the same bootstrap samples, in which whole clusters are drawn. The gate fails
when the whole interval of a slice's difference is beyond the margin on the worse side. The intervals of all slices hold
together, so the chance that an equally good challenger fails does not grow with the number of slices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.contract.messages.judged_groups import Outcome, SliceResult, SliceResults
from training.contract.tasks import MetricRule, allowed
from training.contract.verdict_spec import SlicesSpec
from training.domain.gates import Gate
from training.domain.gates.groups import Group
from training.domain.gates.intervals import simultaneous
from training.domain.gates.scored_model import ScoredModel
from training.domain.resampling import MINIMUM_CLUSTERS, Clusters, Sample, effective_count

#: Sentences name so many of the slices.
NAMED = 5
#: A verdict keeps so many: steps get it on their command line.
KEPT = 60
#: A metric that is not defined on more of the samples says nothing of the slice.
_UNDEFINED = 0.2


@dataclass(frozen=True)
class _Slice:
    group: Group
    challenger: float
    champion: float
    draws: np.ndarray
    """Challenger minus champion on bootstrap samples."""


def judge_slices(
    spec: SlicesSpec,
    rule: MetricRule,
    challenger: ScoredModel,
    champion: ScoredModel | None,
    groups: Sequence[Group],
    samples: int,
    seed: int,
) -> tuple[SliceResults, list[Gate]]:
    """The table of the slices `groups` and the gate. Without a champion there is no gate, only the table.

    `spec.metric` must be set. `samples`: of the bootstrap.
    """
    clusters = challenger.scored.truth.clusters
    lacking = [(group, _lacks(spec, challenger, group, clusters)) for group in groups]
    found = [_result(group, "too_few", None, why=lacks) for group, lacks in lacking if lacks]
    measured = [group for group, lacks in lacking if not lacks]
    if champion is None:
        for group in measured:
            found.append(_result(group, "not_compared", challenger.some(group.rows).value(spec.metric)))
    else:
        slices = _compared(spec.metric, challenger, champion, measured, clusters, samples, seed)
        estimates = np.array([each.challenger - each.champion for each in slices])
        draws = np.array([each.draws for each in slices]).reshape(len(slices), samples).T
        for each, low, high in zip(slices, *simultaneous(estimates, draws, spec.confidence), strict=True):
            defined = np.isfinite(each.draws).mean() if len(each.draws) else 0.0
            if not np.isfinite([each.challenger, each.champion]).all() or defined < 1 - _UNDEFINED:
                why = f"{spec.metric} is not defined on {1 - defined:.0%} of the bootstrap samples"
                found.append(_result(each.group, "too_few", None, why=why))
                continue
            # The end of the interval at which the challenger is the best.
            best = rule.sign * (high if rule.sign > 0 else low)
            outcome: Outcome = "failed" if best < -allowed(spec.margin, each.champion) else "passed"
            found.append(_result(each.group, outcome, each.challenger, each.champion, low, high))
    order = [group.name for group in groups]
    # Those that matter most first: failed ones, then by size.
    ranked = sorted(found, key=lambda each: (each.outcome != "failed", each.outcome == "too_few", -each.rows))
    results = SliceResults(
        metric=spec.metric,
        confidence=spec.confidence,
        drawn=clusters.described,
        slices=sorted(ranked[:KEPT], key=lambda each: order.index(each.where)),
        left_out=len(ranked[KEPT:]),
    )
    return results, [] if champion is None or not groups else _gates(spec, rule, found)


def _lacks(spec: SlicesSpec, model: ScoredModel, group: Group, clusters: Clusters) -> str:
    """Why the slice is too small to tell. Empty: it is not."""
    if len(group.rows) < spec.minimum_rows:
        return f"{len(group.rows)} rows, where {spec.minimum_rows} are needed"
    if lacks := model.task.lacks_to_measure(model.scored.truth.labels[group.rows], spec.minimum_class_rows):
        return lacks
    if not clusters.count:
        return f"the bootstrap draws {clusters.described}"
    if (count := effective_count(clusters.numbers[group.rows])) < MINIMUM_CLUSTERS:
        kind = "blocks of time" if clusters.by_time else "entities"
        return f"its rows are in {int(count)} {kind} that count, where {MINIMUM_CLUSTERS} are needed"
    return ""


def _compared(
    metric: str,
    challenger: ScoredModel,
    champion: ScoredModel,
    groups: Sequence[Group],
    clusters: Clusters,
    samples: int,
    seed: int,
) -> list[_Slice]:
    both = [(challenger.some(group.rows), champion.some(group.rows)) for group in groups]
    random, draws = np.random.default_rng(seed), np.full((len(groups), samples), np.nan)
    for at in range(samples if groups else 0):
        drawn = clusters.draw(random)
        for number, (group, (ours, theirs)) in enumerate(zip(groups, both, strict=True)):
            sample = Sample(drawn.entity_weights[group.rows], drawn.by_time)
            if sample.entity_weights.any():
                draws[number, at] = ours.value(metric, sample) - theirs.value(metric, sample)
    return [
        _Slice(group, ours.value(metric), theirs.value(metric), draws[number])
        for number, (group, (ours, theirs)) in enumerate(zip(groups, both, strict=True))
    ]


def _result(
    group: Group,
    outcome: Outcome,
    challenger: float | None,
    champion: float | None = None,
    low: float | None = None,
    high: float | None = None,
    why: str = "",
) -> SliceResult:
    numbers = {"challenger": challenger, "champion": champion, "low": low, "high": high}
    finite = {name: float(value) for name, value in numbers.items() if value is not None and np.isfinite(value)}
    return SliceResult(
        where=group.name,
        found=group.found,
        rows=len(group.rows),
        challenger=finite.get("challenger"),
        champion=finite.get("champion"),
        low=finite.get("low"),
        high=finite.get("high"),
        outcome=outcome,
        why=why,
    )


def _gates(spec: SlicesSpec, rule: MetricRule, found: Sequence[SliceResult]) -> list[Gate]:
    few = [each for each in found if each.outcome == "too_few"]
    failed = [each for each in found if each.outcome == "failed"]
    passed = [each for each in found if each.outcome == "passed"]
    together = f"the intervals of all {len(failed) + len(passed)} slices hold together at {spec.confidence:.0%}"
    side = "below" if rule.sign > 0 else "above"
    left = f"; too few rows to tell in {len(few)} {'slice' if len(few) == 1 else 'slices'}: {_few(few)}" if few else ""
    if not failed:
        worse = f"{spec.metric} worse than the champion's beyond chance and margin"
        told = f"in none of {len(passed)} slices is {worse}" if passed else f"no slice shows {worse}"
        if passed:
            told += f"; the worst difference: {_told(spec, _worst(rule, passed)[0], side)}; {together}"
        return [Gate("slices", True, told + left)]
    gates = [
        Gate("slices", False, f"where {_told(spec, each, side)}; {together}") for each in _worst(rule, failed)[:NAMED]
    ]
    if len(failed) > NAMED:
        more = f"{len(failed) - NAMED} more slices are worse than the champion's beyond chance and margin"
        gates.append(Gate("slices", False, more))
    return gates


def _worst(rule: MetricRule, slices: Sequence[SliceResult]) -> list[SliceResult]:
    return sorted(slices, key=lambda each: rule.sign * ((each.challenger or 0.0) - (each.champion or 0.0)))


def _told(spec: SlicesSpec, each: SliceResult, side: str) -> str:
    ours, theirs = each.challenger or 0.0, each.champion or 0.0
    rows = f"{each.rows:,} rows" + (", found" if each.found else "")
    return (
        f"{each.where} ({rows}), {spec.metric} {ours:.4f} may be at most {allowed(spec.margin, theirs):.4f} {side} the "
        f"champion's {theirs:.4f}: difference {ours - theirs:+.4f}, interval [{each.low:+.4f}, {each.high:+.4f}]"
    )


def _few(slices: Sequence[SliceResult]) -> str:
    named = ", ".join(f"{each.where} ({each.why})" for each in slices[:NAMED])
    return f"{named} and {len(slices) - NAMED} more" if len(slices) > NAMED else named
