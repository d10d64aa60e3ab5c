"""The search for parameters with Optuna: its sampler proposes them, its median rule prunes, its journal remembers.

The journal is one object that is replaced atomically: when a trial has its parameters, after each fold, and when the
trial ends. So a search that was killed goes on in the middle of a trial, on a shared file system and in an object store
alike. One process at a time runs a search.

The proposals depend on the seed, the number of the trial and the trials before it, and on nothing else. A search that
was resumed makes the same proposals as one that was not, unless its time was over.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from training.contract.errors import DataContractError, TransientError
from training.contract.search_spec import ParameterSpace, SearchSpec

log = logging.getLogger("perennial")

#: Attributes of a trial: the metric on each fold so far, the seconds that these took, and why it failed.
_VALUES, _SECONDS, _ERROR = "values", "seconds", "error"
_STUDY = "search"
#: A trial is compared with the median of at least this many others.
_PRUNE_AFTER = 5


class Store(Protocol):
    """Where the journal is kept."""

    def load(self) -> bytes | None:
        """The content that was saved last; None when there is none."""
        ...

    def save(self, content: bytes) -> None:
        """Replace the saved content atomically."""
        ...


@dataclass(frozen=True)
class TrialRecord:
    """One trial. `values`: of the folds that were measured, in their order. `value`: their mean; None unless complete.

    `state`: complete, pruned or failed. `error`: why it failed.
    """

    number: int
    state: str
    parameters: Mapping[str, Any]
    values: tuple[float, ...]
    value: float | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class Found:
    """The outcome of a search: the best trial and all trials, in the order of their numbers."""

    best: TrialRecord
    trials: tuple[TrialRecord, ...]

    def count(self, state: str) -> int:
        return sum(trial.state == state for trial in self.trials)

    @property
    def summary(self) -> str:
        failed = "; ".join(f"trial {trial.number}: {trial.error}" for trial in self.trials if trial.state == "failed")
        counts = f"{len(self.trials)} trials, {self.count('pruned')} pruned, {self.count('failed')} failed"
        return f"{counts} ({failed})" if failed else counts


class ParameterSearch:
    """A search of `space` with the budget of `spec`, kept in `store`. `start`: the parameters to try first.

    `on_trial` is called for each trial that ended, also for those of an earlier process, in their order.
    """

    def __init__(
        self,
        spec: SearchSpec,
        space: Mapping[str, ParameterSpace],
        start: Mapping[str, Any],
        higher_is_better: bool,
        seed: int,
        store: Store,
        on_trial: Callable[[TrialRecord], None],
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._spec, self._space, self._start, self._seed, self._on_trial = spec, space, start, seed, on_trial
        self._distributions = {name: _distribution(each) for name, each in space.items()}
        self._journal = _Journal(store)
        self._storage = JournalStorage(self._journal)
        self._study = optuna.create_study(
            storage=self._storage,
            pruner=MedianPruner(n_startup_trials=_PRUNE_AFTER),
            study_name=_STUDY,
            direction="maximize" if higher_is_better else "minimize",
            load_if_exists=True,
        )

    def run(self, measure: Callable[[Mapping[str, Any], int], float]) -> Found:
        """Try parameters until the budget is used up. `measure(parameters, fold)` fits and measures one fold.

        A trial whose `measure` raises an error or returns NaN has failed, and the search goes on. TransientError is
        raised on. Raises DataContractError when no trial is complete.
        """
        for ended in self._ended():
            self._on_trial(ended)
        if resumed := self._study.get_trials(deepcopy=False):
            log.info("Resumed the search after %d of at most %d trials", len(resumed), self._spec.trials)
        while trial := self._next():
            self._try(trial, measure)
            self._journal.flush()
            record = self._ended()[-1]
            log.info("Trial %d of %d: %s %s", record.number + 1, self._spec.trials, record.state, _told(record))
            self._on_trial(record)
        trials = tuple(self._ended())
        complete = [trial for trial in trials if trial.value is not None]
        if not complete:
            errors = "; ".join(f"trial {trial.number}: {trial.error}" for trial in trials[:3])
            problem = f"None of the {len(trials)} trials of the search could be measured: {errors}"
            raise DataContractError(problem, hint="Correct training.search, or train on a longer window.")
        best = trials[self._study.best_trial.number]
        return Found(best, trials)

    def _ended(self) -> list[TrialRecord]:
        return [self._record(trial) for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def _next(self) -> Trial | None:
        """The trial that a killed process left, or a new one; None when the budget is used up."""
        trials = self._study.get_trials(deepcopy=False)
        if left := [trial for trial in trials if trial.state == TrialState.RUNNING]:
            study = self._storage.get_study_id_from_name(_STUDY)
            return Trial(self._study, self._storage.get_trial_id_from_study_id_trial_number(study, left[0].number))
        seconds = sum(trial.user_attrs.get(_SECONDS, 0.0) for trial in trials)
        if len(trials) >= self._spec.trials or seconds >= self._spec.minutes * 60:
            return None
        if not trials and (first := self._first()):
            self._study.enqueue_trial(first)
        # A sampler keeps a random state, which a resumed search would not have.
        self._study.sampler = TPESampler(seed=derived_seed(self._seed, len(trials)))
        trial = self._study.ask(self._distributions)
        self._journal.flush()
        return trial

    def _first(self) -> dict[str, Any]:
        """The parameters of `start` that lie in the space, as Optuna takes them."""
        inside = {name: self._start[name] for name, space in self._space.items() if space.holds(self._start.get(name))}
        choices = {name: self._space[name].choices for name in inside}
        return {
            name: _in_range(value, self._space[name]) if (listed := choices[name]) is None else listed.index(value)
            for name, value in inside.items()
        }

    def _try(self, trial: Trial, measure: Callable[[Mapping[str, Any], int], float]) -> None:
        frozen = self._frozen(trial)
        values: list[float] = list(frozen.user_attrs.get(_VALUES, []))
        spent = frozen.user_attrs.get(_SECONDS, 0.0)
        parameters = self._parameters(frozen)
        for fold in range(len(values), self._spec.folds):
            started = time.monotonic()
            try:
                value = float(measure(parameters, fold))
                error = None if np.isfinite(value) else f"the metric of fold {fold} is not defined"
            except TransientError:
                raise
            except Exception as raised:
                error = f"{type(raised).__name__}: {raised}".partition("\n")[0]
            spent += time.monotonic() - started
            trial.set_user_attr(_SECONDS, round(spent, 3))
            if error:
                trial.set_user_attr(_ERROR, error)
                self._study.tell(trial, state=TrialState.FAIL)
                return
            values.append(value)
            trial.set_user_attr(_VALUES, values)
            trial.report(float(np.mean(values)), fold)
            if fold + 1 < self._spec.folds:
                if trial.should_prune():
                    self._study.tell(trial, state=TrialState.PRUNED)
                    return
                self._journal.flush()
        self._study.tell(trial, float(np.mean(values)))

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[trial.number]

    def _parameters(self, trial: FrozenTrial) -> dict[str, Any]:
        """The parameters of a trial as the estimator takes them."""
        drawn = {name: (self._space[name].choices, value) for name, value in trial.params.items()}
        return {name: value if choices is None else choices[value] for name, (choices, value) in drawn.items()}

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        return TrialRecord(
            number=trial.number,
            state=_STATES[trial.state],
            parameters=self._parameters(trial),
            values=tuple(trial.user_attrs.get(_VALUES, [])),
            value=trial.value if trial.state == TrialState.COMPLETE else None,
            seconds=trial.user_attrs.get(_SECONDS, 0.0),
            error=trial.user_attrs.get(_ERROR),
        )


_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class _Journal(BaseJournalBackend):
    """Optuna's journal, in memory until `flush`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lines: list[dict[str, Any]] = [json.loads(line) for line in (store.load() or b"").splitlines()]

    def read_logs(self, log_number_from: int) -> Sequence[dict[str, Any]]:
        return self._lines[log_number_from:]

    def append_logs(self, logs: Iterable[dict[str, Any]]) -> None:
        self._lines.extend(logs)

    def flush(self) -> None:
        self._store.save("".join(f"{json.dumps(line)}\n" for line in self._lines).encode())


def _distribution(space: ParameterSpace) -> BaseDistribution:
    if space.choices is not None:
        return CategoricalDistribution(range(len(space.choices)))
    assert space.low is not None
    assert space.high is not None
    if space.whole:
        return IntDistribution(int(space.low), int(space.high), log=space.log, step=int(space.step or 1))
    return FloatDistribution(float(space.low), float(space.high), log=space.log, step=space.step)


def _in_range(value: Any, space: ParameterSpace) -> int | float:
    """A number as the search proposes it: a range of floats may hold a start that is written as a whole number."""
    return int(value) if space.whole else float(value)


def derived_seed(*parts: int) -> int:
    """A seed that depends on all `parts`, of any size and sign."""
    return int(np.random.SeedSequence([part % 2**64 for part in parts]).generate_state(1)[0])


def _told(record: TrialRecord) -> str:
    measured = record.error or ", ".join(f"{value:.4f}" for value in record.values)
    return f"({measured}) in {record.seconds:.1f} s with {dict(record.parameters)}"
