"""The search for parameters: reproducible, resumable, and sober about trials that fail."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.cases import others_in_ci
from training.adapters.parameter_search import Found, ParameterSearch, TrialRecord
from training.contract.errors import DataContractError, TransientError
from training.contract.search_spec import SearchSpec

SPACE = {
    "rate": {"low": 0.001, "high": 1.0, "log": True},
    "leaves": {"low": 3, "high": 63, "step": 4},
    "hidden": {"choices": [[64], [128, 64], [256]]},
}


class Memory:
    """What a killed process leaves behind."""

    def __init__(self) -> None:
        self.content: bytes | None = None

    def load(self) -> bytes | None:
        return self.content

    def save(self, content: bytes) -> None:
        self.content = content


def quality(parameters: Mapping[str, Any], fold: int) -> float:
    """Best at rate 0.1, 31 leaves and [128, 64]. Folds differ."""
    off = abs(parameters["rate"] - 0.1) + abs(parameters["leaves"] - 31) / 60
    return 1 - off + 0.1 * (parameters["hidden"] == [128, 64]) - 0.05 * fold


class Attempt:
    """One process's part of a search; counts what it measures and hears of ended trials."""

    def __init__(self, store: Memory, seed: int = 1, start: Mapping[str, Any] | None = None, **fields: Any) -> None:
        spec = SearchSpec.model_validate({"spaces": {"mlp": SPACE}, "trials": 20, **fields})
        self.measured: list[tuple[Mapping[str, Any], int]] = []
        self.told: list[TrialRecord] = []
        self._search = ParameterSearch(spec, spec.spaces["mlp"], start or {}, True, seed, store, self.told.append)

    def run(self, measure: Callable[[Mapping[str, Any], int], float] = quality, stop_after: int | None = None) -> Found:
        def counted(parameters: Mapping[str, Any], fold: int) -> float:
            if len(self.measured) == stop_after:
                raise TransientError("The step was stopped")
            self.measured.append((parameters, fold))
            return measure(parameters, fold)

        return self._search.run(counted)


def without_seconds(found: Found) -> list[tuple[Any, ...]]:
    return [(t.number, t.state, dict(t.parameters), t.values, t.value, t.error) for t in found.trials]


def test_the_same_seed_makes_the_same_search_and_another_seed_another() -> None:
    first, second = Attempt(Memory()).run(), Attempt(Memory()).run()
    assert without_seconds(first) == without_seconds(second)
    assert without_seconds(first) != without_seconds(Attempt(Memory(), seed=2).run())


def test_values_lie_in_the_space_and_the_best_is_the_best() -> None:
    found = Attempt(Memory(), trials=30).run()
    assert len(found.trials) == 30
    for trial in found.trials:
        assert 0.001 <= trial.parameters["rate"] <= 1
        assert trial.parameters["leaves"] in range(3, 64, 4)
        assert isinstance(trial.parameters["leaves"], int)
        assert trial.parameters["hidden"] in ([64], [128, 64], [256])
    complete = [trial for trial in found.trials if trial.state == "complete"]
    assert found.best == max(complete, key=lambda trial: trial.value or 0)
    assert found.best.value == pytest.approx(sum(found.best.values) / 3)
    # It learns from earlier trials: the best is none of the first ten, which are random.
    assert found.best.number >= 10
    assert found.best.value > 0.9


def test_a_lower_metric_can_be_the_better_one() -> None:
    spec = SearchSpec.model_validate({"spaces": {"mlp": {"x": {"low": 0.0, "high": 1.0}}}, "trials": 15, "folds": 1})
    search = ParameterSearch(spec, spec.spaces["mlp"], {}, False, 0, Memory(), lambda trial: None)
    assert search.run(lambda parameters, fold: parameters["x"]).best.parameters["x"] < 0.1


def test_the_first_trial_has_the_parameters_of_a_fit_without_a_search() -> None:
    start = {"rate": 0.05, "leaves": 31, "hidden": [128, 64], "dropout": 0.2}
    found = Attempt(Memory(), start=start, trials=2).run()
    assert found.trials[0].parameters == {"rate": 0.05, "leaves": 31, "hidden": [128, 64]}
    # 30 leaves are not in the space, the rest is.
    parameters = Attempt(Memory(), start={**start, "leaves": 30}, trials=2).run().trials[0].parameters
    assert (parameters["rate"], parameters["hidden"]) == (0.05, [128, 64])
    assert parameters["leaves"] in range(3, 64, 4)


