"""The lake: Delta tables, through delta-rs. `<lake>/<source>/<table>` and `<lake>/<source>/predictions/<model>`.

Every write is one atomic commit. A write replaces the rows that match a predicate, so the same write twice leaves the
same table; `append_once` is for streams, where the caller numbers its batches. Timestamps are microseconds, UTC.

delta-rs casts rows to the table's types silently, even 30.57 to 30. So every write compares the two schemas first:
columns that the table lacks are added, null in its rows; columns that the rows lack are null in them; types that differ
are an error. `widen` makes the one change of a type that loses nothing.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, QueryBuilder, Transaction, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from training import delta_files, delta_log, delta_reader, file_digests
from training.contract.errors import ConfigError, InputError
from training.delta_tables import KEEP_THE_LOG, DeltaTables, flush_and_record
from training.domain.schemas import difference
from training.layout import mark_if_new

EVENTS: Final = "events"
QUARANTINE: Final = "quarantine"
PREDICTIONS: Final = "predictions"

#: Statistics of every column: by default Delta keeps those of the first 32 alone, and `spans` wants the time's.
_TABLE_PROPERTIES: Final = {"delta.dataSkippingNumIndexedCols": "-1"}
_START_OVER: Final = "move the table's folder away and write it anew (docs/your-model.md, Changing a live model)."
#: Beyond it a float64 does not hold every whole number.
_EXACT: Final = 2**53


class Lake(DeltaTables):
    """The tables of a source; with `model`, also the table PREDICTIONS of that model.

    `uri` is a local folder or an object-store URI; see DeltaTables, also for the errors of every method.
    """

    def __init__(self, uri: str, source: str, model: str = "") -> None:
        super().__init__(f"{uri.rstrip('/')}/{source}")
        self._lake, self._model = uri, model
        #: Table → the version that was scanned last, and its rows. A version never changes, steps read theirs again and
        #: again, and to list its files takes longer than to read some of them.
        self._scanned: dict[str, tuple[int, ds.FileSystemDataset]] = {}

    def uri(self, table: str) -> str:
        if table == PREDICTIONS and not self._model:
            raise ValueError(f"Predictions are of a model, and this is the lake of the source at {self.root}")
        return f"{super().uri(table)}/{self._model}" if table == PREDICTIONS else super().uri(table)

    def version(self, table: str) -> int | None:
        """The newest version of `table`; None when it does not exist yet."""
        opened = self.open(table)
        return None if opened is None else opened.version()

    def schema(self, table: str) -> pa.Schema | None:
        """The columns of `table` now; None when it does not exist yet.

        `scan` also lists the files of a table, which takes much longer when there are many.
        """
        opened = self.open(table)
        return None if opened is None else pa.schema(opened.schema())

    def versions(self, *tables: str) -> dict[str, int]:
        """Newest versions of those of `tables` that exist."""
        found = {table: self.version(table) for table in tables}
        return {table: version for table, version in found.items() if version is not None}

    def scan(self, table: str, version: int | None = None, columns: pa.Schema | None = None) -> ds.FileSystemDataset:
        """`table` at `version` (None: the newest) as a dataset that reads only what is asked of it.

        Those of `columns` that the table lacks, because no rows with them have been written yet, are null in it.
        Raises InputError when the table or the version does not exist.
        """
        try:
            found = self._dataset(table, version)
            lacking = [each for each in columns or () if each.name not in found.schema.names]
            return found.replace_schema(pa.schema([*found.schema, *lacking])) if lacking else found
        except (TableNotFoundError, DeltaError) as error:
            hint = f"Versions now: {self.versions(table)}. Land data first, or name a version that exists."
            raise InputError(
                f"Cannot read table {table!r} at version {version} in {self.root}: {error}", hint
            ) from error

    def _dataset(self, table: str, version: int | None) -> ds.FileSystemDataset:
        scanned = self._scanned.get(table)
        if scanned is not None and scanned[0] == version:
            return scanned[1]
        opened = self.load(table, version)
        found = delta_reader.dataset(opened)
        self._scanned[table] = (opened.version(), found)
        return found

    def spans(self, table: str, time_column: str, version: int | None = None) -> list[delta_reader.Span]:
        """What the partitions of `table` hold at `version` (None: the newest), from the statistics of its files.

        [] without a table. In files without statistics of the time column that column is read; rows without a time are
        left out. `table` must be partitioned by `partition`. Raises ConfigError when it holds rows and no such column.
        """
        opened = self.open(table, version)
        files = None if opened is None else delta_reader.files(opened)
        if opened is None or files is None or files.num_rows == 0:
            return []
        if time_column not in pa.schema(opened.schema()).names:
            problem = f"Table {self.uri(table)} holds rows, and none has the time column {time_column!r}"
            raise ConfigError(problem, f"Go back to the time column that it was filled by, or {_START_OVER}")
        return delta_reader.spans(opened, files, time_column)

    def largest(self, table: str, column: str, version: int | None = None) -> Any:
        """The largest value of `column` in a version of `table` (None: the newest), as far as the partitions or the
        statistics of its files have it; None where none do."""
        opened = self.open(table, version)
        files = None if opened is None else delta_reader.files(opened)
        if files is None:
            return None
        known = [name for name in (f"partition.{column}", f"max.{column}") if name in files.column_names]
        return pc.max(files[known[0]]).as_py() if known else None

    def check(self, table: str, schema: pa.Schema) -> None:
        """Raises ConfigError when `table` cannot take rows of `schema`, not even after `widen`. Writes nothing."""
        opened = self.open(table)
        found = difference(pa.schema([]) if opened is None else pa.schema(opened.schema()), schema)
        self._refuse(table, found.refused)
        if opened is None or not found.widened:
            return
        stored = delta_reader.dataset(opened)
        for name in found.widened:
            if not (stored.schema.field(name).type == pa.int64() and schema.field(name).type == pa.float64()):
                continue
            inexact = (pc.field(name) > _EXACT) | (pc.field(name) < -_EXACT)
            if count := stored.count_rows(filter=inexact):
                problem = f"{count:,} whole numbers of {name} are too large for float64 to hold exactly"
                self._refuse(table, [problem])

    def widen(self, table: str, schema: pa.Schema) -> None:
        """Rewrite the columns of `table` that have a larger type in `schema`, in one commit that keeps all values.

        Does nothing where there are none. Call `check` before. Raises TransientError when another writer changed the
        table meanwhile.
        """
        opened = self.open(table)
        names = {} if opened is None else difference(pa.schema(opened.schema()), schema).widened
        if opened is None or not names:
            return
        stored = delta_reader.dataset(opened)
        wide = pa.schema([schema.field(each.name) if each.name in names else each for each in stored.schema])
        batches = (pa.Table.from_batches([batch]).cast(wide).to_batches() for batch in stored.to_batches())
        rows = pa.RecordBatchReader.from_batches(wide, (batch for some in batches for batch in some))
        self._commit(opened, rows, None, mode="overwrite", schema_mode="overwrite")

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
        `applied`. Raises ConfigError when a type differs from the table's, TransientError when another writer
        committed meanwhile; nothing was written then.
        """
        opened = self._open_or_create(table, rows.schema, partition_by)
        self._refuse_differences(table, opened, rows.schema)
        return self._commit(opened, rows, transactions, mode="overwrite", predicate=where, schema_mode="merge")

    def replace_partition(
        self,
        table: str,
        schema: pa.Schema,
        rows: Iterable[pa.Table],
        partition: Mapping[str, str],
        transactions: Mapping[str, int],
    ) -> int:
        """Put `rows` in the place of those of one `partition` (column → value), in one commit, and in little memory.

        `schema` is that of `rows` with the columns of the partition, which `rows` lack. Of two writers of a partition
        one fails if both commit a transaction of the same application. Returns the version. Raises as `replace` does,
        and what the iteration over `rows` raises; nothing was committed then.
        """
        opened = self._open_or_create(table, schema, list(partition))
        self._refuse_differences(table, opened, schema)
        held = pa.schema(opened.schema())
        new = [field for field in schema if field.name not in held.names]
        properties = CommitProperties(app_transactions=[Transaction(*each) for each in transactions.items()])
        with self.answering():
            added = delta_files.write_files(opened, self.options, rows, partition)
        with self.committing(opened):
            opened.create_write_transaction(
                added,
                "overwrite",
                pa.schema([*held, *new]) if new else opened.schema(),
                list(partition),
                [(name, "=", value) for name, value in partition.items()],
                commit_properties=properties,
                post_commithook_properties=KEEP_THE_LOG,
            )
            before = opened.version()
            opened.update_incremental()
        flush_and_record(opened, before)
        return opened.version()

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
            with self.answering():
                opened.load_as_version(version)
        return self._commit(opened, rows, transactions, retries=0, mode="overwrite", schema_mode="overwrite")

    def append_once(
        self, table: str, rows: pa.Table, partition_by: list[str], application: str, number: int
    ) -> int | None:
        """Append batch `number` of `application`; None when it is in the table already. Numbers must grow.

        Raises ConfigError and TransientError as `replace` does.
        """
        opened = self._open_or_create(table, rows.schema, partition_by)
        self._refuse_differences(table, opened, rows.schema)
        applied = opened.transaction_version(application)
        if applied is not None and number <= applied:
            return None
        return self._commit(opened, rows, {application: number}, mode="append", schema_mode="merge")

    def appending(self, table: str, schema: pa.Schema, partition_by: list[str]) -> "Appending":
        """`table`, created if need be, to append rows of `schema` to it. Raises ConfigError as `replace` does."""
        opened = self._open_or_create(table, schema, partition_by)
        self._refuse_differences(table, opened, schema)
        return Appending(self, opened)

    def files(self, table: str, version: int | None = None) -> list[str]:
        """The files of `table` at `version` (None: the newest), relative to its folder; none without a table."""
        return list(self.file_sizes(table, version))

    def file_sizes(self, table: str, version: int | None = None) -> dict[str, int]:
        """As `files`, with the bytes of each."""
        opened = self.open(table, version)
        if opened is None:
            return {}
        found = delta_reader.files(opened)
        sizes = found["size_bytes"].to_pylist()
        return {unquote(path): size for path, size in zip(found["path"].to_pylist(), sizes, strict=True)}

    def files_digest(self, table: str, version: int) -> str:
        """The digest of the names and contents of all files of a version: see training/file_digests.py."""
        return file_digests.version_digest(self.uri(table), self.files(table, version))

    def count_where(self, table: str, predicate: str) -> int:
        """The rows of `table` that match the SQL `predicate`; 0 without a table."""
        opened = self.open(table)
        if opened is None:
            return 0
        query = f"SELECT count(*) AS matching FROM wanted WHERE {predicate}"
        found = pa.table(QueryBuilder().register("wanted", opened).execute(query).read_all())
        return int(found["matching"][0].as_py())

    def applied(self, table: str, application: str, version: int | None = None) -> int | None:
        """The number of the last transaction that `application` committed to `table`, as of `version`."""
        opened = self.open(table, version)
        return None if opened is None else opened.transaction_version(application)

    def commit_digest(self, table: str, version: int) -> str | None:
        """See delta_log.commit_digest."""
        return delta_log.commit_digest(self.uri(table), version)

    def identity(self, table: str) -> str | None:
        """The id that `table` got when it was created; one that was deleted and created again has another."""
        opened = self.open(table)
        return None if opened is None else str(opened.metadata().id)

    def identities(self, tables: Iterable[str]) -> dict[str, str | None]:
        """`identity` of each of `tables`."""
        return {table: self.identity(table) for table in tables}

    def _open_or_create(self, table: str, schema: pa.Schema, partition_by: list[str]) -> DeltaTable:
        """Creating is a commit of its own: two first writers then meet in a conflict instead of both creating."""
        self._refuse(table, difference(pa.schema([]), schema).refused)
        mark_if_new(self._lake)
        if "://" not in self.root:
            Path(self.uri(table)).parent.mkdir(parents=True, exist_ok=True)
        try:
            opened = self.open(table)
            if opened is not None:
                return opened
            with self.answering():
                created = DeltaTable.create(
                    self.uri(table),
                    schema,
                    partition_by=partition_by,
                    configuration=_TABLE_PROPERTIES,
                    storage_options=self.options,
                )
            delta_log.flush_newest(created)
            return created
        except DeltaError:
            opened = self.open(table)
            if opened is None:
                raise
            return opened

    def _refuse_differences(self, table: str, opened: DeltaTable, schema: pa.Schema) -> None:
        found = difference(pa.schema(opened.schema()), schema)
        self._refuse(table, [*found.refused, *found.widened.values()])

    def _refuse(self, table: str, reasons: list[str]) -> None:
        if reasons:
            hint = f"Go back to the columns that the table has, give the new one another name, or {_START_OVER}"
            raise ConfigError(f"Table {self.uri(table)} cannot take these rows: {'; '.join(reasons)}", hint)

    def _commit(
        self,
        opened: DeltaTable,
        rows: pa.Table | pa.RecordBatchReader,
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
        hooks = None if mode["mode"] == "append" else KEEP_THE_LOG
        with self.committing(opened):
            write_deltalake(  # type: ignore[call-overload]
                opened, rows, commit_properties=properties, post_commithook_properties=hooks, **mode
            )
        if mode["mode"] == "append":  # A stream commits every minute: the nightly check records its files.
            delta_log.flush_newest(opened)
        else:
            flush_and_record(opened)
        return opened.version()


class Appending:
    """Appends to a table, several times. Each commit builds on the one before.

    Another writer may append meanwhile, unless it commits a transaction of the same application. So a process that
    names one application in all its commits knows that no other has done the same work since `version`.
    """

    def __init__(self, lake: Lake, opened: DeltaTable) -> None:
        self._lake, self._opened = lake, opened
        #: What the first commit builds on.
        self.version = opened.version()

    def commit(self, rows: pa.RecordBatchReader, transactions: Mapping[str, int]) -> int:
        """Append `rows`, read batch by batch. Returns the version. Raises TransientError as `Lake.replace` does."""
        return self._lake._commit(self._opened, rows, transactions, mode="append", schema_mode="merge")
