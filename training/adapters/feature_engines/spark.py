"""Runs feature SQL and joins feature rows on a Spark cluster, with the results of DuckDB."""

from collections.abc import Mapping
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from training.adapters.feature_engines._spark_sql import spark_sql
from training.adapters.feature_engines.duckdb import DuckDb
from training.contract.registries import FEATURE_ENGINES
from training.domain.feature_engine import Relation, TimedRows, in_order
from training.spark_session import Spark, connect


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
        translated = spark_sql(sql, parameters)
        if all(isinstance(relation, pa.Table) and not len(relation) for relation in relations.values()):
            return self._duckdb.execute(sql, parameters, relations)
        with self._spark.views(relations):
            return self._spark.query(translated, nothing.schema)

    def newest(self, events: pa.Table, time: str, features: TimedRows) -> pa.Table:
        keys = [f"key_{i}" for i in range(len(features.keys))]
        numbers = pa.array(np.arange(len(events)))
        asked = pa.table([numbers, events[time], *(events[name] for name in features.keys)], ["row", "time", *keys])
        types = [features.rows.schema.field(name).type for name in features.columns]
        columns = [f"column_{i}" for i in range(len(types))]
        schema = pa.schema([("row", pa.int64()), *zip(columns, types, strict=True)])
        with self._spark.views({"_asked": asked, "_features": features.rows}):
            found = self._spark.query(_join(features, keys, columns), schema)
        return in_order(found, len(events)).rename_columns(list(features.columns))


def _join(features: TimedRows, keys: list[str], columns: list[str]) -> str:
    """The SELECT of the numbers of the events that have a feature row, `row`, and of its columns.

    Spark's SQL has no ASOF JOIN. Feature rows and events are put into one order for each entity, and an event takes the
    last feature row before it: one shuffle, and no pairs of rows that do not match. Of rows with one time the one that
    counts comes last.
    """
    names = [*zip(features.keys.values(), keys, strict=True), *zip(features.columns, columns, strict=True)]
    names += [(features.time, "time"), *([(features.created, "created")] if features.created else [])]
    named = ", ".join(f"{_quoted(name)} AS {alias}" for name, alias in names)
    known = " AND ".join(f"{name} IS NOT NULL" for name in [*keys, "time"])
    by = ", ".join(keys)
    order = ["time", "row NULLS FIRST", *(["created NULLS FIRST"] if features.created else [])]
    order += [f"found.{column} DESC NULLS FIRST" for column in columns]
    made = ", created" if features.created else ""
    no_time = ", CAST(NULL AS TIMESTAMP) AS created" if features.created else ""
    ttl = "true"
    if features.ttl is not None:
        ttl = f"unix_micros(time) - unix_micros(found.time) <= {features.ttl // timedelta(microseconds=1)}"
    return f"""
        WITH named AS (SELECT {named} FROM _features),
        rows AS (
            SELECT {by}, time, CAST(NULL AS BIGINT) AS row, struct(time, {", ".join(columns)}) AS found{made}
            FROM named WHERE {known}
            UNION ALL
            SELECT {by}, time, row, NULL AS found{no_time} FROM _asked WHERE {known}
        ),
        joined AS (
            SELECT row, time, last_value(found) IGNORE NULLS OVER (
                PARTITION BY {by} ORDER BY {", ".join(order)} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            ) AS found
            FROM rows
        )
        SELECT row, {", ".join(f"found.{column}" for column in columns)}
        FROM joined
        WHERE row IS NOT NULL AND found IS NOT NULL AND {ttl}
    """


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
