"""Writes the table `predictions`: what the service has logged, and predictions that were made in batch.

A table that cannot take new rows, because it has the layout before or event columns of other types, is converted first,
in one commit; see training/domain/predictions.py.
"""

import logging
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from training.adapters.lake import EVENTS, PREDICTIONS, Lake
from training.contract.errors import TransientError
from training.domain import predictions as layout
from training.domain.partitions import ingest_application

log = logging.getLogger("perennial")


def append_predictions(lake: Lake, rows: pa.Table, application: str, number: int) -> int | None:
    """Append batch `number` of `application` to the log (`Lake.append_once`): rows of `prediction_schema`.

    Returns the version. None, and nothing is written, when the table has a batch of this number, or a higher one.
    Raises TransientError when another writer commits meanwhile.
    """
    if (held := lake.schema(PREDICTIONS)) is not None:
        fitting = layout.fitted(rows, held)
        if fitting is None:
            fitting = layout.fitted(rows, _convert(lake, rows))
            if fitting is None:
                raise TransientError(f"{lake.uri(PREDICTIONS)} does not accept the new rows", hint="Report this.")
        rows = fitting
    return lake.append_once(PREDICTIONS, rows, ["day"], application, number)


def not_in_table(lake: Lake, rows: pa.Table) -> pa.Table:
    """Those of `rows`, of `prediction_schema`, that the table does not have.

    A shadow's row has the id of the answer beside which it was scored, and another version.
    """
    if rows.num_rows == 0 or lake.version(PREDICTIONS) is None:
        return rows
    identity, within = ["prediction_id", "model_version"], None
    if rows["predicted_at"].null_count == 0:  # Most files of a large table are left out by their statistics.
        first, last = pc.min_max(rows["predicted_at"]).as_py().values()
        within = (pc.field("predicted_at") >= first) & (pc.field("predicted_at") <= last)
    held = lake.scan(PREDICTIONS).to_table(identity, filter=within)
    known = set(zip(*(held[name].to_pylist() for name in identity), strict=True))
    mine = zip(*(rows[name].to_pylist() for name in identity), strict=True)
    return rows.filter(pa.array([each not in known for each in mine], pa.bool_()))


def newest_model_version(lake: Lake) -> int:
    """The highest version that made a prediction in the table, from the statistics of its files; 0 without any."""
    return lake.largest(PREDICTIONS, "model_version") or 0


class TableConverted(TransientError):
    """The table did not fit rows and was converted. Nothing of them was written: begin again."""


class _DoesNotFit(Exception):
    def __init__(self, rows: pa.Table) -> None:
        super().__init__()
        self.rows = rows


class PartitionPredictions:
    """Writes the predictions for the events of one partition, in several commits.

    Each is a transaction of the same application. So of two processes that score the partition at the same time, one
    fails with a TransientError at its next commit. A process that begins later finds the ids of the events that have a
    prediction (`Predictions.ids` at `version`), and leaves them out.
    """

    def __init__(self, lake: Lake, partition: str, schema: pa.Schema) -> None:
        """`schema`, of the rows, is a `prediction_schema`."""
        self._lake, self._partition = lake, partition
        held, rows = lake.schema(PREDICTIONS), schema.empty_table()
        if held is not None and layout.fitted(rows, held) is None:
            held = _convert(lake, rows)
        self._held = held or schema
        fitting = layout.fitted(rows, self._held)
        assert fitting is not None
        self._schema = fitting.schema
        self._appending = lake.appending(PREDICTIONS, self._schema, ["day"])
        #: Of the table, before the first commit.
        self.version = self._appending.version

    def commit(self, rows: Iterable[pa.RecordBatch], version: int, content: int | None = None) -> None:
        """Append `rows`, made by the model's `version`. `content`: these are the last rows of the partition, which then
        counts as scored with this content (`partition_content`).

        Raises TableConverted, TransientError, and what the iteration over `rows` raises; nothing was written then.
        """
        transactions = {f"scoring/{self._partition}": version}
        if content is not None:
            transactions[_scored(self._partition)] = content
        failures: list[Exception] = []
        reader = pa.RecordBatchReader.from_batches(self._schema, self._fitted(rows, failures))
        try:
            self._appending.commit(reader, transactions)
        except Exception:
            if not failures:
                raise
            # delta-rs makes a text of an exception of the iterator.
            if not isinstance(failures[0], _DoesNotFit):
                raise failures[0] from None
            _convert(self._lake, failures[0].rows)
            raise TableConverted(f"{self._lake.uri(PREDICTIONS)} was converted", hint="Retry.") from None

    def _fitted(self, rows: Iterable[pa.RecordBatch], failures: list[Exception]) -> Iterator[pa.RecordBatch]:
        try:
            for batch in rows:
                table = pa.Table.from_batches([batch])
                fitting = layout.fitted(table, self._held)
                if fitting is None:
                    raise _DoesNotFit(table)
                yield from fitting.to_batches()
        except Exception as error:
            failures.append(error)
            raise


def partition_content(lake: Lake, partition: str, events_version: int) -> int:
    """A number that changes when the rows of a partition of events change: the fingerprint that ingest left. For rows
    that ingest did not write, the version of their table."""
    found = lake.applied(EVENTS, ingest_application(partition), events_version)
    return events_version if found is None else found


def scored_content(lake: Lake, partition: str, version: int | None = None) -> int | None:
    """The content with which a partition was scored, as of `version` of the predictions; None: it was not."""
    return lake.applied(PREDICTIONS, _scored(partition), version)


def _scored(partition: str) -> str:
    return f"score/{partition}"


def _convert(lake: Lake, rows: pa.Table) -> pa.Schema:
    """Convert the table so that it takes `rows`. Returns its new schema."""
    version = lake.version(PREDICTIONS)
    table = layout.following(lake.scan(PREDICTIONS, version).to_table(), rows)
    lake.overwrite(PREDICTIONS, table, ["day"], version=version)
    event = table.schema.field("event").type
    log.warning("Converted the %d rows of %s: event is %s now", table.num_rows, lake.uri(PREDICTIONS), event)
    return table.schema
