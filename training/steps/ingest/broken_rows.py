"""Which rows of a partition break which rules: row numbers in files, because a large partition may have many."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

#: Rows whose numbers are counted together.
_WINDOW = 4_000_000


class BrokenRows:
    """Rule → the numbers of the rows that break it, in order. Each rule has a file in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        #: Rule → the number of its file.
        self._files: dict[str, int] = {}
        self._order: dict[str, int] = {}

    def add(self, rule: str, rows: np.ndarray, order: int) -> None:
        """`rows`: int64; if they are not larger than those before, call `sort` at the end. A row names its rules by
        `order`."""
        if len(rows):
            self._order[rule] = order
            with self._path(rule).open("ab") as file:
                file.write(rows.astype(np.int64).tobytes())

    def sort(self) -> None:
        for rule in self._files:
            np.memmap(self._path(rule), np.int64, "r+").sort()

    def within(self, first: int, end: int) -> dict[int, list[str]]:
        """Row number → the rules that it breaks, of the rows from `first` and before `end`."""
        found: dict[int, list[str]] = {}
        for rule in self.rules:
            for row in self._between(rule, first, end).tolist():
                found.setdefault(row, []).append(rule)
        return dict(sorted(found.items()))

    @property
    def rules(self) -> list[str]:
        return sorted(self._files, key=lambda rule: (self._order[rule], self._files[rule]))

    def counts(self) -> dict[str, int]:
        """Rule → how many rows break it."""
        return {rule: len(self._numbers(rule)) for rule in self.rules}

    def order(self, rule: str) -> int:
        return self._order[rule]

    def first(self, rule: str) -> int:
        """The first row that breaks `rule`."""
        return int(self._numbers(rule)[0])

    def rows(self) -> int:
        """How many rows break a rule."""
        return sum(len(rows) for rows in self.windows())

    def windows(self, without: "BrokenRows | None" = None) -> Iterator[np.ndarray]:
        """The numbers of all rows that break a rule, except those in `without`, in order and in parts."""
        end = max((int(self._numbers(rule)[-1]) + 1 for rule in self._files), default=0)
        for first in range(0, end, _WINDOW):
            last = min(first + _WINDOW, end)
            rows = self._union(first, last)
            yield rows if without is None else np.setdiff1d(rows, without._union(first, last), assume_unique=True)

    def _union(self, first: int, end: int) -> np.ndarray:
        rows = [self._between(rule, first, end) for rule in self._files]
        return np.unique(np.concatenate(rows)) if rows else np.empty(0, np.int64)

    def _between(self, rule: str, first: int, end: int) -> np.ndarray:
        numbers = self._numbers(rule)
        low, high = np.searchsorted(numbers, (first, end))
        return np.asarray(numbers[low:high])

    def _numbers(self, rule: str) -> np.ndarray:
        return np.memmap(self._path(rule), np.int64, "r")

    def _path(self, rule: str) -> Path:
        number = self._files.setdefault(rule, len(self._files))
        return self._folder / f"broken-{number}.rows"
