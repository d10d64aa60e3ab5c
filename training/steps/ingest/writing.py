"""Write the rows of a partition: valid rows to the feed's table, the others to quarantine.

Writing is exactly once. The quarantine is committed first and the valid rows last. Each commit replaces the earlier
rows of the partition. The last commit has a fingerprint of the file and of its rules, so a partition is complete when
the lake has its fingerprint.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from training.adapters.feed_table import FeedTable
from training.adapters.lake import QUARANTINE, Lake
from training.adapters.quarantine_table import Quarantine
from training.contract.feeds import PARTITION, FeedSpec
from training.domain.arrow_types import feed_schema
from training.domain.partitions import ingest_application, replayed_application
from training.domain.quarantine import QUARANTINE_SCHEMA, known_in, released

log = logging.getLogger("perennial")


class Partition:
    """One partition of a feed in the lake."""

    def __init__(self, lake: Lake, feed: str, name: str, spec: FeedSpec) -> None:
        self._lake, self._feed, self._name, self._spec = lake, feed, name, spec
        self._schema = feed_schema(spec).append(pa.field(PARTITION, pa.string()))

    def fingerprint(self) -> int | None:
        """The fingerprint of the file and the rules of the rows in the lake; None when there is none."""
        return self._lake.applied(self._feed, ingest_application(self._name))

    def delivered(self) -> int | None:
        """The fingerprint of the delivery whose quarantined rows were replayed; None when none were ever."""
        return self._lake.applied(self._feed, replayed_application(self._name))

    def check(self) -> None:
        """Raises ConfigError when the feed's table cannot take the spec's types. Writes nothing."""
        self._lake.check(self._feed, self._schema)

    def quarantine(self, bad: Iterable[pa.Table], rows: int, fingerprint: int) -> None:
        """Replace the partition's rows in quarantine by the `rows` rows of `bad`, tables of QUARANTINE_SCHEMA."""
        if not rows and not self.quarantined():
            return
        where = {"feed": self._feed, "partition": self._name}
        without = (table.drop_columns(list(where)) for table in bad if table.num_rows)
        # Of two processes that take in the partition at once, one fails.
        done = {f"{self._feed}/{self._name}": fingerprint}
        version = self._lake.replace_partition(QUARANTINE, QUARANTINE_SCHEMA, without, where, done)
        log.info("Quarantined %s rows in %s version %s", rows, self._lake.uri(QUARANTINE), version)

    def write(self, good: Iterable[pa.Table], fingerprint: int, delivered: int | None = None) -> None:
        """Replace the partition's rows in the lake by `good`, tables of the feed's columns.

        `delivered`: these are the rows of the delivery with this fingerprint after a replay.
        """
        schema = feed_schema(self._spec)
        rows = (table.cast(schema) for table in good if table.num_rows)
        done = {ingest_application(self._name): fingerprint}
        if delivered is not None or self.delivered() is not None:
            done[replayed_application(self._name)] = fingerprint if delivered is None else delivered
        self._lake.widen(self._feed, self._schema)
        version = self._lake.replace_partition(self._feed, self._schema, rows, {PARTITION: self._name}, done)
        log.info("Wrote the partition to %s version %s", self._lake.uri(self._feed), version)

    def quarantined(self) -> Counter[str]:
        """Reason → how many rows of the partition are in quarantine for it."""
        rows = Quarantine(self._lake).rows("reason", feeds=[self._feed], partition=self._name)
        return Counter(row["reason"] for row in rows)

    def warn_of_released(self) -> None:
        """Warn about other partitions' rows in quarantine that no longer duplicate rows of this one."""
        free: Counter[str] = Counter()
        for quarantined in Quarantine(self._lake).duplicates_of(self._name):
            columns = {name for row in quarantined for name, where in known_in(row["reason"]) if where == self._name}
            unique = [name for name in columns if name in self._spec.columns and self._spec.columns[name].unique]
            values = {name: {json.loads(row["row"]).get(name) for row in quarantined} for name in unique}
            free += released(quarantined, self._name, {name: self._held(name, values[name]) for name in unique})
        if free:
            log.warning(
                "%d rows of %s were quarantined as duplicates of rows that %s no longer holds. To validate them again, "
                "deliver the same files again or clear the ingest tasks of these partitions.",
                free.total(),
                ", ".join(sorted(free)),
                self._name,
            )

    def _held(self, column: str, values: set[Any]) -> set[Any]:
        """Those of `values` that the partition holds."""
        rows = FeedTable(self._lake, self._feed).of_partition(self._name, pa.schema([self._schema.field(column)]))
        return {value for batch in rows for value in values.intersection(batch[column].to_pylist())}
