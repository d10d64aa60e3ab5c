"""Sessions of a Spark Connect server: tables of the lake as its views, and results as Arrow tables.

Spark reads the Parquet files that the log of a Delta table lists for the pinned version; it needs no library of Delta.
What it computes comes back through the connection, and this process commits it. So Spark needs the right to read the
lake, and no right to write.
"""

import functools
import hashlib
import logging
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds

from training import storage
from training.contract.errors import ConfigError, TransientError
from training.domain.feature_engine import LakeRows, Relation, SqlError, in_this_process
from training.spark_workers import code_archive

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: What makes results equal to those of DuckDB, wherever the server runs and whatever its defaults are.
_CONFIGURATION: Mapping[str, str] = {
    "spark.sql.session.timeZone": "UTC",
    # Overflows and values that do not fit are errors, not nulls.
    "spark.sql.ansi.enabled": "true",
    # As in DuckDB, where names of columns that differ by case only are one name.
    "spark.sql.caseSensitive": "false",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    # Values of partitions have the types of the table. Spark would guess.
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    "spark.sql.decimalOperations.allowPrecisionLoss": "true",
}
#: Two minutes for a server that is restarting. The step is repeated later. By default the client tries for ten.
_RETRIES = 7
#: What Spark says when its workers lack something.
_LACKING = re.compile(r"ModuleNotFoundError: .*|.*PYTHON_VERSION_MISMATCH.*")
#: How Spark begins when a task failed too often. When the query is the reason, it also names an SQLSTATE.
_ABORTED = "Job aborted due to stage failure"
#: Rows in one message of a result.
_BATCH_ROWS = 100_000

log = logging.getLogger("perennial")
# It logs every error with its Java stack. Ours go where all errors of a step go.
logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)


@functools.cache
def connect(url: str) -> "Spark":
    """The session of this process with the Spark Connect server at `url`, `sc://host:port`.

    Raises ConfigError without a URL or without pyspark, TransientError when the server does not answer.
    """
    if not url.startswith("sc://"):
        hint = "Set CT_ENGINE_URL to the URL of a Spark Connect server, such as sc://spark:15002 (docs/spark.md)."
        raise ConfigError(f"CT_ENGINE_URL is {url!r}, and CT_ENGINE=spark needs a server", hint)
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
        from pyspark.sql.connect.client.retries import DefaultPolicy
    except ImportError as error:
        hint = "Install the extra `spark`, or build the training image with --build-arg EXTRAS=spark."
        raise ConfigError(f"CT_ENGINE=spark needs pyspark: {error}", hint) from error
    try:
        session: Any = SparkSession.builder.remote(url).create()
        session.client.set_retry_policies([DefaultPolicy(max_retries=_RETRIES)])
        for name, value in _CONFIGURATION.items():
            session.conf.set(name, value)
        log.info("Spark %s at %s", session.version, url.partition(";")[0])
    except (PySparkException, OSError) as error:
        raise TransientError(f"The Spark Connect server at {url.partition(';')[0]} does not answer: {error}") from error
    return Spark(session)


