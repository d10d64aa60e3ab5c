"""Cases of one test of which only some are worth it at each change."""

from collections.abc import Iterable
from typing import Any

import pytest


def others_long(cases: Iterable[Any], first: int = 1, every: int = 0) -> list[Any]:
    """`cases` for `pytest.mark.parametrize`. All are marked `long` but the `first` ones, or one of `every` so many."""
    return _others(pytest.mark.long, cases, first, every)


def others_in_ci(cases: Iterable[Any], first: int = 1, every: int = 0) -> list[Any]:
    """As `others_long`, with the mark `ci`: `make test` does not run them, `.ci/run` does."""
    return _others(pytest.mark.ci, cases, first, every)


def _others(mark: pytest.MarkDecorator, cases: Iterable[Any], first: int, every: int) -> list[Any]:
    made = []
    for number, case in enumerate(cases):
        kept = number % every == 0 if every else number < first
        # A NamedTuple is one value.
        values = case if type(case) is tuple else (case,)
        made.append(case if kept else pytest.param(*values, marks=mark))
    return made
