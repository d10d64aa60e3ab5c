"""The table `quarantine` of a source, for all who read rows of it."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain

import pyarrow.compute as pc
import pyarrow.dataset as ds

from training.adapters.lake import EVENTS, QUARANTINE, Lake
from training.contract.feeds import PARTITION
from training.domain.quarantine import known_rule

#: Column → value: of QUARANTINE_SCHEMA.
Row = dict[str, str]


@dataclass(frozen=True)
class Quarantine:
    """The newest version. Without a table, because no row has broken a rule yet, there are no rows."""

    lake: Lake

    def rows(self, *columns: str, feeds: Collection[str] | None = None, partition: str | None = None) -> Iterator[Row]:
        """The rows of these `feeds` and of `partition` (None: of all), with these `columns`."""
        wanted = pc.scalar(True)
        if feeds is not None:
            wanted &= pc.field("feed").isin(list(feeds))
        if partition is not None:
            wanted &= pc.field(PARTITION) == partition
        return chain.from_iterable(self._batches(columns, wanted))

    def duplicates_of(self, partition: str) -> Iterator[list[Row]]:
        """Events of other partitions that have a value of `partition` in a unique column, batch by batch."""
        duplicates = pc.match_substring(pc.field("reason"), known_rule("", partition))
        elsewhere = (pc.field("feed") == EVENTS) & (pc.field(PARTITION) != partition)
        return self._batches([PARTITION, "reason", "row"], elsewhere & duplicates)

    def _batches(self, columns: Collection[str], wanted: ds.Expression) -> Iterator[list[Row]]:
        if self.lake.version(QUARANTINE) is None:
            return
        for batch in self.lake.scan(QUARANTINE).scanner(columns=list(columns), filter=wanted).to_batches():
            if batch.num_rows:
                yield batch.to_pylist()
