"""Fairness: how differently the model treats the groups of a column.

A gap is the largest difference in a measure between two groups, as in Fairlearn: of the selection rate it is the
demographic parity difference, of the true positive rate the equal opportunity difference, and the larger of those of
true and false positive rate is the equalized odds difference (fairlearn.org, "Common fairness metrics"). The tests hold
them equal to Fairlearn's, which takes seconds to import and is too slow for a bootstrap.

Two kinds of gate: `fairness`, a gap must be within its limit; `fairness_change`, a gap may not be larger than the
champion's, beyond chance.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.contract.messages.judged_groups import FairnessResult, Gap, GroupRate
from training.contract.verdict_spec import FairnessSpec
from training.domain.gates import Gate
from training.domain.gates.groups import Group
from training.domain.gates.intervals import simultaneous
from training.domain.gates.scored_model import ScoredModel
from training.domain.row_measures import Rate

#: So many groups or gaps are named in sentences.
_NAMED = 5
#: Classes of a measure and a column, and gaps altogether, that a verdict keeps.
_CLASSES, _GAPS = 3, 24


@dataclass(frozen=True)
class _Compared:
    """A measure of the groups of a column: `group` [n] is the number of each row's group from 1 on, 0 for none."""

    column: str
    groups: Sequence[Group]
    group: np.ndarray
    rate: Rate

    def values(self, weights: np.ndarray) -> np.ndarray:
        """Of each group; NaN where no row counts."""
        hits, among = self._sums(weights * self.rate.hits), self._sums(weights * self.rate.among)
        return np.divide(hits, among, out=np.full(len(hits), np.nan), where=among > 0)

    @property
    def rows(self) -> np.ndarray:
        """The rows that count, of each group."""
        return self._sums(self.rate.among).astype(int)

    def _sums(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self.group, values, minlength=len(self.groups) + 1)[1:]

    def extremes(self, minimum: int) -> tuple[int, int] | None:
        """The groups with the highest and the lowest value. None: fewer than two are large enough."""
        values = np.where(self.rows >= minimum, self.values(np.ones(len(self.group))), np.nan)
        if np.isfinite(values).sum() < 2:
            return None
        return int(np.nanargmax(values)), int(np.nanargmin(values))


def judge_fairness(
    spec: FairnessSpec,
    challenger: ScoredModel,
    champion: ScoredModel | None,
    columns: Mapping[str, Sequence[Group]],
    samples: int,
    seed: int,
) -> tuple[FairnessResult, list[Gate]]:
    """The rates of the groups of each column, the gaps between them, and the gates."""
    ours = _compared(challenger, columns)
    theirs = {(each.column, each.rate.name): each for each in (_compared(champion, columns) if champion else [])}
    rates = [rate for each in ours for rate in _rates(each, spec.minimum_rows)]
    pairs = [(each, places) for each in ours if (places := each.extremes(spec.minimum_rows)) is not None]
    gaps = _gaps(spec, pairs, theirs, challenger, samples, seed)
    kept = _kept(gaps)
    with_gap = {(gap.column, gap.name) for gap in gaps}
    without = [name for each in ours if (name := (each.column, each.rate.name)) not in with_gap]
    names = {*[*((gap.column, gap.name) for gap in kept), *without][:_GAPS]}
    result = FairnessResult(
        confidence=spec.confidence,
        drawn=challenger.scored.truth.clusters.described,
        rates=[rate for rate in rates if (rate.column, rate.measure) in names],
        gaps=kept,
    )
    return result, [*_limits(spec, columns, ours, gaps), *(_changes(spec, gaps) if champion else [])]


def _compared(model: ScoredModel, columns: Mapping[str, Sequence[Group]]) -> list[_Compared]:
    found, rates = [], model.scored.rates
    for column, groups in columns.items():
        numbers = np.zeros(len(model.scored.truth.labels), dtype=np.int64)
        for number, group in enumerate(groups, start=1):
            numbers[group.rows] = number
        found += [_Compared(column, groups, numbers, rate) for rate in rates]
    return found


def _rates(each: _Compared, minimum: int) -> list[GroupRate]:
    values, rows = each.values(np.ones(len(each.group))), each.rows
    return [
        GroupRate(
            column=each.column,
            measure=each.rate.name,
            group=group.name,
            rows=int(rows[number]),
            value=float(values[number]) if rows[number] >= minimum and np.isfinite(values[number]) else None,
        )
        for number, group in enumerate(each.groups)
    ]


def _gaps(
    spec: FairnessSpec,
    pairs: Sequence[tuple[_Compared, tuple[int, int]]],
    champions: Mapping[tuple[str, str], _Compared],
    challenger: ScoredModel,
    samples: int,
    seed: int,
) -> list[Gap]:
    """The gaps with their intervals. On bootstrap samples a gap is between the two groups that have it on all rows."""
    others: list[tuple[_Compared, tuple[int, int]] | None] = []
    for each, _ in pairs:
        other = champions.get((each.column, each.rate.name))
        places = other.extremes(spec.minimum_rows) if other else None
        others.append((other, places) if other and places else None)
    whole = challenger.scored.truth.whole.entity_weights
    clusters = challenger.scored.truth.clusters
    random = np.random.default_rng(seed)
    both = [*pairs, *others]
    measured = np.array([_gap(each, whole) for each in both])
    drawn = np.full((samples if clusters.count and pairs else 0, len(both)), np.nan)
    for row in drawn:
        weights = clusters.draw(random).entity_weights
        row[:] = [_gap(each, weights) for each in both]
    (estimate, champion), (draws, champions_draws) = np.split(measured, 2), np.split(drawn, 2, axis=1)
    low, high = simultaneous(estimate, draws, spec.confidence)
    less, more = simultaneous(estimate - champion, draws - champions_draws, spec.confidence)
    return [
        Gap(
            column=each.column,
            measure=each.rate.measure,
            of=each.rate.of,
            gap=float(estimate[i]),
            low=float(low[i]) if np.isfinite(low[i]) else None,
            high=float(high[i]) if np.isfinite(high[i]) else None,
            highest=each.groups[places[0]].name,
            lowest=each.groups[places[1]].name,
            limit=spec.limits.get(each.rate.measure),
            champion=float(champion[i]) if np.isfinite(champion[i]) else None,
            change=(float(less[i]), float(more[i])) if np.isfinite([less[i], more[i]]).all() else None,
        )
        for i, (each, places) in enumerate(pairs)
    ]


