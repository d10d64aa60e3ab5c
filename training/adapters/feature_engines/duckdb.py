"""Runs feature SQL and joins feature rows in this process, over Arrow datasets."""

import json
from collections.abc import Iterator, Mapping, Sized
from datetime import date, timedelta
from functools import cache
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from training import object_store
from training.contract.registries import FEATURE_ENGINES
from training.domain.feature_engine import Relation, SqlError, TimedRows, in_order, in_this_process
from training.domain.sql_names import quoted

#: DuckDB's functions of the current time. The parser returns those without parentheses as columns.
_CLOCK = {
    "current_date", "current_time", "current_timestamp", "get_current_time", "get_current_timestamp", "localtime",
    "localtimestamp", "now", "today", "transaction_timestamp",
}  # fmt: skip
_WITHOUT_PARENTHESES = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}


@FEATURE_ENGINES.register("duckdb")
class DuckDb:
    """See training.domain.feature_engine.FeatureEngine. It runs in this process, so it needs no `url`."""

    is_local = True

    def __init__(self, url: str = "") -> None:
        pass

    def parameters(self, sql: str) -> set[str]:
        try:
            [statement] = duckdb.extract_statements(sql)
        except (duckdb.Error, ValueError) as error:
            raise SqlError(str(error)) from error
        return set(statement.named_parameters)

    def clock_functions(self, sql: str) -> list[str]:
        with _database().cursor() as connection:
            [text] = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone() or ("{}",)
        tree = json.loads(text)
        if tree.get("error"):
            raise SqlError(tree["error_message"])
        return sorted(set(_clock_calls(tree)))

    def execute(self, sql: str, parameters: Mapping[str, date], relations: Mapping[str, Relation]) -> pa.Table:
        return _run(sql, dict(parameters), relations)

    def newest(self, events: pa.Table, time: str, features: TimedRows) -> pa.Table:
        asked = pa.table(
            [pa.array(np.arange(len(events))), events[time], *(events[name] for name in features.keys)],
            names=["row", "time", *_numbered("key", features.keys)],
        )
        found = _run(_join(features), {}, {"events": asked, "features": features.rows})
        return in_order(found, len(events)).rename_columns(list(features.columns))


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """An empty one in memory. To make one for each query takes 10 ms of CPU, more than most queries of small data.

    Each query has a connection of its own, `cursor()`, with its own settings and relations.
    """
    return duckdb.connect()


def _run(sql: str, parameters: dict[str, Any], relations: Mapping[str, Relation]) -> pa.Table:
    with _database().cursor() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        # DuckDB does not know how many rows an Arrow dataset has and takes it for tiny. It would join it in a loop over
        # all pairs, which takes minutes.
        connection.execute("SET asof_loop_join_threshold = 0")
        for name, relation in relations.items():
            connection.register(name, in_this_process(relation))
        try:
            return connection.execute(sql, parameters).to_arrow_table()
        except duckdb.Error as error:
            raise object_store.read_error(error) or SqlError(str(error)) from error


def _join(features: TimedRows) -> str:
    """The SELECT of the numbers of the events that have a feature row, `row`, and of its columns.

    All columns get numbers for names, because a feature table may have any names. Rows with a null key or time are left
    out first: in DuckDB's ASOF JOIN a null time is after all others, and of two keys a null equals a null.
    """
    keys, columns = _numbered("key", features.keys), _numbered("column", features.columns)
    names = [*zip(features.keys.values(), keys, strict=True), *zip(features.columns, columns, strict=True)]
    names += [(features.time, "time"), *([(features.created, "created")] if features.created else [])]
    order = (["created DESC NULLS LAST"] if features.created else []) + columns
    known = " AND ".join(f"{name} IS NOT NULL" for name in [*keys, "time"])
    valid = "true"
    if features.ttl is not None:
        valid = f"epoch_us(asked.time) - epoch_us(found.time) <= {features.ttl // timedelta(microseconds=1)}"
    return f"""
        WITH named AS (SELECT {", ".join(f"{quoted(name)} AS {alias}" for name, alias in names)} FROM features),
        asked AS (FROM events WHERE {known}),
        found AS (
            FROM named
            WHERE {known}
            QUALIFY row_number() OVER (PARTITION BY {", ".join([*keys, "time"])} ORDER BY {", ".join(order)}) = 1
        )
        SELECT asked.row, {", ".join(f"found.{column}" for column in columns)}
        FROM asked ASOF JOIN found
        ON {" AND ".join(f"asked.{key} = found.{key}" for key in keys)} AND asked.time >= found.time
        WHERE {valid}
    """


def _numbered(name: str, columns: Sized) -> list[str]:
    return [f"{name}_{i}" for i in range(len(columns))]


def _clock_calls(node: Any) -> Iterator[str]:
    """The functions of the current time in a part of the parsed SQL."""
    if isinstance(node, list):
        for each in node:
            yield from _clock_calls(each)
    elif isinstance(node, dict):
        name = str(node.get("function_name", "")).lower()
        if name in _CLOCK:
            yield f"{name}()"
        elif name == "age" and len(node["children"]) == 1:
            yield "age() with one argument"
        elif node.get("type") == "COLUMN_REF" and node["column_names"][0].lower() in _WITHOUT_PARENTHESES:
            yield node["column_names"][0].lower()
        for each in node.values():
            yield from _clock_calls(each)
