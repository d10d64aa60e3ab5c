"""How much predictions change when features do: with noise, with missing values, at the bounds of their columns.

The changes stay within the rules of the source and the feature definitions (column_changes.py), and are the same for
the same seed. A prediction that is no number fails, whatever the limits are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from training.contract.gate_limits import RobustnessSpec
from training.contract.messages import Perturbation, Robustness
from training.domain.gates import Gate
from training.domain.gates.column_changes import ColumnChanges
from training.domain.task_kind import ServedTask

Score = Callable[[np.ndarray], np.ndarray]
#: Changes of single columns that are kept: those that matter most.
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
    """What becomes of the predictions of `rows`, float32 [n, d], of which at most spec.rows are taken.

    `score` gives the scores of such rows, [n] or [n, k]. It raises for features that it does not take.
    """
    chosen = np.random.default_rng(seed).permutation(len(rows))[: spec.rows]
    rows = rows[np.sort(chosen)]
    before, limits = score(rows), spec.maximum_changed
    tests: list[Perturbation] = []
    for name, made in (("noise", _noise), ("missing", _missing)):
        changed, columns, described = made(spec, rows, changes, np.random.default_rng([seed, len(tests)]))
        found = _Compared(served, before, score(changed) if columns else before)
        tests.append(found.told(name, described, columns, getattr(limits, name)))
    tests.append(_boundary(score, served, rows[:_BOUNDARY_ROWS], before[:_BOUNDARY_ROWS], changes, limits.boundary))
    return Robustness(rows=len(rows), unit=served.changed, tests=tests)


class _Compared:
    """Scores of the same rows before and after a change."""

    def __init__(self, served: ServedTask, before: np.ndarray, after: np.ndarray) -> None:
        self._served, self._before = served, before
        self.finite = np.isfinite(after.reshape(len(after), -1)).all(axis=1)
        self._changes = served.changes(before[self.finite], after[self.finite])

    @property
    def changed(self) -> float | None:
        """The mean change; None where nothing can be told."""
        return None if self._changes is None or not len(self._changes) else float(self._changes.mean())

    def by_decision(self) -> dict[str, float]:
        """By the decision before."""
        places = self._served.decide(self._before[self.finite])
        if places is None or self._changes is None:
            return {}
        rows = {name: places == place for place, name in enumerate(self._served.decisions)}
        return {
            name: float(self._changes[of].mean()) for name, of in rows.items() if np.count_nonzero(of) >= _DECISION_ROWS
        }

    def told(self, name: str, described: str, columns: list[str], maximum: float | None) -> Perturbation:
        return Perturbation(
            name=name,
            described=described,
            columns=columns,
            rows=len(self.finite),
            changed=self.changed,
            maximum=maximum,
            by_decision=self.by_decision(),
            not_finite=int(np.count_nonzero(~self.finite)),
        )


_Made = tuple[np.ndarray, list[str], str]


def _noise(
    spec: RobustnessSpec, rows: np.ndarray, changes: Sequence[ColumnChanges], random: np.random.Generator
) -> _Made:
    made, columns = rows.copy(), []
    for change in changes:
        values = rows[:, change.place].astype(np.float64)
        if change.categories is not None:
            moved = random.random(len(rows)) < spec.noise
            values = np.where(moved, random.permutation(values), values)
        elif change.noisy:
            deviation = np.std(values[np.isfinite(values)]) if np.isfinite(values).any() else 0.0
            values = change.within(values + random.normal(0, spec.noise, len(rows)) * deviation)
        made[:, change.place] = values
        if not np.array_equal(made[:, change.place], rows[:, change.place], equal_nan=True):
            columns.append(change.name)
    return made, columns, f"with noise of {spec.noise:g} standard deviations"


def _missing(
    spec: RobustnessSpec, rows: np.ndarray, changes: Sequence[ColumnChanges], random: np.random.Generator
) -> _Made:
    made, columns = rows.copy(), []
    for change in changes:
        if change.missing is not None:
            gone = random.random(len(rows)) < spec.missing
            made[gone, change.place] = change.missing
            columns.append(change.name)
    return made, columns, f"with {spec.missing:.0%} of the values missing"


def _boundary(
    score: Score,
    served: ServedTask,
    rows: np.ndarray,
    before: np.ndarray,
    changes: Sequence[ColumnChanges],
    maximum: float | None,
) -> Perturbation:
    """One column of each row at a time: all of them at once would be another event."""
    found: dict[str, float] = {}
    told, columns, scored, not_finite = True, [], 0, 0
    for change in changes:
        for what, value in change.bounds.items():
            made = rows.copy()
            made[:, change.place] = value
            compared = _Compared(served, before, score(made))
            scored += len(rows)
            not_finite += int(np.count_nonzero(~compared.finite))
            told = told and compared.changed is not None
            found[what] = compared.changed or 0.0
        if change.bounds:
            columns.append(change.name)
    worst = sorted(found.items(), key=lambda item: -item[1])[:_WORST]
    return Perturbation(
        name="boundary",
        described="with one column at its lowest or highest value",
        columns=columns,
        rows=scored,
        changed=float(np.mean(list(found.values()))) if told and found else None,
        maximum=maximum,
        worst=dict(worst),
        not_finite=not_finite,
    )


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
    said = [f"{test.rows} predictions, {len(test.columns)} columns"]
    shares: Mapping[str, float] = test.worst or test.by_decision
    if shares:
        name, share = max(shares.items(), key=lambda item: item[1])
        said.append(f"most {'where ' if test.worst else 'of those that were '}{name}: {share:.2%}")
    return "; ".join(said)