class Spark:
    """One session."""

    def __init__(self, session: "SparkSession") -> None:
        self.session = session
        self._added: set[str] = set()

    def frame(self, relation: Relation) -> "DataFrame":
        """The rows of `relation`. Those that do not lie in the lake are sent to the server."""
        if not isinstance(relation, LakeRows):
            return self._sent(in_this_process(relation))
        from training.compat.pyspark import spark_schema

        found = list(relation.table.get_fragments(filter=relation.wanted))
        if not found:
            return self._sent(relation.schema.empty_table())
        base = relation.uri if storage.is_remote(relation.uri) else storage.local(relation.uri).absolute().as_uri()
        for fragment in found:
            _check_partition(fragment)
        reader = self.session.read.schema(spark_schema(relation.schema)).option("basePath", base)
        rows = reader.parquet(*(f"{base}/{fragment.path}" for fragment in found))
        column = rows["`" + relation.column.replace("`", "``") + "`"]
        # The files that were listed are those of the partition.
        return rows.where((column >= relation.start) & (column < relation.end))

    @contextmanager
    def views(self, relations: Mapping[str, Relation], selects: Mapping[str, str] | None = None) -> Iterator[None]:
        """The `relations` are views of these names within the block, and so are the `selects`, which read them."""
        selects = selects or {}
        for name, relation in relations.items():
            self.frame(relation).createOrReplaceTempView(name)
        try:
            for name, select in selects.items():
                self.session.sql(select).createOrReplaceTempView(name)
            yield
        finally:
            for name in [*selects, *relations]:
                self.session.catalog.dropTempView(name)

    def query(self, sql: str, schema: pa.Schema) -> pa.Table:
        """The rows of a SELECT in order, as a table of `schema`, column by column, in a file.

        Raises SqlError; TransientError when an executor or a worker was lost, or the server cannot run the query.
        """
        from pyspark.errors import PySparkException

        from training.compat.pyspark import arrow_batches

        try:
            return in_a_file((_cast(batch, schema) for batch in arrow_batches(self.session.sql(sql))), schema)
        except PySparkException as error:
            raise _failure(error) from error

    def map_batches(
        self, sql: str, work: Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]
    ) -> Iterator[bytes]:
        """The messages that `work` makes of the rows of a SELECT in Spark's Python workers, as they arrive.

        `work` yields batches of the one binary column `message`. Our code is sent along.
        Raises as `query` does, and ConfigError when the workers lack packages.
        """
        from pyspark.errors import PySparkException

        from training.compat.pyspark import arrow_batches

        try:
            self._send(*code_archive(), pyfile=True)
            for batch in arrow_batches(self.session.sql(sql).mapInArrow(work, "message binary")):
                yield from batch["message"].to_pylist()
        except PySparkException as error:
            if lacking := _LACKING.search(str(error)):
                hint = "Give Spark's Python workers the Python and the packages that docs/spark.md names."
                raise ConfigError(f"Spark's Python workers cannot run our code: {lacking[0]}", hint) from error
            raise _failure(error) from error

    def send_files(self, files: Mapping[str, bytes]) -> dict[str, str]:
        """Send `files` to the workers. Returns the name that each has there: a session keeps what it got."""
        sent = {}
        for name, content in files.items():
            sent[name] = f"{hashlib.sha256(content).hexdigest()[:16]}-{name}"
            self._send(sent[name], content, pyfile=False)
        return sent

    def _send(self, name: str, content: bytes, pyfile: bool) -> None:
        if name in self._added:
            return
        with tempfile.TemporaryDirectory(prefix="perennial-spark-") as folder:
            path = Path(folder, name)
            path.write_bytes(content)
            self.session.addArtifacts(str(path), pyfile=pyfile, file=not pyfile)
        self._added.add(name)

    def _sent(self, rows: ds.Dataset | pa.Table) -> "DataFrame":
        from training.compat.pyspark import spark_schema

        table = rows if isinstance(rows, pa.Table) else rows.to_table()
        return self.session.createDataFrame(table, None if len(table) else spark_schema(table.schema))


def in_a_file(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """`tables` as one, in a temporary file that is mapped into memory. So it may be larger than the memory."""
    with tempfile.NamedTemporaryFile(prefix="perennial-spark-") as file:
        with pa.ipc.new_file(file.name, schema) as writer:
            for each in tables:
                writer.write_table(each, _BATCH_ROWS)
        # The mapping keeps the file, which has no name any more.
        return pa.ipc.open_file(pa.memory_map(file.name)).read_all()


def _check_partition(fragment: ds.Fragment) -> None:
    """Spark takes the values of a partition from the path, Delta from the log: both must be the same."""
    in_path = dict(part.split("=", 1) for part in fragment.path.split("/")[:-1] if "=" in part)
    for name, value in ds.get_partition_keys(fragment.partition_expression).items():
        if name in in_path and unquote(in_path[name]) != str(value) and value is not None:
            hint = "Rewrite the partition, or compute with CT_ENGINE=duckdb."
            raise ConfigError(f"The path {fragment.path} is not that of its partition {name}={value}", hint)


def _cast(batch: pa.Table, schema: pa.Schema) -> pa.Table:
    """`batch` with the names and types of `schema`. Names come from DuckDB, which keeps those of the relations."""
    columns = [
        column.cast(field.type) if column.type != field.type else column
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.table(columns, schema=schema)


def _failure(error: Exception) -> SqlError | TransientError:
    message = _message(error)
    if _ABORTED in message and "SQLSTATE" not in message:
        hint = "The step is tried again. The log of the Spark server says more."
        return TransientError(message.split("\n\tat ", 1)[0].split("\nDriver stacktrace", 1)[0], hint)
    return SqlError(message)


def _message(error: Exception) -> str:
    """Without the plan and the Java stack."""
    return str(error).split("JVM stacktrace", 1)[0].split(";\n", 1)[0].strip()
