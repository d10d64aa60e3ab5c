"""Cases of one test of which only some are worth it at each change."""

from collections.abc import Iterable
from typing import Any

import pytest


def others_long(cases: Iterable[Any], first: int = 1) -> list[Any]:
    """`cases` for `pytest.mark.parametrize`. All but the `first` ones are marked `long`."""
    made = []
    for number, case in enumerate(cases):
        values = case if isinstance(case, tuple) else (case,)
        made.append(case if number < first else pytest.param(*values, marks=pytest.mark.long))
    return made
