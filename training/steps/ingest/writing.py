"""Write the rows of a partition: valid rows to the feed's table, the others to quarantine.

Writing is exactly once. The quarantine is committed first and the valid rows last. Each commit replaces the earlier
rows of the partition. The last commit has a fingerprint of the file and of its rules, so a partition is complete when
the lake has its fingerprint.
"""

import logging

import pyarrow as pa
import pyarrow.compute as pc

from training.adapters.lake import EVENTS, QUARANTINE, Lake
from training.contract.feeds import FeedSpec
from training.domain.arrow_types import feed_schema
from training.domain.partitions import ingest_application
from training.domain.quarantine import Broken, known_rule, released

log = logging.getLogger("perennial")


class Partition:
    """One partition of a feed in the lake."""

    def __init__(self, lake: Lake, feed: str, name: str, spec: FeedSpec) -> None:
        self._lake, self._feed, self._name, self._spec = lake, feed, name, spec
        self._schema = feed_schema(spec).append(pa.field("partition", pa.string()))

    def fingerprint(self) -> int | None:
        """The fingerprint of the file and the rules of the rows in the lake; None when there is none."""
        return self._lake.applied(self._feed, ingest_application(self._name))

    def check(self) -> None:
        """Raises ConfigError when the feed's table cannot take the spec's types. Writes nothing."""
        self._lake.check(self._feed, self._schema)

    def quarantine(self, bad: pa.Table) -> None:
        """Replace the partition's rows in quarantine by `bad`."""
        if not bad.num_rows and not self.quarantined():
            return
        where = f"feed = '{self._feed}' AND partition = '{self._name}'"
        version = self._lake.replace(QUARANTINE, bad, where, ["feed", "partition"])
        log.info("Quarantined %s rows in %s version %s", bad.num_rows, self._lake.uri(QUARANTINE), version)

    def write(self, table: pa.Table, broken: Broken, fingerprint: int) -> None:
        """Replace the partition's rows in the lake by the rows of `table` that are not `broken`."""
        keep = pa.array([row not in broken for row in range(table.num_rows)], pa.bool_())
        good = table.filter(keep)
        good = good.append_column("partition", pa.repeat(pa.scalar(self._name), good.num_rows)).cast(self._schema)
        where, done = f"partition = '{self._name}'", {ingest_application(self._name): fingerprint}
        self._lake.widen(self._feed, self._schema)
        version = self._lake.replace(self._feed, good, where, ["partition"], done)
        log.info("Wrote %s rows to %s version %s", good.num_rows, self._lake.uri(self._feed), version)

    def quarantined(self) -> list[str]:
        """The reasons of the partition's rows in quarantine."""
        if self._lake.version(QUARANTINE) is None:
            return []
        here = (pc.field("feed") == self._feed) & (pc.field("partition") == self._name)
        reasons: list[str] = self._lake.scan(QUARANTINE).to_table(columns=["reason"], filter=here)["reason"].to_pylist()
        return reasons

    def warn_of_released(self) -> None:
        """Warn about other partitions' rows in quarantine that no longer duplicate rows of this one."""
        if self._lake.version(QUARANTINE) is None:
            return
        duplicates = pc.match_substring(pc.field("reason"), known_rule("", self._name))
        elsewhere = (pc.field("feed") == EVENTS) & (pc.field("partition") != self._name) & duplicates
        quarantined = self._lake.scan(QUARANTINE).to_table(["partition", "reason", "row"], filter=elsewhere).to_pylist()
        if not quarantined:
            return
        here = pc.field("partition") == self._name
        unique = [name for name, column in self._spec.columns.items() if column.unique]
        held = self._lake.scan(EVENTS).to_table(unique, filter=here).to_pydict()
        free = released(quarantined, self._name, {name: set(values) for name, values in held.items()})
        if free:
            log.warning(
                "%d rows of %s were quarantined as duplicates of rows that %s no longer holds. To validate them again, "
                "deliver the same files again or clear the ingest tasks of these partitions.",
                free.total(),
                ", ".join(sorted(free)),
                self._name,
            )
