"""Runs feature SQL in this process, over Arrow datasets."""

import json
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import duckdb
import pyarrow as pa

from training.contract.registries import FEATURE_ENGINES
from training.domain.feature_engine import SqlError

#: DuckDB's functions of the current time. The parser returns those without parentheses as columns.
_CLOCK = {
    "current_date", "current_time", "current_timestamp", "get_current_time", "get_current_timestamp", "localtime",
    "localtimestamp", "now", "today", "transaction_timestamp",
}  # fmt: skip
_WITHOUT_PARENTHESES = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}


@FEATURE_ENGINES.register("duckdb")
class DuckDb:
    """See training.domain.feature_engine.FeatureEngine."""

    def parameters(self, sql: str) -> set[str]:
        try:
            [statement] = duckdb.extract_statements(sql)
        except (duckdb.Error, ValueError) as error:
            raise SqlError(str(error)) from error
        return set(statement.named_parameters)

    def clock_functions(self, sql: str) -> list[str]:
        with duckdb.connect() as connection:
            [text] = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone() or ("{}",)
        tree = json.loads(text)
        if tree.get("error"):
            raise SqlError(tree["error_message"])
        return sorted(set(_clock_calls(tree)))

    def execute(self, sql: str, parameters: Mapping[str, date], relations: Mapping[str, Any]) -> pa.Table:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            for name, relation in relations.items():
                connection.register(name, relation)
            try:
                return connection.execute(sql, dict(parameters)).to_arrow_table()
            except duckdb.Error as error:
                raise SqlError(str(error)) from error


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
