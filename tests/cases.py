"""Cases of one test of which only some are worth it at each change."""

from collections.abc import Iterable
from typing import Any

import pytest


def others_long(cases: Iterable[Any], first: int = 1, every: int = 0) -> list[Any]:
    """`cases` for `pytest.mark.parametrize`. All are marked `long` but the `first` ones, or one of `every` so many."""
    made = []
    for number, case in enumerate(cases):
        kept = number % every == 0 if every else number < first
        # A NamedTuple is one value.
        values = case if type(case) is tuple else (case,)
        made.append(case if kept else pytest.param(*values, marks=pytest.mark.long))
    return made
