"""A private part of Evidently: what it draws and does not show."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_unseen_drawings() -> Iterator[None]:
    """The preset for drift draws each column twice, and the page shows one of the two, in its table. In the block the
    other is not drawn, which takes two fifths of a page's CPU time."""
    from evidently.metrics.column_statistics import ValueDriftCalculation

    draw = ValueDriftCalculation._render
    ValueDriftCalculation._render = _nothing
    try:
        yield
    finally:
        ValueDriftCalculation._render = draw


def _nothing(*_: Any) -> list[Any]:
    return []
