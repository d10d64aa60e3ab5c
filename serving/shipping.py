"""Ships the sealed segments of a spool to the lake's table `predictions`, each row exactly once.

A commit holds whole segments and carries the number of the last one, as a Delta application transaction. So a segment
whose number is above the last one in the table is not in the table. One whose number is not above it may be there, when
a process was killed before it could delete the segment. It may also hold new predictions: when the folder was restored
from an older copy, or is used by two services, numbers repeat. So the rows of such a segment are compared with those of
the table, and the ones that are missing are shipped.

The other way around, when the table was restored from an older copy or made anew, it lacks the last commit that this
replica remembers. That is logged as an error, and `perennial_prediction_log_table_older` says when.
"""

import logging
import time
from pathlib import Path

import pyarrow as pa

from serving.metrics import ModelMetrics
from serving.segments import EventLayout, read_segment
from serving.spool import Shipped, Spool
from training.adapters.lake import PREDICTIONS, Lake
from training.adapters.prediction_table import append_predictions, not_in_table
from training.contract.errors import TransientError

#: At most so many rows in one commit, plus a segment: after an outage many segments share one.
COMMIT_ROWS = 100_000

log = logging.getLogger("perennial")


class Shipping:
    """For one thread at a time."""

    def __init__(self, spool: Spool, lake: Lake, replica: str, metrics: ModelMetrics) -> None:
        self._spool, self._lake, self._metrics = spool, lake, metrics
        self._application = f"predictions-{replica}"
        #: The last number in the table, once that is known.
        self._applied: int | None = None
        #: Segments up to this number may be in the table.
        self._doubtful = 0
        self._complained = False

    def forget(self) -> None:
        """After an error: a commit may have been made although it failed."""
        self._applied = None

    def ship(self, layout: EventLayout) -> bool:
        """Commit the oldest sealed segments together and delete them. Returns False when there are none.

        Raises TransientError and what else the lake raises; the segments stay then. Call `forget` before the next try.
        """
        sealed = self._spool.sealed()
        if self._applied is None and (sealed or self._spool.shipped().application):
            self._applied = self._look(sealed)
        if not sealed or self._applied is None:
            return False
        tables, taken = self._batch(sealed, layout)
        done = self._commit(tables, max(taken[-1][0], self._applied + 1)) if tables else None
        for _, path in taken:
            self._spool.delete(path)
        if done:
            self._applied = done.number
            self._spool.taken = done.number + 1  # The next segment may be open, below this number.
            self._spool.remember(done)
        return True

    def _commit(self, tables: list[pa.Table], number: int) -> Shipped:
        rows = pa.concat_tables(tables)
        version = append_predictions(self._lake, rows, self._application, number)
        if version is None:
            why = f"Another process has shipped predictions as {self._application}"
            raise TransientError(why, hint="Give each replica a folder of its own (CT_SERVING_STATE).")
        log.info("Shipped %d predictions to %s", rows.num_rows, self._lake.uri(PREDICTIONS))
        self._metrics.shipped.inc(rows.num_rows)
        return Shipped(self._application, number, version, self._lake.commit_digest(PREDICTIONS, version) or "")

    def _look(self, sealed: list[tuple[int, Path]]) -> int:
        """The last number in the table. Segments made from now on have higher ones."""
        applied, before = self._lake.applied(PREDICTIONS, self._application) or 0, self._spool.shipped()
        self._doubtful = applied
        if before.application and not self._holds(before):
            self._complain(before)
        if before.application == self._application:
            applied = max(applied, before.number)
        elif before.application and sealed:  # The replica had another name, and with it other numbers in the table.
            self._doubtful = max(applied, sealed[-1][0])
        self._spool.taken = max(self._spool.taken, applied)
        return applied

    def _holds(self, before: Shipped) -> bool:
        """Whether the table has the commit `before`. Delta deletes old commits from its log: then the number tells."""
        found = self._lake.commit_digest(PREDICTIONS, before.version)
        if found is not None and before.commit:
            return found == before.commit
        return (self._lake.applied(PREDICTIONS, before.application) or 0) >= before.number

    def _complain(self, before: Shipped) -> None:
        if self._complained:
            return
        self._complained = True
        self._metrics.table_older.set(time.time())
        log.error(
            "%s lacks the commit of its version %d, with which this replica shipped predictions: it was restored from "
            "an older copy, or deleted. Predictions that were shipped since are missing from it; new ones follow. If "
            "you need them, restore a newer copy (docs/operations.md, A part that is older than the others)",
            *(self._lake.uri(PREDICTIONS), before.version),
        )

    def _batch(
        self, sealed: list[tuple[int, Path]], layout: EventLayout
    ) -> tuple[list[pa.Table], list[tuple[int, Path]]]:
        """The rows of the next commit, in tables of one schema, and the segments that they are of."""
        tables: list[pa.Table] = []
        taken: list[tuple[int, Path]] = []
        for number, path in sealed:
            table = read_segment(path, layout)
            if number <= self._doubtful:
                table = self._missing(number, table)
            if table.num_rows:
                if tables and table.schema != tables[0].schema:  # It goes into the next commit.
                    break
                tables.append(table)
            taken.append((number, path))
            if sum(table.num_rows for table in tables) >= COMMIT_ROWS:
                break
        return tables, taken

    def _missing(self, number: int, rows: pa.Table) -> pa.Table:
        missing = not_in_table(self._lake, rows)
        if missing.num_rows:
            log.warning(
                "Segment %d has a number that the lake has already, and %d of its %d predictions are not there: they "
                "are shipped now. The service's folder was restored from an older copy, or two services have copies",
                *(number, missing.num_rows, rows.num_rows),
            )
        return missing
