"""How much predictions change when features do: with noise, with missing values, at the bounds of their columns.

The changes stay within the rules of the source and the feature definitions (column_changes.py), and are the same for
the same seed. A prediction that is not a number fails, whatever the limits are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.contract.gate_limits import RobustnessSpec
from training.contract.messages import Perturbation, Robustness
from training.domain.gates import Gate
from training.domain.gates.column_changes import ColumnChanges
from training.domain.task_kind import ServedTask

Score = Callable[[np.ndarray], np.ndarray]
#: Decisions, and changes of single columns, that are kept: those that matter most. A verdict is small.
_WORST = 8
#: Rows that each boundary value is tried on: there may be hundreds of columns.
_BOUNDARY_ROWS = 500
#: A decision with fewer rows has no share of its own.
_DECISION_ROWS = 20


def robustness(
    spec: RobustnessSpec,
    score: Score,
    served: ServedTask,
    rows: np.ndarray,
    changes: Sequence[ColumnChanges],
    seed: int,
) -> Robustness:
    """What becomes of the predictions of `rows`, float32 [n, d], of which about spec.rows are taken.

    `score` gives the scores of such rows, [n] or [n, k]. It raises for features that it does not take.
    """
    scores, limits, random = score(rows), spec.maximum_changed, np.random.default_rng(seed)
    before = _Before.of(served, rows, scores, spec.rows, random)
    few = _Before.of(served, rows, scores, _BOUNDARY_ROWS, random)
    tests = [
        _tested(name, made(spec, before.rows, changes, random), score, before, getattr(limits, name))
        for name, made in (("noise", _noise), ("missing", _missing))
    ]
    tests.append(_boundary(score, few, changes, limits.boundary))
    return Robustness(rows=len(before.rows), unit=served.changed, tests=tests)


@dataclass(frozen=True)
class _Before:
    """Rows [n, d], their scores, and how many rows of the holdout each stands for: `weights` [n]."""

    served: ServedTask
    rows: np.ndarray
    scores: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(
        cls, served: ServedTask, rows: np.ndarray, scores: np.ndarray, maximum: int, random: np.random.Generator
    ) -> "_Before":
        """About `maximum` of the rows, or all: as many of each decision, all of a rare one, so that rare decisions
        have a share of their own."""
        places = served.decide(scores)
        names, of, counts = np.unique(
            np.zeros(len(rows)) if places is None else places, return_inverse=True, return_counts=True
        )
        part = -(-maximum // max(len(names), 1))
        # What rare decisions leave of their part, the others share.
        part += int(np.maximum(part - counts, 0).sum()) // max(int((counts > part).sum()), 1)
        order = np.sort(
            np.concatenate([random.permutation(np.flatnonzero(of == place))[:part] for place in range(len(names))])
        )
        return cls(served, rows[order], scores[order], (counts / np.minimum(counts, part))[of[order]])

    def compared(self, after: np.ndarray) -> "_Compared":
        finite = np.isfinite(after.reshape(len(after), -1)).all(axis=1)
        return _Compared(self, finite, self.served.changes(self.scores[finite], after[finite]))


@dataclass(frozen=True)
class _Compared:
    """`changes` of the rows whose score is `finite` after a change. None: nothing can be told."""

    before: _Before
    finite: np.ndarray
    changes: np.ndarray | None

    @property
    def changed(self) -> float | None:
        """The mean change."""
        if self.changes is None or not len(self.changes):
            return None
        return float(np.average(self.changes, weights=self.before.weights[self.finite]))

    @property
    def not_finite(self) -> int:
        return int(np.count_nonzero(~self.finite))

    def by_decision(self) -> dict[str, float]:
        """By the decision before."""
        served = self.before.served
        places = served.decide(self.before.scores[self.finite])
        if places is None or self.changes is None:
            return {}
        rows = {name: places == place for place, name in enumerate(served.decisions)}
        found = {
            name: float(self.changes[of].mean()) for name, of in rows.items() if np.count_nonzero(of) >= _DECISION_ROWS
        }
        return _most(found)


#: Changed rows, the number of columns that were changed, and what was done.
_Made = tuple[np.ndarray, int, str]


def _tested(name: str, made: _Made, score: Score, before: _Before, maximum: float | None) -> Perturbation:
    rows, columns, described = made
    found = before.compared(score(rows) if columns else before.scores)
    return Perturbation(
        name=name,
        described=described,
        columns=columns,
        rows=len(rows),
        changed=found.changed,
        maximum=maximum,
        by_decision=found.by_decision(),
        not_finite=found.not_finite,
    )


def _noise(
    spec: RobustnessSpec, rows: np.ndarray, changes: Sequence[ColumnChanges], random: np.random.Generator
) -> _Made:
    made, columns = rows.copy(), 0
    for change in changes:
        values = rows[:, change.place].astype(np.float64)
        if change.categories is not None:
            moved = random.random(len(rows)) < spec.noise
            values = np.where(moved, random.permutation(values), values)
        elif change.noisy:
            values = change.within(values + random.normal(0, spec.noise, len(rows)) * change.deviation)
        made[:, change.place] = values
        columns += not np.array_equal(made[:, change.place], rows[:, change.place], equal_nan=True)
    return made, columns, f"with noise of {spec.noise:g} standard deviations"


def _missing(
    spec: RobustnessSpec, rows: np.ndarray, changes: Sequence[ColumnChanges], random: np.random.Generator
) -> _Made:
    made, columns = rows.copy(), 0
    for change in changes:
        if change.missing is not None:
            gone = random.random(len(rows)) < spec.missing
            made[gone, change.place] = change.missing
            columns += 1
    return made, columns, f"with {spec.missing:.0%} of the values missing"


def _boundary(score: Score, before: _Before, changes: Sequence[ColumnChanges], maximum: float | None) -> Perturbation:
    """One column of each row at a time: all of them at once would be another event."""
    found: dict[str, float] = {}
    told, not_finite = True, 0
    for change in changes:
        for what, value in change.bounds.items():
            made = before.rows.copy()
            made[:, change.place] = value
            compared = before.compared(score(made))
            not_finite += compared.not_finite
            told = told and compared.changed is not None
            found[what] = compared.changed or 0.0
    return Perturbation(
        name="boundary",
        described="with one column at its lowest or highest value",
        columns=sum(bool(change.bounds) for change in changes),
        rows=len(found) * len(before.rows),
        changed=float(np.mean(list(found.values()))) if told and found else None,
        maximum=maximum,
        worst=_most(found),
        not_finite=not_finite,
    )


def _most(shares: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(shares.items(), key=lambda item: -item[1])[:_WORST])


def gates(found: Robustness) -> Iterator[Gate]:
    """One for each way in which features were changed."""
    for test in found.tests:
        sentence, passed = _judged(test, found.unit)
        yield Gate("robustness", passed, sentence)


def _judged(test: Perturbation, unit: str) -> tuple[str, bool]:
    limit = "no limit is set" if test.maximum is None else f"at most {test.maximum:.2%} may"
    if not test.columns:
        return f"{test.described}: no column can change so within its rules", True
    if test.not_finite:
        return f"{test.described}, {test.not_finite} of {test.rows} predictions are not a number", False
    if test.changed is None:
        said = f"{test.described}, the change of {test.rows} predictions cannot be measured, because all are equal on "
        said += f"the holdout or the kind of task makes no decisions; {limit}"
        return said, test.maximum is None
    said = f"{test.described}, {unit.format(f'{test.changed:.2%}')}; {limit} ({_places(test)})"
    return said, test.maximum is None or test.changed <= test.maximum


def _places(test: Perturbation) -> str:
    said = [f"{test.rows} predictions, {test.columns} columns"]
    shares: Mapping[str, float] = test.worst or test.by_decision
    if shares:
        name, share = max(shares.items(), key=lambda item: item[1])
        said.append(f"most {'where ' if test.worst else 'of those that were '}{name}: {share:.2%}")
    return "; ".join(said)
