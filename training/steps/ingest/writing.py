"""A partition's rows in the tables: those that are good in the feed's table, the others in quarantine.

Exactly once: the quarantine is committed first, the rows last, each replacing what the partition held before. The
rows' commit carries a fingerprint of the file and of its rules, so a partition is done when its fingerprint is there.
"""

import logging

import pyarrow as pa
import pyarrow.compute as pc

from training.adapters.lake import EVENTS, QUARANTINE, Lake
from training.contract.model_spec import Feed, FeedSpec
from training.domain.conform import feed_schema
from training.domain.quarantine import Broken, known_rule, released

log = logging.getLogger("perennial")


class Partition:
    """What the lake has of one partition of a feed."""

    def __init__(self, lake: Lake, feed: Feed, name: str, spec: FeedSpec) -> None:
        self._lake, self._feed, self._name, self._spec = lake, feed, name, spec
        self._schema = feed_schema(spec).append(pa.field("partition", pa.string()))

    @property
    def _application(self) -> str:
        """The name under which the rows' commits carry the partition's fingerprint."""
        return f"ingest/{self._name}"

    def fingerprint(self) -> int | None:
        """The fingerprint of the file and the rules that the rows in the lake come from; None without."""
        return self._lake.applied(self._feed, self._application)

    def check(self) -> None:
        """Raises ConfigError when the feed's table cannot take columns of the spec's types. Writes nothing."""
        self._lake.check(self._feed, self._schema)

    def quarantine(self, bad: pa.Table) -> None:
        """Put the rows `bad` in the place of those that are in quarantine."""
        if not bad.num_rows and not self.quarantined():
            return
        where = f"feed = '{self._feed}' AND partition = '{self._name}'"
        version = self._lake.replace(QUARANTINE, bad, where, ["feed", "partition"])
        log.info("Quarantined %s rows in %s version %s", bad.num_rows, self._lake.uri(QUARANTINE), version)

    def write(self, table: pa.Table, broken: Broken, fingerprint: int) -> None:
        """Put the rows of `table` that are not `broken` in the place of those that the lake has."""
        keep = pa.array([row not in broken for row in range(table.num_rows)], pa.bool_())
        good = table.filter(keep)
        good = good.append_column("partition", pa.repeat(pa.scalar(self._name), good.num_rows)).cast(self._schema)
        where, done = f"partition = '{self._name}'", {self._application: fingerprint}
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
        """Other partitions' events gave way to this one's; say so when it no longer holds what they gave way to."""
        if self._lake.version(QUARANTINE) is None:
            return
        gave_way = pc.match_substring(pc.field("reason"), known_rule("", self._name))
        there = (pc.field("feed") == EVENTS) & (pc.field("partition") != self._name) & gave_way
        quarantined = self._lake.scan(QUARANTINE).to_table(["partition", "reason", "row"], filter=there).to_pylist()
        if not quarantined:
            return
        here = pc.field("partition") == self._name
        unique = [name for name, column in self._spec.columns.items() if column.unique]
        held = self._lake.scan(EVENTS).to_table(unique, filter=here).to_pydict()
        free = released(quarantined, self._name, {name: set(values) for name, values in held.items()})
        if free:
            log.warning(
                "%d quarantined rows of %s gave way to rows that %s no longer holds. Deliver these partitions again "
                "(the same files will do) or clear their ingest tasks: the rows are judged again then.",
                free.total(),
                ", ".join(sorted(free)),
                self._name,
            )
