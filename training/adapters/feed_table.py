"""The table of a feed, for the steps that write it: its newest version, by partition. tables.py has pinned readers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from training.adapters.lake import Lake
from training.contract.feeds import PARTITION


@dataclass(frozen=True)
class FeedTable:
    """Raises InputError when there is no table, unless a method says otherwise."""

    lake: Lake
    feed: str

    def of_partition(self, partition: str, columns: pa.Schema) -> Iterator[pa.Table]:
        """The rows of `partition`, batch by batch: these `columns` in these types, null where the table lacks one."""
        stored = self.lake.scan(self.feed, columns=columns)
        for batch in stored.scanner(columns=columns.names, filter=ds.field(PARTITION) == partition).to_batches():
            yield pa.Table.from_batches([batch]).cast(columns)

    def elsewhere(self, partition: str, column: str, low: Any, high: Any) -> Iterator[pa.RecordBatch]:
        """The values of `column` from `low` to `high` in other partitions, each with its `partition`, batch by batch.

        Nothing when there is no table or no such column yet. Only files that may have such values are read.
        """
        if self.lake.version(self.feed) is None:
            return
        stored = self.lake.scan(self.feed)
        if column not in stored.schema.names:
            return
        near = (ds.field(PARTITION) != partition) & (ds.field(column) >= low) & (ds.field(column) <= high)
        # Reading ahead takes memory.
        ahead = {"batch_readahead": 2, "fragment_readahead": 1}
        batches = stored.scanner(columns=[column, PARTITION], filter=near, **ahead).to_batches()
        yield from (batch for batch in batches if batch.num_rows)
