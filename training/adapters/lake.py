"""The lake: one Delta table per kind of row and model, `<lake>/<model>/<table>`, through delta-rs.

Every write is one atomic commit. A write replaces the rows that match a predicate, so the same write twice leaves the
same table; `append_once` is for streams, where the caller numbers its batches. Timestamps are microseconds, UTC.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from training.contract.errors import InputError, TransientError

EVENTS, LABELS, QUARANTINE, PREDICTIONS = "events", "labels", "quarantine", "predictions"


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

    def replace(
        self,
        table: str,
        rows: pa.Table,
        where: str,
        partition_by: list[str],
        transaction: tuple[str, int] | None = None,
    ) -> int:
        """Put `rows` in the place of those that match the SQL predicate `where`, in one commit. Returns the version.

        Every row must itself match `where`. `transaction` (application, number) is kept with the commit: see `applied`.
        Raises TransientError when another writer committed meanwhile; nothing was written then.
        """
        mode = {"mode": "overwrite", "predicate": where} if self.version(table) is not None else {"mode": "append"}
        return self._commit(table, rows, partition_by, transaction, **mode)

    def append_once(
        self, table: str, rows: pa.Table, partition_by: list[str], application: str, number: int
    ) -> int | None:
        """Append batch `number` of `application`; None when it is in the table already. Numbers must grow."""
        applied = self.applied(table, application)
        if applied is not None and number <= applied:
            return None
        return self._commit(table, rows, partition_by, (application, number), mode="append")

    def applied(self, table: str, application: str) -> int | None:
        """The number of the last transaction that `application` committed to `table`."""
        opened = self._open(table)
        return None if opened is None else opened.transaction_version(application)

    def _open(self, table: str) -> DeltaTable | None:
        try:
            return DeltaTable(self.uri(table))
        except TableNotFoundError:
            return None

    def _commit(
        self, table: str, rows: pa.Table, partition_by: list[str], transaction: tuple[str, int] | None, **mode: str
    ) -> int:
        if "://" not in self._root:
            Path(self._root).mkdir(parents=True, exist_ok=True)
        transactions = [Transaction(*transaction)] if transaction else None
        properties = CommitProperties(app_transactions=transactions)
        try:
            write_deltalake(self.uri(table), rows, partition_by=partition_by, commit_properties=properties, **mode)  # type: ignore[call-overload]
        except CommitFailedError as error:
            raise TransientError(
                f"Another writer changed {self.uri(table)} meanwhile: {error}", hint="Retry."
            ) from error
        version = self.version(table)
        assert version is not None
        return version
