"""Batch features: run the SELECTs of `feature_repo/<model>.sql` and check what they yield.

docs/your-model.md describes such a file.
"""

import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from training.contract.base import Days
from training.contract.errors import ConfigError, DataContractError
from training.contract.registries import FEATURE_ENGINES
from training.domain.feature_engine import FeatureEngine, SqlError

_SECTION = re.compile(r"^-- table: (\w+)\s*$", re.MULTILINE)
#: A quoted text or name, a comment, white space, a word or number, or any other character.
_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\s+|[\w.$]+|.""", re.DOTALL)
_LARGEST = float(np.finfo(np.float32).max)


class FeatureQueries:
    """The queries of one model. `engine`, a member of the registry FEATURE_ENGINES, runs them.

    Raises ConfigError when the file is missing, or does not have exactly one query for each of `tables` (feature table
    → entity column).
    """

    def __init__(self, path: Path, tables: Mapping[str, str], engine: str = "duckdb") -> None:
        self._engine: FeatureEngine = FEATURE_ENGINES.find(engine)()
        if not path.is_file():
            raise ConfigError(
                f"No feature queries at {path}",
                hint="Every model needs a .sql file beside its .py file with the Feast objects.",
            )
        parts = _SECTION.split(path.read_text())
        if repeated := sorted({name for name in parts[1::2] if parts[1::2].count(name) > 1}):
            problem = f"{path} has a line `-- table: {repeated[0]}` twice, and only one query can fill a table"
            raise ConfigError(problem, hint="Remove or rename one of the two.")
        self.path, self._tables = path, tables
        self._queries = dict(zip(parts[1::2], parts[2::2], strict=True))
        if sorted(parts[1::2]) != sorted(tables):
            problem = f"{path} fills the tables {sorted(parts[1::2])}, but the model spec has {sorted(tables)}"
            hint = "Write one line `-- table: <name>` with its query for each table in features.tables."
            raise ConfigError(problem, hint)

    def tokens(self, table: str) -> list[str]:
        """The tokens of the query of `table`, without comments and white space."""
        found = _TOKEN.findall(self._queries[table])
        return [token for token in found if not token.isspace() and not token.startswith(("--", "/*"))]

    def clock_functions(self, table: str) -> list[str]:
        """The functions of the current time that the query of `table` calls. Raises ConfigError when it is not SQL."""
        try:
            return self._engine.clock_functions(self._queries[table])
        except SqlError as error:
            raise self._not_a_select(table, error) from error

    def schema(self, table: str, relations: Mapping[str, Any]) -> pa.Schema:
        """The columns of `run`'s result, without running the query. `relations` may be empty tables.

        Raises ConfigError when the SQL does not compile, does not take $start and $end, or lacks the entity or `day`.
        """
        entity = self._tables[table]
        if missing := {"start", "end"} - self._parameters(table):
            problem = f"Query {table!r} of {self.path} does not use {sorted('$' + name for name in missing)}"
            raise ConfigError(problem, hint="Restrict the rows to day >= $start AND day < $end.")
        any_day = Days.ending(date(2000, 1, 2), 1)
        found = self._execute(table, f"SELECT * FROM ({self._queries[table]}\n) LIMIT 0", any_day, relations)
        repeated = {name.lower() for name in found.column_names}
        if len(repeated) < found.num_columns or "feature_timestamp" in repeated:
            problem = f"Query {table!r} of {self.path} yields the columns {found.column_names}"
            raise ConfigError(problem, hint="Names must differ by more than case. The step adds feature_timestamp.")
        for name in (entity, "day"):
            if name not in found.column_names:
                problem = f"Query {table!r} of {self.path} yields {found.column_names}, without {name!r}"
                raise ConfigError(problem, hint="It must yield the entity column, `day` and the features.")
        if not pt.is_date32(found["day"].type):
            problem = f"Query {table!r} of {self.path} yields `day` as {found['day'].type}"
            raise ConfigError(problem, hint="Write CAST(… AS DATE) AS day.")
        return self._with_timestamps(entity, found).schema

    def run(self, table: str, days: Days, relations: Mapping[str, Any]) -> pa.Table:
        """The rows of `table` whose feature timestamps are the midnights of `days`, ordered by day and entity.

        `relations`: Arrow datasets or tables by the names that the SQL uses. The result has the entity column,
        `feature_timestamp` (timestamp[us, UTC]), the features and `day` (date). Rows without an entity are left out.
        Raises ConfigError when the SQL does not run, or yields an entity twice for one day or rows of other days;
        DataContractError when it yields nulls, or numbers that are not finite as float32.
        """
        entity = self._tables[table]
        query = f'SELECT * FROM ({self._queries[table]}\n) WHERE "{entity}" IS NOT NULL ORDER BY day, "{entity}"'
        found = self._execute(table, query, days, relations)
        self._check_rows(table, entity, days, found)
        return self._with_timestamps(entity, found)

    def _parameters(self, table: str) -> set[str]:
        try:
            return self._engine.parameters(self._queries[table])
        except SqlError as error:
            raise self._not_a_select(table, error) from error

    def _not_a_select(self, table: str, error: SqlError) -> ConfigError:
        return ConfigError(f"Query {table!r} of {self.path} is not one SELECT: {error}", "Correct the SQL.")

    def _execute(self, table: str, query: str, days: Days, relations: Mapping[str, Any]) -> pa.Table:
        given = {"start": days.start, "end": days.end}
        wanted = {name: given[name] for name in self._parameters(table) if name in given}
        try:
            return self._engine.execute(query, wanted, relations)
        except SqlError as error:
            raise ConfigError(f"Query {table!r} of {self.path} failed: {error}", hint="Correct the SQL.") from error

    def _check_rows(self, table: str, entity: str, days: Days, found: pa.Table) -> None:
        query = f"Query {table!r} of {self.path}"
        if nulls := [name for name in found.column_names if found[name].null_count]:
            raise DataContractError(f"{query} yielded nulls in {nulls}", hint="Coalesce them, for example to 0.")
        features = [name for name in found.column_names if name not in (entity, "day")]
        if infinite := [name for name in features if not _is_finite(found[name])]:
            problem = f"{query} yielded NaN, Infinity or numbers beyond the range of FLOAT in {infinite}"
            raise DataContractError(problem, hint="Models take float32. Use nullif, isfinite or another scale.")
        if not found.num_rows:
            return
        first, last = pc.min_max(found["day"]).as_py().values()
        if first < days.start or last >= days.end:
            problem = f"{query} yielded rows of {first} … {last} for the days {days}"
            raise ConfigError(problem, hint="Restrict the rows to day >= $start AND day < $end.")
        counted = found.select([entity, "day"]).group_by([entity, "day"]).aggregate([([], "count_all")])
        if counted.num_rows < found.num_rows:
            [example] = counted.filter(pc.greater(counted["count_all"], 1)).slice(0, 1).to_pylist()
            where = f"{entity} {example[entity]!r} on {example['day']} {example['count_all']} times"
            raise ConfigError(
                f"{query} yielded {where}", hint="Group by the entity and the day, so that there is one row for each."
            )

    @staticmethod
    def _with_timestamps(entity: str, found: pa.Table) -> pa.Table:
        midnight = pc.cast(found["day"], pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
        features = [name for name in found.column_names if name not in (entity, "day")]
        columns = [found[entity], midnight, *(found[name] for name in features), found["day"]]
        return pa.table(columns, names=[entity, "feature_timestamp", *features, "day"])


def _is_finite(values: pa.ChunkedArray) -> bool:
    """Whether all `values` are finite as float32. True for types other than floats."""
    if not pt.is_floating(values.type) or not len(values):
        return True
    smallest, largest = pc.min_max(values).as_py().values()
    finite = pc.all(pc.is_finite(values)).as_py()
    return bool(finite) and smallest >= -_LARGEST and largest <= _LARGEST
