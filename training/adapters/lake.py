"""The lake: one Delta table per kind of row and model, `<lake>/<model>/<table>`, through delta-rs.

Every write is one atomic commit. A write replaces the rows that match a predicate, so the same write twice leaves the
same table; `append_once` is for streams, where the caller numbers its batches. Timestamps are microseconds, UTC.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from training.contract.errors import InputError, TransientError

EVENTS: Final = "events"
LABELS: Final = "labels"
QUARANTINE: Final = "quarantine"
PREDICTIONS: Final = "predictions"


class Span(NamedTuple):
    """One file of a partition: rows and the range of their times (UTC). A partition may have several."""

    partition: str
    rows: int
    earliest: datetime
    newest: datetime


class Lake:
    """The tables of one model.

    `uri` is a local folder or an object-store URI that delta-rs knows; credentials come from the environment.
    """

    def __init__(self, uri: str, model: str) -> None:
        self._root = f"{uri.rstrip('/')}/{model}"

    def uri(self, table: str) -> str:
        return f"{self._root}/{table}"

    def version(self, table: str) -> int | None:
        """The newest version of `table`; None when it does not exist yet."""
        opened = self._open(table)
        return None if opened is None else opened.version()

    def versions(self, *tables: str) -> dict[str, int]:
        """Newest versions of those of `tables` that exist."""
        found = {table: self.version(table) for table in tables}
        return {table: version for table, version in found.items() if version is not None}

    def scan(self, table: str, version: int | None = None) -> ds.Dataset:
        """`table` at `version` (None: the newest) as a dataset that reads only what is asked of it.

        Raises InputError when the table or the version does not exist.
        """
        try:
            return DeltaTable(self.uri(table), version=version).to_pyarrow_dataset()
        except (TableNotFoundError, DeltaError) as error:
            hint = f"Versions now: {self.versions(table)}. Land data first, or name a version that exists."
            raise InputError(
                f"Cannot read table {table!r} at version {version} in {self._root}: {error}", hint
            ) from error

    def spans(self, table: str, time_column: str) -> list[Span]:
        """What the partitions of `table` hold, from the statistics of its files: no row is read. [] without a table.

        `table` must be partitioned by `partition`.
        """
        opened = self._open(table)
        if opened is None:
            return []
        files = pa.table(opened.get_add_actions(flatten=True))
        wanted = ["partition.partition", "num_records", f"min.{time_column}", f"max.{time_column}"]
        if files.num_rows == 0:
            return []
        rows = zip(*(files[name].to_pylist() for name in wanted), strict=True)
        return [Span(*row) for row in rows if row[1] and row[2] is not None]

    def replace(
        self,
        table: str,
        rows: pa.Table,
        where: str,
        partition_by: list[str],
        transactions: Mapping[str, int] | None = None,
    ) -> int:
        """Put `rows` in the place of those that match the SQL predicate `where`, in one commit. Returns the version.

        Every row must itself match `where`. `transactions` (application → number) are kept with the commit: see
        `applied`. Raises TransientError when another writer committed meanwhile; nothing was written then.
        """
        opened = self._open_or_create(table, rows.schema, partition_by)
        return self._commit(opened, rows, transactions, mode="overwrite", predicate=where)

    def overwrite(
        self,
        table: str,
        rows: pa.Table,
        partition_by: list[str],
        transactions: Mapping[str, int] | None = None,
        version: int | None = None,
    ) -> int:
        """Put `rows` in the place of all that `table` holds, its columns and their types included, in one commit.

        `version` is the one that `rows` were made of: any commit since is a conflict. Returns the version. Earlier
        versions keep their own columns. Raises TransientError as `replace` does.
        """
        opened = self._open_or_create(table, rows.schema, partition_by)
        if version is not None:
            opened.load_as_version(version)
        return self._commit(opened, rows, transactions, retries=0, mode="overwrite", schema_mode="overwrite")

    def append_once(
        self, table: str, rows: pa.Table, partition_by: list[str], application: str, number: int
    ) -> int | None:
        """Append batch `number` of `application`; None when it is in the table already. Numbers must grow.

        Columns that the table lacks are added to it, null in the rows that it has.
        """
        opened = self._open_or_create(table, rows.schema, partition_by)
        applied = opened.transaction_version(application)
        if applied is not None and number <= applied:
            return None
        return self._commit(opened, rows, {application: number}, mode="append", schema_mode="merge")

    def applied(self, table: str, application: str) -> int | None:
        """The number of the last transaction that `application` committed to `table`."""
        opened = self._open(table)
        return None if opened is None else opened.transaction_version(application)

    def _open(self, table: str) -> DeltaTable | None:
        try:
            return DeltaTable(self.uri(table))
        except TableNotFoundError:
            return None

    def _open_or_create(self, table: str, schema: pa.Schema, partition_by: list[str]) -> DeltaTable:
        """Creating is a commit of its own: two first writers then meet in a conflict instead of both creating."""
        if "://" not in self._root:
            Path(self._root).mkdir(parents=True, exist_ok=True)
        try:
            return self._open(table) or DeltaTable.create(self.uri(table), schema, partition_by=partition_by)
        except DeltaError:
            opened = self._open(table)
            if opened is None:
                raise
            return opened

    def _commit(
        self,
        opened: DeltaTable,
        rows: pa.Table,
        transactions: Mapping[str, int] | None,
        retries: int | None = None,
        **mode: str,
    ) -> int:
        """Commit on top of what was `opened` and looked at: a write in between is a conflict, never a double.

        delta-rs sees no conflict between an append and the overwrite of a schema, and leaves the appended rows in
        their old types: without `retries` the commit must be the next one.
        """
        kept = [Transaction(*each) for each in (transactions or {}).items()]
        properties = CommitProperties(app_transactions=kept or None, max_commit_retries=retries)
        try:
            write_deltalake(opened, rows, commit_properties=properties, **mode)  # type: ignore[call-overload]
        except CommitFailedError as error:
            raise TransientError(
                f"Another writer changed {opened.table_uri} meanwhile: {error}", hint="Retry."
            ) from error
        return opened.version()