def _gap(pair: tuple[_Compared, tuple[int, int]] | None, weights: np.ndarray) -> float:
    if pair is None:
        return float("nan")
    values = pair[0].values(weights)
    return float(values[pair[1][0]] - values[pair[1][1]])


def _kept(gaps: Sequence[Gap]) -> list[Gap]:
    """Of several classes those with the largest gaps: steps get verdicts on their command line."""
    kept: list[Gap] = []
    for gap in sorted(gaps, key=lambda each: -each.gap):
        same = [each for each in kept if (each.column, each.measure) == (gap.column, gap.measure)]
        kept += [gap] if len(same) < _CLASSES and len(kept) < _GAPS else []
    return [gap for gap in gaps if gap in kept]


def _limits(spec: FairnessSpec, columns: Iterable[str], ours: Sequence[_Compared], gaps: Sequence[Gap]) -> list[Gate]:
    """One for each column and limit. Of several classes the largest gap is named."""
    found = []
    for column in columns:
        for measure, limit in spec.limits.items():
            classes = [each for each in ours if (each.column, each.rate.measure) == (column, measure)]
            measured = [gap for gap in gaps if (gap.column, gap.measure) == (column, measure)]
            if not measured:
                found.append(Gate("fairness", False, _not_measured(spec, column, measure, classes)))
                continue
            largest, above = max(measured, key=lambda gap: gap.gap), sum(gap.gap > limit for gap in measured)
            sentence = _told(largest, spec, f"must be at most {limit:.4f}")
            if above > 1:
                sentence += f"; {above} classes have larger gaps than that"
            if few := len(classes) - len(measured):
                sentence += f"; too few rows to tell of {few} {'class' if few == 1 else 'classes'}"
            found.append(Gate("fairness", not above, sentence))
    return found


def _not_measured(spec: FairnessSpec, column: str, measure: str, classes: Sequence[_Compared]) -> str:
    told = f"the gap in {measure} by {column} cannot be measured"
    if not classes:
        return f"{told}: the groups have no such measure"
    sizes = list(zip([group.name for group in classes[0].groups], classes[0].rows, strict=True))
    named = ", ".join(f"{name} {rows}" for name, rows in sizes[:_NAMED]) or "none"
    return f"{told}: fewer than two groups have the {spec.minimum_rows} rows that are needed ({named})"


def _told(gap: Gap, spec: FairnessSpec, condition: str) -> str:
    interval = "unknown" if gap.low is None else f"[{gap.low:+.4f}, {gap.high:+.4f}]"
    return (
        f"the gap in {gap.name} by {gap.column} {gap.gap:.4f} {condition}: {gap.highest} is the highest, "
        f"{gap.lowest} the lowest, interval {interval}, all together at {spec.confidence:.0%}"
    )


def _changes(spec: FairnessSpec, gaps: Sequence[Gap]) -> list[Gate]:
    """One gate for each gap that grew beyond chance; else one that says how much it may have grown at the most."""
    known = [(gap, gap.change, gap.champion) for gap in gaps if gap.change is not None and gap.champion is not None]
    if not known:
        told = "no gap between groups could be compared with the champion's: the groups are too small"
        return [Gate("fairness_change", True, told)] if spec.columns else []
    grown = []
    for gap, change, champion in known:
        allowed = spec.maximum_change.get(gap.measure, 0.0)
        if change[0] > allowed:
            sentence = (
                f"fairness changed: the gap in {gap.name} by {gap.column} {gap.gap:.4f} may be at most "
                f"{allowed:.4f} above the champion's {champion:.4f} beyond chance: difference "
                f"{gap.gap - champion:+.4f}, interval [{change[0]:+.4f}, {change[1]:+.4f}], all together at "
                f"{spec.confidence:.0%}"
            )
            grown.append(Gate("fairness_change", False, sentence))
    if len(grown) > _NAMED:
        more = f"fairness changed: {len(grown) - _NAMED} more gaps are larger than the champion's beyond chance"
        return [*grown[:_NAMED], Gate("fairness_change", False, more)]
    if grown:
        return grown
    gap, change, champion = max(known, key=lambda each: each[0].gap - each[2])
    sentence = (
        f"none of {len(known)} gaps between groups is larger than the champion's beyond chance; the largest growth is "
        f"in {gap.name} by {gap.column}: {gap.gap:.4f} against {champion:.4f}, interval of the difference "
        f"[{change[0]:+.4f}, {change[1]:+.4f}]"
    )
    return [Gate("fairness_change", True, sentence)]
