"""Reads an opened version of a Delta table: its rows, and what its log says of its files."""

import functools
import operator
import re
from datetime import datetime
from typing import Final, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as fs
from deltalake import DeltaTable

from training import delta_log, object_store, storage

#: In a promise that delta-rs makes of a file: a column of which it has no statistics.
_PROMISED: Final = re.compile(r"\((\S+) >= null\[")


class Span(NamedTuple):
    """One file of a partition: rows and the range of their times (UTC). A partition may have several."""

    partition: str
    rows: int
    earliest: datetime
    newest: datetime


def dataset(opened: DeltaTable) -> ds.FileSystemDataset:
    """The rows of `opened`, without delta-rs's wrong statistics of files from before a column was added.

    It promises pyarrow `column >= null` of them, so `is_valid` is true and `is_null` false of each of their rows, in
    filters of ours as in those of DuckDB. Of such a file only the promises about whole columns are kept.

    Reading it raises OSError when an object store does not answer (`object_store.read_error` says more).
    Raises DataContractError when a file on this machine's disk is missing or has another size.
    """
    delta_log.refuse_lost_files(opened)
    found = opened.to_pyarrow_dataset(filesystem=_filesystem(opened))
    listed = files(opened)
    # An object store is asked for the size of a file unless it is given.
    sizes = dict(zip(map(unquote, listed["path"].to_pylist()), listed["size_bytes"].to_pylist(), strict=True))
    fragments = []
    for fragment in found.get_fragments():
        path, holds = fragment.path, fragment.partition_expression
        keys = ds.get_partition_keys(holds)
        if set(_PROMISED.findall(str(holds))) - keys.keys():
            whole = [
                pc.field(name).is_null() if value is None else pc.field(name) == value for name, value in keys.items()
            ]
            holds = functools.reduce(operator.and_, whole, pc.scalar(True))
        fragments.append(found.format.make_fragment(path, found.filesystem, holds, file_size=sizes[path]))
    return ds.FileSystemDataset(fragments, found.schema, found.format, found.filesystem)


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
