"""Batch features: the SELECTs of `feature_repo/<m>.sql`, run by DuckDB over Arrow datasets.

The file's convention is written at the head of feature_repo/card_fraud.sql.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from training.contract.base import Days
from training.contract.errors import ConfigError, DataContractError

_SECTION = re.compile(r"^-- table: (\w+)\s*$", re.MULTILINE)


class FeatureQueries:
    """The queries of one model.

    Raises ConfigError when the file is missing or does not hold exactly `tables` (feature table → entity column), each
    once.
    """

    def __init__(self, path: Path, tables: Mapping[str, str]) -> None:
        if not path.is_file():
            raise ConfigError(f"No feature queries at {path}", hint="Every model has its SQL beside its Feast objects.")
        parts = _SECTION.split(path.read_text())
        if twice := sorted({name for name in parts[1::2] if parts[1::2].count(name) > 1}):
            problem = f"{path} has a line `-- table: {twice[0]}` twice, and only one query can fill a table"
            raise ConfigError(problem, hint="Remove or rename one of the two.")
        self._queries = dict(zip(parts[1::2], parts[2::2], strict=True))
        self._path, self._tables = path, tables
        if sorted(self._queries) != sorted(tables):
            found = f"{path} fills the tables {sorted(self._queries)}, the model spec names {sorted(tables)}"
            raise ConfigError(found, hint="Make the `-- table:` lines and features.tables agree.")

    def run(self, table: str, days: Days, relations: Mapping[str, Any]) -> pa.Table:
        """The rows of `table` for feature timestamps at the midnights of `days`, ordered by day and entity.

        `relations`: Arrow datasets or tables by the names that the SQL uses. The result has the entity column,
        `feature_timestamp` (timestamp[us, UTC]), the features and `day` (date). Raises ConfigError when the SQL does
        not run, DataContractError when it yields nulls.
        """
        entity = self._tables[table]
        within = "day >= $start AND day < $end"
        query = f"SELECT * FROM ({self._queries[table]}\n) WHERE {within} ORDER BY day, {entity}"
        with duckdb.connect() as connection:
            # Days are UTC days, whatever the machine's time zone.
            connection.execute("SET TimeZone = 'UTC'")
            for name, relation in relations.items():
                connection.register(name, relation)
            try:
                found = connection.execute(query, {"start": days.start, "end": days.end}).to_arrow_table()
            except duckdb.Error as error:
                raise ConfigError(f"Query {table!r} of {self._path} failed: {error}", hint="Mend the SQL.") from error
        return self._with_timestamps(table, entity, found)

    def _with_timestamps(self, table: str, entity: str, found: pa.Table) -> pa.Table:
        if nulls := [name for name in found.column_names if found[name].null_count]:
            where = f"Query {table!r} of {self._path} yielded nulls in {nulls}"
            raise DataContractError(where, hint="Coalesce them: a feature without data is 0.")
        midnight = pc.cast(found["day"], pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
        features = [name for name in found.column_names if name not in (entity, "day")]
        columns = [found[entity], midnight, *(found[name] for name in features), found["day"]]
        return pa.table(columns, names=[entity, "feature_timestamp", *features, "day"])
