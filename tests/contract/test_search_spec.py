"""Mistakes in the section `training.search`."""

from typing import Any

import pytest
from pydantic import ValidationError

from training.contract.problems import problems_of
from training.contract.search_spec import ParameterSpace, SearchSpec


def told(fields: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as raised:
        SearchSpec.model_validate(fields)
    return "; ".join(f"{problem} ({problem.fix})" for problem in problems_of(raised.value, "spec", SearchSpec, fields))


def space(**fields: Any) -> dict[str, Any]:
    return {"spaces": {"mlp": {"dropout": fields}}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "low is missing (Write `low` and `high`, or `choices`.)"),
        ({"low": 1}, "high is missing"),
        ({"low": 2, "high": 1}, "low is 2, not below high (1)"),
        ({"low": 0, "high": 1, "log": True}, "low is 0, but has no logarithm"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "step is given beside log"),
        ({"low": 1, "high": 9, "step": 9}, "step is 9, more than the whole range"),
        ({"low": False, "high": True}, "low: Input should be a valid integer or a valid number"),
        ({"choices": [1]}, "choices needs two values or more"),
        ({"choices": [1, 2, 1]}, "choices holds a value more than once"),
        ({"choices": [1, 2], "low": 0}, "low is given beside choices"),
        ({"choices": [1, 2], "log": True}, "log is given beside choices"),
        ({"low": 0, "high": 1, "stepp": 1}, "stepp: There is no such field"),
    ],
)
def test_a_space_that_cannot_be_meant(fields: dict[str, Any], expected: str) -> None:
    message = told(space(**fields))
    assert message.startswith(f"spaces.mlp.dropout.{expected}"), message


def test_an_unknown_estimator_and_a_missing_space() -> None:
    assert "spaces.mpl" in told({"spaces": {"mpl": {"dropout": {"low": 0.0, "high": 0.5}}}})
    assert "spaces" in told({"spaces": {}})
    assert "spaces.mlp" in told({"spaces": {"mlp": {}}})
    assert "trials" in told({**space(low=0.0, high=0.5), "trials": 1})
    assert "minutes" in told({**space(low=0.0, high=0.5), "minutes": 0})
    assert "parallel" in told({**space(low=0.0, high=0.5), "parallel": 33})


def test_each_part_has_a_trial() -> None:
    said = told({**space(low=0.0, high=0.5), "trials": 4, "parallel": 5})
    assert said == "parallel is 5, more than the 4 trials (Lower `parallel`, or raise `trials`.)"


@pytest.mark.parametrize(("trials", "parallel", "divided"), [(20, 1, [20]), (7, 3, [3, 2, 2]), (4, 4, [1, 1, 1, 1])])
def test_the_trials_are_divided_among_the_parts(trials: int, parallel: int, divided: list[int]) -> None:
    spec = SearchSpec.model_validate({**space(low=0.0, high=0.5), "trials": trials, "parallel": parallel})
    assert [spec.trials_of(part) for part in range(parallel)] == divided


def test_whole_numbers_are_written_without_a_point() -> None:
    assert ParameterSpace(low=1, high=9).whole
    assert ParameterSpace(low=1, high=9, step=2).whole
    assert not ParameterSpace(low=1.0, high=9).whole
    assert not ParameterSpace(low=1, high=9, step=0.5).whole


def test_which_values_a_space_holds() -> None:
    grid = ParameterSpace(low=1, high=9, step=4)
    assert [value for value in range(11) if grid.holds(value)] == [1, 5, 9]
    assert not grid.holds("1")
    line = ParameterSpace(low=0.1, high=0.3)
    assert [line.holds(value) for value in (0.09, 0.1, 0.2, 0.31, None)] == [False, True, True, False, False]
    assert not ParameterSpace(low=1, high=9).holds(1.5)
    tenths = ParameterSpace(low=0.1, high=0.5, step=0.1)
    assert [tenths.holds(value) for value in (0.1, 0.2, 0.3, 0.35, 0.4)] == [True, True, True, False, True]
    listed = ParameterSpace(choices=([64], [128, 64]))
    assert [listed.holds(value) for value in ([64], [64, 64])] == [True, False]
