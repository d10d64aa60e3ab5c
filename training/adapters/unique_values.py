"""Finds values that occur twice, in a partition and in the lake: exactly, and in little memory.

Values are put into buckets on the disk by their hash, so equal values meet in one bucket, and a bucket fits into the
memory. Of the lake's values only those are put there whose hash some value of the partition has.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

if TYPE_CHECKING:
    import pandas as pd

#: A bucket gets about so many values; there are no more buckets than files may be open.
_BUCKET_ROWS, _MOST_BUCKETS = 400_000, 256
#: Rows of a bucket that are looked at together: one value that all rows have makes a large one.
_CHUNK_ROWS = 1_000_000
#: The hashes that are remembered: 32 MB of them at most, and 16 for each row if that is less.
_MOST_HASHES, _HASHES_PER_ROW = 1 << 25, 16


class UniqueValues:
    """The values of `columns`, which should be unique, of a partition of `rows` rows that is read in batches.

    Files go to `folder`. Missing values do not count.
    """

    def __init__(self, folder: Path, columns: Iterable[str], rows: int) -> None:
        self._folder, self._count = folder, min(_MOST_BUCKETS, rows // _BUCKET_ROWS + 1)
        self._values = {name: _Buckets(folder / f"values-{name}", self._count) for name in columns}
        size = 1 << min(_MOST_HASHES.bit_length() - 1, max(1, rows * _HASHES_PER_ROW).bit_length())
        #: Whether some value has a hash that ends in the bits of the place.
        self._hashes = {name: np.zeros(size, bool) for name in columns}
        #: The smallest and the largest value of each column that has any.
        self.bounds: dict[str, tuple[Any, Any]] = {}

    def add(self, first_row: int, batch: pa.Table) -> None:
        """The next rows, of which the first has the number `first_row`."""
        rows = pa.array(np.arange(first_row, first_row + batch.num_rows))
        for name, buckets in self._values.items():
            found = pa.table({"row": rows, "value": _plain(batch[name])})
            found = found.filter(pc.field("value").is_valid())
            if found.num_rows:
                codes = _hashed(found["value"])
                self._hashes[name][codes & np.uint64(len(self._hashes[name]) - 1)] = True
                buckets.add(found, codes)
                low, high = pc.min_max(batch[name]).as_py().values()
                before = self.bounds.get(name, (low, high))
                self.bounds[name] = min(low, before[0]), max(high, before[1])

    def repeated(self, column: str) -> Iterator[np.ndarray]:
        """The numbers of the rows whose value in `column` another row has, too. int64 arrays, in no order."""
        for number in range(self._count):
            twice = _twice(partial(self._values[column].values, number))
            if len(twice):
                for chunk in self._values[column].chunks(number):
                    yield chunk.filter(pc.is_in(chunk["value"], twice))["row"].to_numpy()

    def first_copies(self, column: str, rows: Iterable[tuple[pa.Array, pa.Table]]) -> Iterator[np.ndarray]:
        """Of `rows`, in order and with their numbers: the first of those with one value in `column`, where all of them
        are equal in all columns. Numbers in no order."""
        buckets = _Buckets(self._folder / f"copies-{column}", self._count)
        for numbers, batch in rows:
            buckets.add(batch.append_column("_row", numbers), _hashed(_plain(batch[column])))
        for number in range(self._count):
            distinct: pd.DataFrame | None = None
            for chunk in buckets.chunks(number):
                distinct = _two_distinct(distinct, chunk, column)
            if distinct is not None:
                yield distinct["_row"][~distinct[column].duplicated(keep=False)].to_numpy(np.int64)

    def known(self, column: str, stored: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
        """The rows whose value in `column` is among the `stored`: `row`, and the `partition` that has it; in no order.

        `stored` has the columns `column` and `partition`.
        """
        lake, own, hashes = _Buckets(self._folder / f"lake-{column}", self._count), self._values[column], self._hashes
        for batch in stored:
            value = _plain(batch[column]).cast(own.kind)
            codes = _hashed(value)
            near = hashes[column][codes & np.uint64(len(hashes[column]) - 1)]
            if near.any():
                found = pa.table({"value": value, "partition": batch["partition"].cast(pa.string())})
                lake.add(found.filter(pa.array(near)), codes[near])
        for number in range(self._count):
            for held in lake.chunks(number):
                held = held.sort_by([("partition", "descending")])
                for chunk in own.chunks(number):
                    at = pc.index_in(chunk["value"], held["value"])
                    found = chunk.append_column("partition", held["partition"].take(at)).filter(at.is_valid())
                    if found.num_rows:
                        yield found.select(["row", "partition"])


class _Buckets:
    """Rows on the disk, in `count` files of `folder` by a hash of theirs."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count
        self._writers: dict[int, pa.RecordBatchFileWriter] = {}
        self._open = True

    def add(self, rows: pa.Table, codes: np.ndarray) -> None:
        """`codes`: the hash of each row, uint64."""
        if self._count == 1:
            self._writer(0, rows.schema).write_table(rows)
            return
        numbers = ((codes >> np.uint64(40)) % np.uint64(self._count)).astype(np.int64)
        rows = rows.take(pa.array(np.argsort(numbers, kind="stable")))
        ends = np.cumsum(np.bincount(numbers, minlength=self._count))
        for number, (first, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if end > first:
                self._writer(number, rows.schema).write_table(rows.slice(first, end - first))

    @property
    def kind(self) -> pa.DataType:
        """The type of `value`."""
        self._close()
        path = next(iter(self._folder.glob("*.arrow")))
        with pa.OSFile(str(path)) as file:
            return pa.ipc.open_file(file).schema.field("value").type

    def chunks(self, number: int) -> Iterator[pa.Table]:
        """The rows of a bucket, in the order in which they were added, at most so many at a time."""
        self._close()
        if number not in self._writers:
            return
        with pa.OSFile(str(self._path(number))) as file:
            reader = pa.ipc.open_file(file)
            held: list[pa.RecordBatch] = []
            for at in range(reader.num_record_batches):
                held.append(reader.get_batch(at))
                if sum(each.num_rows for each in held) >= _CHUNK_ROWS:
                    yield pa.Table.from_batches(held)
                    held = []
            if held:
                yield pa.Table.from_batches(held)

    def values(self, number: int) -> Iterator[pa.ChunkedArray]:
        """The column `value` of `chunks`."""
        return (chunk["value"] for chunk in self.chunks(number))

    def _writer(self, number: int, schema: pa.Schema) -> pa.RecordBatchFileWriter:
        if number not in self._writers:
            self._folder.mkdir(exist_ok=True)
            self._writers[number] = pa.ipc.new_file(str(self._path(number)), schema)
        return self._writers[number]

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.arrow"

    def _close(self) -> None:
        for writer in self._writers.values() if self._open else ():
            writer.close()
        self._open = False


def _twice(values: Callable[[], Iterable[pa.ChunkedArray]]) -> pa.Array:
    """The values that occur twice in `values` together, which are read twice.

    The first time only their hashes are kept, which take less memory than the values and how often each occurs.
    """
    codes = np.sort(np.concatenate([np.empty(0, np.uint64), *map(_hashed_parts, values())]))
    shared = pa.array(np.unique(codes[1:][codes[1:] == codes[:-1]]))
    if not len(shared):
        return shared
    counted: pa.Table | None = None
    for chunk in values():
        near = chunk.filter(pc.is_in(pa.array(_hashed_parts(chunk)), shared))
        found = pa.Table.from_batches([pa.RecordBatch.from_struct_array(pc.value_counts(near))])
        if counted is not None:
            both = pa.concat_tables([counted, found]).group_by("values").aggregate([("counts", "sum")])
            found = both.select(["values", "counts_sum"]).rename_columns(["values", "counts"])
        counted = found
    return pa.array([]) if counted is None else counted.filter(pc.field("counts") > 1)["values"].combine_chunks()


def _two_distinct(before: "pd.DataFrame | None", chunk: pa.Table, column: str) -> "pd.DataFrame":
    """Of the rows with one value in `column` the first two that differ, if they do. Two are enough to know."""
    import pandas as pd

    from training.domain.arrow_types import as_validation_frame

    rows = as_validation_frame(chunk)
    rows = rows if before is None else pd.concat([before, rows], ignore_index=True)
    distinct = rows.drop_duplicates([name for name in rows.columns if name != "_row"])
    found: pd.DataFrame = distinct[distinct.groupby(column).cumcount() < 2]
    return found


def _plain(values: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Times as counts."""
    return values.cast(pa.int64()) if pt.is_timestamp(values.type) else values


def _hashed_parts(values: pa.ChunkedArray) -> np.ndarray:
    """The hashes of `values`, part by part: texts take much memory while they are hashed."""
    return np.concatenate([np.empty(0, np.uint64), *map(_hashed, values.chunks)])


def _hashed(values: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """A hash of each value, uint64. None of them is missing."""
    kind = values.type
    if pt.is_floating(kind):  # 0.0 and -0.0 are equal.
        bits = (values.cast(pa.float64()).to_numpy() + 0.0).view(np.uint64)
    elif pt.is_integer(kind):
        bits = values.to_numpy().astype(np.uint64)
    else:
        import pandas as pd

        texts = values.cast(pa.string()).to_numpy(
            **({} if isinstance(values, pa.ChunkedArray) else {"zero_copy_only": False})
        )
        bits = pd.util.hash_array(texts, categorize=False)
    # splitmix64: https://prng.di.unimi.it/splitmix64.c
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(bits ^ (bits >> np.uint64(31)))
