"""Runs feature SQL and joins feature rows on a Spark cluster, with the results of DuckDB."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow as pa

from training.adapters.feature_engines._spark_sql import spark_sql, unordered
from training.adapters.feature_engines.duckdb import DuckDb
from training.contract.registries import FEATURE_ENGINES
from training.domain.feature_engine import AskedEvents, MadeRows, Relation, TimedRows, Work, in_order
from training.spark_session import Spark, connect, in_a_file
from training.spark_workers import Joined, Numbered

#: Rows that are sorted pass through memory so many at a time.
_BATCH_ROWS = 100_000


@FEATURE_ENGINES.register("spark")
class SparkEngine:
    """See training.domain.feature_engine.FeatureEngine. `url`: of a Spark Connect server.

    Feature SQL is DuckDB's. So DuckDB reads it first, which finds mistakes and knows the types of the result.
    """

    is_local = False

    def __init__(self, url: str = "") -> None:
        self._url, self._duckdb = url, DuckDb()

    @property
    def _spark(self) -> Spark:
        return connect(self._url)

    def parameters(self, sql: str) -> set[str]:
        return self._duckdb.parameters(sql)

    def clock_functions(self, sql: str) -> list[str]:
        return self._duckdb.clock_functions(sql)

    def execute(self, sql: str, parameters: Mapping[str, date], relations: Mapping[str, Relation]) -> pa.Table:
        empty = {name: relation.schema.empty_table() for name, relation in relations.items()}
        nothing = self._duckdb.execute(f"SELECT * FROM ({sql}\n) LIMIT 0", parameters, empty)
        select, order = unordered(sql)
        translated = spark_sql(select, parameters)
        if all(isinstance(relation, pa.Table) and not len(relation) for relation in relations.values()):
            return self._duckdb.execute(sql, parameters, relations)
        with self._views(relations):
            found = self._spark.query(translated, nothing.schema)
        return _ordered(found, order) if order else found

    @contextmanager
    def _views(self, relations: Mapping[str, Relation]) -> Iterator[None]:
        """The `relations` are views of these names within the block. What is made of other rows is made on Spark."""
        made = {name: each for name, each in relations.items() if isinstance(each, MadeRows)}
        read: dict[str, Relation] = {name: each for name, each in relations.items() if name not in made}
        for each in made.values():
            read |= each.relations
        with self._spark.views(read, {name: spark_sql(each.sql, {}) for name, each in made.items()}):
            yield

    def newest(self, events: pa.Table, time: str, features: TimedRows) -> pa.Table:
        keys = [f"key_{i}" for i in range(len(features.keys))]
        numbers = pa.array(np.arange(len(events)))
        asked = pa.table([numbers, events[time], *(events[name] for name in features.keys)], ["row", "time", *keys])
        types = [features.rows.schema.field(name).type for name in features.columns]
        names = [f"column_{i}" for i in range(len(types))]
        schema = pa.schema([("row", pa.int64()), *zip(names, types, strict=True)])
        sql = f"SELECT row, found.* FROM ({_join(features, '_asked', '_features')}) WHERE found IS NOT NULL"
        with self._spark.views({"_asked": asked, "_features": features.rows}):
            found = self._spark.query(sql, schema)
        return in_order(found, len(events)).rename_columns(list(features.columns))

    def map_joined(
        self, events: AskedEvents, views: Sequence[TimedRows], work: Work, files: Mapping[str, bytes]
    ) -> Iterator[bytes]:
        spark, places = self._spark, {name: f"e{i}" for i, name in enumerate(events.columns)}
        named = ", ".join(f"{_quoted(name)} AS {place}" for name, place in places.items())
        sql = f"SELECT {named} FROM _events"
        relations: dict[str, Relation] = {"_events": events.rows}
        if len(events.without):
            relations["_without"] = pa.table({"key": events.without})
            sql += f" LEFT ANTI JOIN _without ON {_quoted(events.key)} = _without.key"
        for number, view in enumerate(views):
            relations[f"_features_{number}"] = view.rows
            keys = ", ".join(f"{places[name]} AS key_{i}" for i, name in enumerate(view.keys))
            asked = f"(SELECT struct(*) AS row, {places[events.time]} AS time, {keys} FROM ({sql}))"
            sql = f"SELECT row.*, found AS found_{number} FROM ({_join(view, asked, f'_features_{number}')})"
        schemas = [_schema(events.rows, events.columns), *(_schema(view.rows, view.columns) for view in views)]
        with spark.views(relations):
            yield from spark.map_batches(sql, Joined(work, schemas, spark.send_files(files)))

    def run_tasks(self, count: int, task: Callable[[int], Iterable[bytes]]) -> Iterator[bytes]:
        # A partition for each. Spark sends results in the order of the partitions.
        yield from self._spark.map_batches(f"SELECT id FROM range(0, {count}, 1, {count})", Numbered(task))


def _ordered(rows: pa.Table, order: str) -> pa.Table:
    """`rows` in the `order`, by DuckDB, which sorts on disk what the memory does not hold.

    To sort them, Spark would compute all rows twice: the first time only to see which ranges they lie in.
    """
    with duckdb.connect() as connection, TemporaryDirectory(prefix="perennial-spark-") as folder:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET temp_directory = $folder", {"folder": folder})
        connection.register("rows", rows)
        found = connection.execute(f"SELECT * FROM rows {order}").to_arrow_reader(_BATCH_ROWS)
        return in_a_file((pa.Table.from_batches([batch]) for batch in found), rows.schema)


def _schema(relation: Relation, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([relation.schema.field(name) for name in columns])


def _join(features: TimedRows, asked: str, rows: str) -> str:
    """The SELECT of `row` of all that was asked, and of `found`, the columns of its feature row as a struct; null where
    there is none.

    `asked` has `row`, `time` and the keys, `key_0` and so on; `rows` are the feature rows. Spark has no ASOF JOIN.
    Feature rows and events are put into one order for each entity, and an event takes the last feature row before it:
    one shuffle, and no pairs of rows that do not match. Of rows with one time the one that counts comes last. Events
    without a key or a time, which find nothing, are spread, because one task would get all of them.
    """
    keys = [f"key_{i}" for i in range(len(features.keys))]
    columns = [f"column_{i}" for i in range(len(features.columns))]
    names = [*zip(features.keys.values(), keys, strict=True), *zip(features.columns, columns, strict=True)]
    names += [(features.time, "time"), *([(features.created, "created")] if features.created else [])]
    named = ", ".join(f"{_quoted(name)} AS {alias}" for name, alias in names)
    known = " AND ".join(f"{name} IS NOT NULL" for name in [*keys, "time"])
    by = ", ".join(keys)
    order = ["time", "row IS NOT NULL", *(["created NULLS FIRST"] if features.created else [])]
    order += [f"found.{column} DESC NULLS FIRST" for column in columns]
    made = ", created" if features.created else ""
    no_time = ", CAST(NULL AS TIMESTAMP) AS created" if features.created else ""
    holds = f"found_at IS NOT NULL AND {known}"
    if features.ttl is not None:
        holds += f" AND unix_micros(time) - unix_micros(found_at) <= {features.ttl // timedelta(microseconds=1)}"
    return f"""
        WITH named AS (SELECT {named} FROM {rows}),
        rows AS (
            SELECT {by}, time, NULL AS row, struct({", ".join(columns)}) AS found, time AS found_at,
                NULL AS spread{made}
            FROM named WHERE {known}
            UNION ALL
            SELECT {by}, time, row, NULL AS found, NULL AS found_at,
                CASE WHEN {known} THEN NULL ELSE pmod(xxhash64(row), 1000) END AS spread{no_time}
            FROM {asked}
        ),
        joined AS (
            SELECT {by}, row, time,
                last_value(found) IGNORE NULLS OVER newest AS found,
                last_value(found_at) IGNORE NULLS OVER newest AS found_at
            FROM rows
            WINDOW newest AS (
                PARTITION BY {by}, spread ORDER BY {", ".join(order)} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            )
        )
        SELECT row, CASE WHEN {holds} THEN found END AS found FROM joined WHERE row IS NOT NULL
    """


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
