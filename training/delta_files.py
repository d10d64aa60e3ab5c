"""Writes the files of a Delta table, for a commit that names them, in little memory.

delta-rs holds all rows of a write in memory until it is committed. Files that no commit names do not belong to the
table; vacuum deletes them.
"""

import json
import math
import secrets
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction, RemoveAction

#: A file is closed when it has this size.
FILE_BYTES = 96 << 20
#: Longer texts cannot be bounds in the statistics of a file.
_LONGEST_BOUND = 128


def write_files(
    table: DeltaTable, options: dict[str, str] | None, rows: Iterable[pa.Table], partition: Mapping[str, str]
) -> list[AddAction | RemoveAction]:
    """Write `rows`, without the partition's columns, to files of one partition of `table`: what a commit adds.

    Each of `rows` becomes a row group. `options` are those of the store.
    """
    handler = DeltaStorageHandler(table.table_uri, options)
    system = fs.PyFileSystem(handler)
    folder = "/".join(f"{name}={value}" for name, value in partition.items())
    pending, actions = iter(rows), list[AddAction | RemoveAction]()
    batch = next(pending, None)
    while batch is not None:
        path = f"{folder}/part-{secrets.token_hex(16)}.snappy.parquet"
        written: list[pq.FileMetaData] = []
        with system.open_output_stream(path) as sink:
            with pq.ParquetWriter(sink, batch.schema, metadata_collector=written) as writer:
                while batch is not None and sink.tell() < FILE_BYTES:
                    writer.write_table(batch, row_group_size=max(batch.num_rows, 1))
                    batch = next(pending, None)
            size = sink.tell()
        now = int(time.time() * 1000)
        actions.append(AddAction(path, size, dict(partition), now, True, json.dumps(_statistics(written[0]))))
    return actions


def _statistics(metadata: pq.FileMetaData) -> dict[str, Any]:
    """What Delta's log says of a file, from the file's footer. Columns of nested types are left out."""
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for at in range(metadata.num_columns):
        chunks = [metadata.row_group(group).column(at) for group in range(metadata.num_row_groups)]
        found = [chunk.statistics for chunk in chunks]
        name = metadata.schema.column(at).path
        if "." in name or not all(each is not None and each.has_null_count for each in found):
            continue
        nulls[name] = sum(each.null_count for each in found)
        known = [each for each, chunk in zip(found, chunks, strict=True) if each.null_count < chunk.num_values]
        if known and all(each.has_min_max for each in known):
            bounds = _bound(min(each.min for each in known)), _bound(max(each.max for each in known))
            if None not in bounds:
                low[name], high[name] = bounds
    return {"numRecords": metadata.num_rows, "minValues": low, "maxValues": high, "nullCount": nulls}


def _bound(value: Any) -> Any:
    """`value` as JSON has it in Delta's log; None where that does not hold it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_BOUND else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