def test_a_start_that_is_written_as_a_whole_number_is_a_float_in_a_range_of_floats() -> None:
    spec = SearchSpec.model_validate({"spaces": {"mlp": {"x": {"low": 1.0, "high": 5}}}, "trials": 2, "folds": 1})
    search = ParameterSearch(spec, spec.spaces["mlp"], {"x": 3}, True, 0, Memory(), lambda trial: None)
    found = [trial.parameters["x"] for trial in search.run(lambda parameters, fold: parameters["x"]).trials]
    assert found[0] == 3
    assert [type(value) for value in found] == [float, float]


def test_trials_that_are_behind_are_pruned_after_a_fold() -> None:
    attempt = Attempt(Memory())
    found = attempt.run()
    pruned = [trial for trial in found.trials if trial.state == "pruned"]
    assert pruned
    assert all(len(trial.values) < 3 and trial.value is None for trial in pruned)
    assert all(trial.number >= 5 for trial in pruned)
    assert len(attempt.measured) == sum(len(trial.values) for trial in found.trials)
    assert found.summary == f"20 trials, {len(pruned)} pruned, 0 failed"


@pytest.mark.parametrize("stop_after", others_in_ci([10, 0, 1, 2, 3, 31]))
def test_a_stopped_search_goes_on_where_it_was_and_finds_the_same(stop_after: int) -> None:
    whole = Attempt(Memory())
    expected = whole.run()
    store = Memory()
    first = Attempt(store)
    with pytest.raises(TransientError):
        first.run(stop_after=stop_after)
    second = Attempt(store)
    found = second.run()
    assert without_seconds(found) == without_seconds(expected)
    # No fold is measured twice.
    assert [*first.measured, *second.measured] == whole.measured
    # All trials are told of again, as the earlier process may have been killed before it could.
    assert [trial.number for trial in second.told] == list(range(20))


def test_a_finished_search_only_tells_what_it_found() -> None:
    store = Memory()
    expected = Attempt(store).run()
    again = Attempt(store)
    assert without_seconds(again.run()) == without_seconds(expected)
    assert again.measured == []


def test_a_trial_that_fails_is_counted_and_named() -> None:
    def fragile(parameters: Mapping[str, Any], fold: int) -> float:
        if parameters["hidden"] == [256]:
            raise ValueError("too wide\nfor this machine")
        return float("nan") if parameters["hidden"] == [64] and fold == 1 else quality(parameters, fold)

    found = Attempt(Memory()).run(fragile)
    failed = [trial for trial in found.trials if trial.state == "failed"]
    assert {trial.error for trial in failed} == {"ValueError: too wide", "the metric of fold 1 is not defined"}
    assert f"{len(failed)} failed (trial {failed[0].number}: {failed[0].error}" in found.summary
    assert found.best.parameters["hidden"] == [128, 64]


def test_without_a_complete_trial_there_is_an_error_that_says_why() -> None:
    def broken(parameters: Mapping[str, Any], fold: int) -> float:
        raise ValueError("no such thing")

    with pytest.raises(DataContractError, match=r"None of the 3 trials.*trial 0: ValueError: no such thing"):
        Attempt(Memory(), trials=3).run(broken)


def test_no_trial_begins_when_the_minutes_are_over_and_earlier_processes_count() -> None:
    def slow(parameters: Mapping[str, Any], fold: int) -> float:
        time.sleep(0.02)
        return quality(parameters, fold)

    store = Memory()
    first = Attempt(store, minutes=0.004)  # a quarter of a second
    with pytest.raises(TransientError):
        first.run(slow, stop_after=7)
    second = Attempt(store, minutes=0.004)
    found = second.run(slow)
    assert 2 <= len(found.trials) < 20
    assert sum(trial.seconds for trial in found.trials[:-1]) < 0.25
