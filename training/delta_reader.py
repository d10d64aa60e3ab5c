"""Reads an opened version of a Delta table: its rows, and what its log says of its files."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as fs
from deltalake import DeltaTable

from training import delta_log, object_store, storage


class Span(NamedTuple):
    """One file of a partition: rows and the range of their times (UTC). A partition may have several."""

    partition: str
    rows: int
    earliest: datetime
    newest: datetime


#: Columns of these types have ranges. The log has decimals as floats, which are rounded. Rows are hardly ever looked
#: for by ranges of floats, and a table of features has many columns of them.
_WITH_RANGES: Final = (
    pa.types.is_integer,
    pa.types.is_boolean,
    pa.types.is_date,
    pa.types.is_timestamp,
    pa.types.is_string,
    pa.types.is_large_string,
)


def dataset(opened: DeltaTable) -> ds.FileSystemDataset:
    """The rows of `opened`. Scans leave out the files in which the log says that no row is wanted.

    What delta-rs tells pyarrow of the files is not used. It takes milliseconds for each file of a wide table, and of
    files from before a column was added it is wrong: `column >= null`, so `is_valid` is true of each of their rows.

    Reading it raises OSError when an object store does not answer (`object_store.read_error` says more).
    Raises DataContractError when a file on this machine's disk is missing or has another size.
    """
    listed = files(opened)
    delta_log.refuse_lost_files(opened, listed)
    filesystem = _filesystem(opened)
    # Without files, for its schema, and because it refuses tables that pyarrow cannot read.
    found = opened.to_pyarrow_dataset(filesystem=filesystem, file_pruning_predicate="false")
    named = zip(map(unquote, listed["path"].to_pylist()), listed["size_bytes"].to_pylist(), strict=True)
    # An object store is asked for the size of a file unless it is given.
    fragments = [
        found.format.make_fragment(path, filesystem, holds, file_size=size)
        for (path, size), holds in zip(named, _promises(listed, found.schema), strict=True)
    ]
    return ds.FileSystemDataset(fragments, found.schema, found.format, filesystem)


def _promises(listed: pa.Table, schema: pa.Schema) -> list[ds.Expression]:
    """What the log says of all rows of each file `listed`: its partition, and the ranges of its columns."""
    promises = [pc.scalar(True)] * listed.num_rows
    for field in schema:
        column = pc.field(field.name)
        if (of := f"partition.{field.name}") in listed.column_names:
            for row, value in enumerate(listed[of].cast(field.type)):
                promises[row] &= column == value if value.is_valid else column.is_null()
        elif f"min.{field.name}" in listed.column_names and any(is_type(field.type) for is_type in _WITH_RANGES):
            for row, holds in enumerate(_ranges(listed, field)):
                if holds is not None:
                    promises[row] &= holds
    return promises


def _ranges(listed: pa.Table, field: pa.Field) -> Iterator[ds.Expression | None]:
    """What is known of a column in each file; None where nothing is."""
    column = pc.field(field.name)
    least_ones, most_ones = (listed[f"{end}.{field.name}"].cast(field.type) for end in ("min", "max"))
    if pa.types.is_timestamp(field.type):  # The log cuts both to milliseconds.
        most_ones = pc.add(most_ones, pa.scalar(timedelta(milliseconds=1)))
    counts = (listed[name].to_pylist() for name in (f"null_count.{field.name}", "num_records"))
    for least, most, nulls, rows in zip(least_ones, most_ones, *counts, strict=True):
        if nulls is not None and nulls == rows:
            yield column.is_null()
        elif least.is_valid and most.is_valid:
            within = (column >= least) & (column <= most)
            yield within & column.is_valid() if nulls == 0 else within | column.is_null()
        else:
            yield None


def _filesystem(opened: DeltaTable) -> fs.FileSystem:
    """Arrow's own file system: scans must not go through that of delta-rs (training/object_store.py says why)."""
    folder = delta_log.folder_of(opened)
    if storage.is_remote(folder):
        return object_store.arrow_filesystem(folder)
    return fs.SubTreeFileSystem(folder, fs.LocalFileSystem())


def files(opened: DeltaTable) -> pa.Table:
    """What the log says of each file: its path, its size, its partition and the statistics of its columns."""
    return pa.table(opened.get_add_actions(flatten=True))


def spans(opened: DeltaTable, listed: pa.Table, time_column: str) -> list[Span]:
    """What the partitions hold, from the statistics of the files `listed`; see Lake.spans."""
    wanted = ["partition.partition", "num_records", f"min.{time_column}", f"max.{time_column}"]
    nothing = pa.nulls(listed.num_rows, pa.timestamp("us", "UTC"))
    columns = [listed[name] if name in listed.column_names else nothing for name in wanted]
    found = [Span(*row) for row in zip(*(column.to_pylist() for column in columns), strict=True) if row[1] != 0]
    unknown = {span.partition for span in found if span.rows is None or span.earliest is None}
    known = [span for span in found if span.partition not in unknown]
    return [*known, *_read_spans(dataset(opened), time_column, unknown)] if unknown else known


def _read_spans(stored: ds.Dataset, time_column: str, partitions: set[str]) -> list[Span]:
    """The spans of these partitions from their rows: one column of them is read."""
    within = pc.field("partition").isin(sorted(partitions)) & pc.field(time_column).is_valid()
    times = stored.to_table(columns=["partition", time_column], filter=within)
    found = times.group_by("partition").aggregate([(time_column, kind) for kind in ("count", "min", "max")])
    order = ["partition", *(f"{time_column}_{kind}" for kind in ("count", "min", "max"))]
    return [Span(*row) for row in zip(*(found[name].to_pylist() for name in order), strict=True)]
