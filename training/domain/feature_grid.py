"""Sums over windows of days or hours, as differences on a grid of entities and times.

An event counts from one row of its entity on up to another one, which depends on the window. So its number is added at
the first row, and subtracted at the row after the last. Running sums over the rows are the sums over windows. So the
cost of a window does not depend on its length.

Sums are exact: integers of 64 bits, which decimals are as well without their point. A difference is right even where a
running sum overflows, because integers wrap around.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

#: Columns of the events: the entity; the time; that of the report of the label (null: none); that of the next report
#: about the same event (null: none).
ENTITY, MOMENT, REPORTED, CORRECTED = "entity", "moment", "reported", "corrected"

#: Cells of the grid that are computed at once: 32 MB for each sum.
CELLS: Final = 4_000_000
#: Sums of one entity up to here fit into 64 bits. They are estimated with floats.
_LARGEST: Final = 2.0**62
#: Microseconds.
_HOUR: Final = 3_600_000_000
#: A step after all others.
_NEVER: Final = 2**30


class TooLargeError(Exception):
    """64 bits do not hold the numbers or their sums."""


@dataclass(frozen=True)
class PartSums:
    """A column of the events, and the windows in steps over which to sum it."""

    name: str
    windows: tuple[int, ...]
    #: Whether it has booleans, of which the true ones are counted.
    is_count: bool


@dataclass(frozen=True)
class Grid:
    """The rows of a feature table. Times are counted in steps: days, or hours."""

    step_hours: int
    #: Windows end so many steps before a row: the delay of labels.
    delay: int
    #: The longest window of all.
    longest: int
    sums: tuple[PartSums, ...]


def window_sums(events: pa.Table, grid: Grid, start: date, end: date) -> pa.Table:
    """The rows of the days from `start` to `end` (not in), ordered by time and entity.

    `events`, in any order: ENTITY and MOMENT, none null; the columns `grid.sums` (bool, int or decimal); with a label
    REPORTED and CORRECTED, and one row for each report. Times are timestamps, UTC. An entity has rows from the step
    after an event on, as long as the event is in the longest window, and one row more.
    Returns ENTITY, MOMENT (date, or timestamp of the hour), and `<name>_<window>` for each sum: int64, or decimal. It
    is null where no event in the window has a number. Raises TooLargeError.
    """
    steps = (end - start).days * 24 // grid.step_hours
    entities, codes = _numbered(events[ENTITY])
    numbers = {each.name: _Numbers.of(events[each.name]) for each in grid.sums}
    for each in numbers.values():
        each.refuse_overflow(codes)
    times = {
        name: _steps(events[name], grid, start) for name in (MOMENT, REPORTED, CORRECTED) if name in events.column_names
    }
    blocks = []
    for first, width, rows in _blocks(codes, len(entities), max(1, CELLS // (steps + 1))):
        spans = _Spans(grid, **{name: each[rows] for name, each in times.items()})
        chosen = {name: each.of_rows(rows) for name, each in numbers.items()}
        blocks.append(_Block(grid, steps, first, width).sums(codes[rows], spans, chosen))
    moments = np.concatenate([block.moments for block in blocks])
    # Each block has its rows in order, and the entities of the next one come after its own.
    order = slice(None) if len(blocks) == 1 else np.argsort(moments, kind="stable")
    codes = np.concatenate([block.codes for block in blocks])[order]
    made = {ENTITY: entities.take(pa.array(codes)), MOMENT: _times(moments[order], grid, start)}
    for name, window in ((each.name, window) for each in grid.sums for window in each.windows):
        sums, is_null = (np.concatenate([block.found[name, window][i] for block in blocks])[order] for i in (0, 1))
        made[f"{name}_{window}"] = numbers[name].array(sums, is_null)
    return pa.table(made)


@dataclass(frozen=True)
class _Numbers:
    """What each event adds."""

    #: Int64, or bool where the true ones are counted. 0 for null.
    values: np.ndarray
    #: None: none is null.
    is_null: np.ndarray | None
    #: Digits after the point of decimals. None for integers.
    scale: int | None = None

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> "_Numbers":
        if pt.is_boolean(column.type):
            return cls(pc.fill_null(column, False).to_numpy(), None)
        is_null = column.is_null().to_numpy() if column.null_count else None
        if pt.is_decimal128(column.type):
            return cls(_unscaled(column, is_null), is_null, column.type.scale)
        try:
            return cls(pc.fill_null(column.cast(pa.int64()), 0).to_numpy(), is_null)
        except pa.ArrowInvalid as error:
            raise TooLargeError(str(error)) from error

    @property
    def is_valid(self) -> np.ndarray | None:
        return None if self.is_null is None else ~self.is_null

    def of_rows(self, rows: np.ndarray | slice) -> "_Numbers":
        return _Numbers(self.values[rows], None if self.is_null is None else self.is_null[rows], self.scale)

    def refuse_overflow(self, codes: np.ndarray) -> None:
        """Raises TooLargeError when the numbers of one entity may have a sum that does not fit."""
        if self.values.dtype == bool or not len(codes):
            return
        largest = np.bincount(codes, np.abs(self.values.astype(np.float64))).max()
        if largest > _LARGEST:
            raise TooLargeError(f"The numbers of an entity add up to {largest:g}")

    def array(self, sums: np.ndarray, is_null: np.ndarray) -> pa.Array:
        if self.scale is None:
            return pa.array(sums, mask=is_null)
        words = pa.py_buffer(np.stack([sums, sums >> 63], axis=1))
        valid = pa.array(is_null, mask=is_null).buffers()[0]
        return pa.Array.from_buffers(pa.decimal128(38, self.scale), len(sums), [valid, words])


def _unscaled(column: pa.ChunkedArray, is_null: np.ndarray | None) -> np.ndarray:
    """Decimals without their point. Raises TooLargeError when one does not fit into 64 bits."""
    # A decimal has two words of 64 bits. If it fits into the lower one, the upper one repeats its sign.
    chunks = [
        np.frombuffer(each.buffers()[1], np.int64).reshape(-1, 2)[each.offset : each.offset + len(each)]
        for each in column.chunks
    ]
    words = np.concatenate(chunks or [np.empty((0, 2), np.int64)])
    if is_null is not None:
        words[is_null] = 0
    if ((words[:, 0] >> 63) != words[:, 1]).any():
        raise TooLargeError("A number has more than 64 bits")
    return np.ascontiguousarray(words[:, 0])


@dataclass(frozen=True)
class _Spans:
    """The first step from which an event gives its entity a row and counts for windows, and the first after them."""

    grid: Grid
    moment: np.ndarray
    reported: np.ndarray | None = None
    corrected: np.ndarray | None = None

    def row(self) -> tuple[np.ndarray, np.ndarray]:
        return self.moment + 1, self.moment + self.grid.delay + self.grid.longest + 2

    def begin(self) -> np.ndarray:
        """An event counts from the row after it, and from the row after the report of its label."""
        begin = self.moment + self.grid.delay + 1
        return begin if self.reported is None else np.maximum(begin, self.reported + 1)

    def end(self, window: int, begin: np.ndarray) -> np.ndarray:
        """It leaves a window of w steps w rows later, or at the row after the next report about it."""
        end = self.moment + self.grid.delay + 1 + window
        return end if self.corrected is None else np.maximum(np.minimum(end, self.corrected + 1), begin)


@dataclass(frozen=True)
class _Sums:
    """The rows of a block: numbers of their times and entities; sum and window → values, and whether each is null."""

    moments: np.ndarray
    codes: np.ndarray
    found: Mapping[tuple[str, int], tuple[np.ndarray, np.ndarray]]


class _Block:
    """All times of `width` entities from number `first` on. Cells are numbered time by time, as rows are ordered."""

    def __init__(self, grid: Grid, steps: int, first: int, width: int) -> None:
        self._grid, self._steps, self._first, self._width = grid, steps, first, width

    def sums(self, codes: np.ndarray, spans: _Spans, numbers: Mapping[str, _Numbers]) -> _Sums:
        """`codes` are the numbers of the events' entities."""
        codes = codes - self._first
        first, last = (self._added(self._cells(each, codes)) for each in spans.row())
        rows = np.flatnonzero(self._running(first - last) > 0)
        start, found = spans.begin(), dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]()
        begin = self._cells(start, codes)
        added = {name: self._added(begin, each.values) for name, each in numbers.items()}
        valid = {name: each.is_valid for name, each in numbers.items() if each.values.dtype != bool}
        counted = {name: self._added(begin, is_valid) for name, is_valid in valid.items()}
        for window in {window for each in self._grid.sums for window in each.windows}:
            end = self._cells(spans.end(window, start), codes)
            for name in (each.name for each in self._grid.sums if window in each.windows):
                sums = self._running(added[name] - self._added(end, numbers[name].values))[rows]
                is_null = np.zeros(len(rows), bool)
                if name in valid:
                    is_null = self._running(counted[name] - self._added(end, valid[name]))[rows] == 0
                found[name, window] = sums, is_null
        return _Sums(rows // self._width, rows % self._width + self._first, found)

    def _cells(self, steps: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """The numbers of cells. The time after the last takes what comes later."""
        return np.clip(steps, 0, self._steps) * self._width + codes

    def _added(self, cells: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """Cell → the sum of `values`, or the number of true ones (None: of all)."""
        size = (self._steps + 1) * self._width
        if values is None or values.dtype == bool:
            return np.bincount(cells if values is None else cells[values], minlength=size)
        found = np.zeros(size, np.int64)
        np.add.at(found, cells, values)
        return found

    def _running(self, changes: np.ndarray) -> np.ndarray:
        """Cell → the sum of its entity's changes up to its time, without the time after the last."""
        table = changes.reshape(self._steps + 1, self._width)[: self._steps]
        return np.cumsum(table, axis=0).reshape(-1)


def _numbered(entities: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """The distinct entities in order, and the number of each row's."""
    encoded = entities.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return encoded.dictionary.take(pa.array(order)), places[encoded.indices.to_numpy()]


def _blocks(codes: np.ndarray, entities: int, size: int) -> Iterator[tuple[int, int, np.ndarray | slice]]:
    """The first entity of each block, the number of its entities, and its rows."""
    if entities <= size:
        yield 0, entities, slice(None)
        return
    order = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[order], np.arange(0, entities + size, size))
    for i, (low, high) in enumerate(pairwise(edges)):
        yield i * size, min(size, entities - i * size), order[low:high]


def _steps(times: pa.ChunkedArray, grid: Grid, start: date) -> np.ndarray:
    """The whole steps from `start` to each time; those before are negative."""
    since = times.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).combine_chunks()
    first = np.datetime64(start, "us").astype(np.int64)
    found = np.floor_divide(pc.fill_null(since, 0).to_numpy() - first, grid.step_hours * _HOUR).astype(np.int32)
    found[since.is_null().to_numpy(zero_copy_only=False)] = _NEVER
    return found


def _times(moments: np.ndarray, grid: Grid, start: date) -> pa.Array:
    if grid.step_hours == 24:
        return pa.array(np.datetime64(start, "D") + moments.astype("timedelta64[D]"), pa.date32())
    hours = np.datetime64(start, "h") + moments.astype("timedelta64[h]")
    return pa.array(hours.astype("datetime64[us]"), pa.timestamp("us"))
