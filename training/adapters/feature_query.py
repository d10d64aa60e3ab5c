"""Batch features: run the SELECTs of `feature_repo/<source>.sql` and check what they yield.

docs/your-model.md describes such a file.
"""

import logging
import re
from collections.abc import Collection, Mapping
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from training.contract.base import Days
from training.contract.errors import ConfigError, DataContractError
from training.contract.names import more_than_once
from training.contract.registries import FEATURE_ENGINES
from training.contract.source_spec import SourceSpec
from training.domain.feature_engine import FeatureEngine, Relation, SqlError, in_this_process
from training.domain.feature_grid import TooLargeError, window_sums
from training.domain.feature_grid_sql import GRID, GridQueries, grid_queries
from training.domain.feature_sql import declared_queries

_SECTION = re.compile(r"^-- table: (\w+)\s*$", re.MULTILINE)
#: A quoted text or name, a comment, white space, a word or number, or any other character.
_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\s+|[\w.$]+|.""", re.DOTALL)
#: Where the database found a mistake, at the end of its message.
_LINE = re.compile(r"\n+LINE (?P<number>\d+): (?P<text>[^\n]*)\n.*", re.DOTALL)
#: The column with the time from which a feature row holds.
_TIME = "feature_timestamp"
_LARGEST = float(np.finfo(np.float32).max)

log = logging.getLogger("perennial")


class MissingColumnError(ConfigError):
    """A query lacks `column`, one that every feature table needs."""

    def __init__(self, column: str, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.column = column


class FeatureQueries:
    """The queries of one source. `engine`, a member of the registry FEATURE_ENGINES at `url`, runs them.

    `tables`: feature table → entity column. `generated`: table → its SELECT, for tables with declared aggregations. The
    other tables have their SELECT in the file `path`. `grids`: generated table → how to compute the same rows in a
    fraction of the time. `hourly`: the tables with a row per hour instead of day.
    Raises ConfigError when the file is missing, or does not have exactly one query for each of these tables.
    """

    def __init__(
        self,
        path: Path,
        tables: Mapping[str, str],
        engine: str = "duckdb",
        url: str = "",
        *,
        generated: Mapping[str, str] | None = None,
        grids: Mapping[str, GridQueries] | None = None,
        hourly: Collection[str] = (),
    ) -> None:
        self._engine: FeatureEngine = FEATURE_ENGINES.find(engine)(url)
        self.path, self._tables, self._hourly = path, tables, hourly
        self._generated, self._grids = dict(generated or {}), dict(grids or {})
        #: Table → the features that may be null, as the view of the table says.
        self.may_be_null: Mapping[str, Collection[str]] = {}
        written = [table for table in tables if table not in self._generated]
        texts = _written(path, written)
        self._queries = {**self._generated, **{table: text for table, (_, text) in texts.items()}}
        #: Table → the line of the file on which its text begins.
        self._lines = {table: line for table, (line, _) in texts.items()}

    @classmethod
    def of_source(cls, source: SourceSpec, folder: Path, engine: str = "duckdb", url: str = "") -> "FeatureQueries":
        """The queries of `source`, some of which may be written in `<folder>/<source>.sql`."""
        path, generated = folder / f"{source.name}.sql", declared_queries(source)
        grids, hourly = grid_queries(source), source.hourly_tables
        return cls(path, source.entities, engine, url, generated=generated, grids=grids, hourly=hourly)

    def _of(self, table: str) -> str:
        """The query in messages."""
        if table in self._generated:
            return f"The query {table!r} that is generated from {self.path.with_suffix('.yaml')}"
        return f"Query {table!r} of {self.path}"

    def sql(self, table: str) -> str:
        """The SELECT of `table`."""
        return self._queries[table].strip()

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

    def schema(self, table: str, relations: Mapping[str, Relation]) -> pa.Schema:
        """The columns of `run`'s result, without running the query. `relations` may be empty tables.

        Raises ConfigError when the SQL does not compile, does not take $start and $end, or lacks the entity or `day`.
        """
        entity = self._tables[table]
        if missing := {"start", "end"} - self._parameters(table):
            problem = f"{self._of(table)} does not use {sorted('$' + name for name in missing)}"
            raise ConfigError(problem, hint="Restrict the rows to day >= $start AND day < $end.")
        any_day = Days.ending(date(2000, 1, 2), 1)
        found = self._execute(table, f"SELECT * FROM ({self._queries[table]}\n) LIMIT 0", any_day, relations)
        repeated = {name.lower() for name in found.column_names}
        if len(repeated) < found.num_columns or (_TIME in repeated and table not in self._hourly):
            problem = f"{self._of(table)} yields the columns {found.column_names}"
            hint = "Names must differ by more than case. The step adds feature_timestamp to tables with daily rows."
            raise ConfigError(problem, hint)
        for name in (entity, "day", *([_TIME] if table in self._hourly else [])):
            if name not in found.column_names:
                problem = f"{self._of(table)} yields {found.column_names}, without {name!r}"
                hint = "It must yield the entity column, `day`, the features, and for hourly rows feature_timestamp."
                raise MissingColumnError(name, problem, hint)
        if not pt.is_date32(found["day"].type):
            problem = f"{self._of(table)} yields `day` as {found['day'].type}"
            raise ConfigError(problem, hint="Write CAST(… AS DATE) AS day.")
        if table in self._hourly and not pt.is_timestamp(found[_TIME].type):
            problem = f"{self._of(table)} yields `{_TIME}` as {found[_TIME].type}"
            raise ConfigError(problem, hint=f"Write date_trunc('hour', …) AS {_TIME}.")
        return self._with_timestamps(entity, found).schema

    def run(self, table: str, days: Days, relations: Mapping[str, Relation]) -> pa.Table:
        """The rows of `table` of the midnights or hours of `days`, ordered by time and entity.

        `relations`: by the names that the SQL uses. The result has the entity column,
        `feature_timestamp` (timestamp[us, UTC]), the features and `day` (date). Rows without an entity are left out.
        Raises ConfigError when the SQL does not run, or yields an entity twice for one time or rows of other days;
        DataContractError when it yields nulls where none may be, or numbers that are not finite as float32.
        """
        entity = self._tables[table]
        order = f'{_TIME if table in self._hourly else "day"}, "{entity}"'
        grid = self._grids.get(table)
        found = self._on_grid(table, grid, days, relations) if grid and self._engine.is_local else None
        if found is None:
            select = grid.select if grid and not self._engine.is_local else self._queries[table]
            query = f'SELECT * FROM ({select}\n) WHERE "{entity}" IS NOT NULL ORDER BY {order}'
            found = self._execute(table, query, days, relations)
        self._check_rows(table, entity, days, found)
        return self._with_timestamps(entity, found)

    def _on_grid(
        self, table: str, queries: GridQueries, days: Days, relations: Mapping[str, Relation]
    ) -> pa.Table | None:
        """The rows of the table's SELECT, computed on a grid in this process; None when numbers are too large."""
        relations = {name: in_this_process(each) for name, each in relations.items()}
        parts = self._execute(table, queries.parts_of(relations), days, relations)
        try:
            sums = window_sums(parts, queries.grid, days.start, days.end)
        except TooLargeError as error:
            log.info("%s: 64 bits are too few for its sums (%s), so they are made with 128", table, error)
            return None
        return self._execute(table, queries.features, days, {GRID: sums})

    def _parameters(self, table: str) -> set[str]:
        try:
            return self._engine.parameters(self._queries[table])
        except SqlError as error:
            raise self._not_a_select(table, error) from error

    def _not_a_select(self, table: str, error: SqlError) -> ConfigError:
        return self._failed(table, "is not one SELECT", error)

    def _failed(self, table: str, what: str, error: SqlError, hint: str = "Correct the SQL.") -> ConfigError:
        """The error with the line of the file instead of that of the query, in one line."""
        said, line = str(error), ""
        if (found := _LINE.search(said)) is not None:
            said = said[: found.start()]
            if table in self._lines:
                line = f" (line {self._lines[table] + int(found['number']) - 1})"
            else:
                line = f" at `{found['text'].strip()}`"
        return ConfigError(f"{self._of(table)} {what}{line}: {' '.join(said.split())}", hint)

    def _execute(self, table: str, query: str, days: Days, relations: Mapping[str, Relation]) -> pa.Table:
        given = {"start": days.start, "end": days.end}
        try:
            wanted = {name: given[name] for name in self._engine.parameters(query) if name in given}
            return self._engine.execute(query, wanted, relations)
        except SqlError as error:
            hint = "Correct the SQL."
            if table in self._generated and "INT128" in str(error):
                hint = "The digits of a sum or std do not fit. Lower `decimals`, or deliver the column in other units."
            raise self._failed(table, "failed", error, hint) from error

    def _check_rows(self, table: str, entity: str, days: Days, found: pa.Table) -> None:
        query = self._of(table)
        filled = [name for name in found.column_names if name not in self.may_be_null.get(table, ())]
        if nulls := [name for name in filled if found[name].null_count]:
            hint = "Coalesce them, for example to 0, or give the view's Field `tags={'default': 'null'}`."
            raise DataContractError(f"{query} yielded nulls in {nulls}", hint)
        features = [name for name in found.column_names if name not in (entity, "day", _TIME)]
        if infinite := [name for name in features if not _is_finite(found[name])]:
            problem = f"{query} yielded NaN, Infinity or numbers beyond the range of FLOAT in {infinite}"
            raise DataContractError(problem, hint="Models take float32. Use nullif, isfinite or another scale.")
        if not found.num_rows:
            return
        first, last = pc.min_max(found["day"]).as_py().values()
        if first < days.start or last >= days.end:
            problem = f"{query} yielded rows of {first} … {last} for the days {days}"
            raise ConfigError(problem, hint="Restrict the rows to day >= $start AND day < $end.")
        if table in self._hourly:
            self._check_hours(query, found)
        time = _TIME if table in self._hourly else "day"
        counted = found.select([entity, time]).group_by([entity, time]).aggregate([([], "count_all")])
        if counted.num_rows < found.num_rows:
            [example] = counted.filter(pc.greater(counted["count_all"], 1)).slice(0, 1).to_pylist()
            where = f"{entity} {example[entity]!r} on {example[time]} {example['count_all']} times"
            raise ConfigError(
                f"{query} yielded {where}", hint=f"Group by the entity and {time}, so that there is one row for each."
            )

    @staticmethod
    def _check_hours(query: str, found: pa.Table) -> None:
        times = found[_TIME].cast(pa.timestamp("us"))
        if not pc.all(pc.equal(times, pc.floor_temporal(times, unit="hour"))).as_py():
            raise ConfigError(f"{query} yielded rows that are not on the hour", f"Truncate {_TIME} to the hour.")
        if not pc.all(pc.equal(times.cast(pa.date32(), safe=False), found["day"])).as_py():
            raise ConfigError(f"{query} yielded rows whose day is not that of {_TIME}", f"Cast {_TIME} to a DATE.")

    @staticmethod
    def _with_timestamps(entity: str, found: pa.Table) -> pa.Table:
        """`found` with its columns as in the lake. A row without a time of its own gets its day's midnight."""
        times = found[_TIME] if _TIME in found.column_names else found["day"]
        times = pc.cast(times, pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
        features = [name for name in found.column_names if name not in (entity, "day", _TIME)]
        columns = [found[entity], times, *(found[name] for name in features), found["day"]]
        return pa.table(columns, names=[entity, _TIME, *features, "day"])


def _written(path: Path, tables: Collection[str]) -> dict[str, tuple[int, str]]:
    """Table → the line on which its query begins in the file `path`, and the query.

    Raises ConfigError when `tables` are not exactly those of the file.
    """
    if not path.is_file():
        if not tables:
            return {}
        hint = "Declare aggregations in the spec, or write a .sql file with a SELECT for each of these tables."
        raise ConfigError(f"No feature queries at {path}, but {sorted(tables)} have no aggregations", hint)
    text = path.read_text()
    parts, heads = _SECTION.split(text), _SECTION.finditer(text)
    if repeated := sorted(more_than_once(parts[1::2])):
        problem = f"{path} has a line `-- table: {repeated[0]}` twice, and only one query can fill a table"
        raise ConfigError(problem, hint="Remove or rename one of the two.")
    if sorted(parts[1::2]) != sorted(tables):
        problem = f"{path} fills the tables {sorted(parts[1::2])}, but the source spec has {sorted(tables)}"
        hint = (
            "Write one line `-- table: <name>` with its query for each table in features.tables without aggregations."
        )
        raise ConfigError(problem, hint)
    lines = [text.count("\n", 0, head.end()) + 1 for head in heads]
    return dict(zip(parts[1::2], zip(lines, parts[2::2], strict=True), strict=True))


def _is_finite(values: pa.ChunkedArray) -> bool:
    """Whether all `values` that are not null are finite as float32. True for types other than floats."""
    if not pt.is_floating(values.type) or values.null_count == len(values):
        return True
    smallest, largest = pc.min_max(values).as_py().values()
    finite = pc.all(pc.is_finite(values)).as_py()
    return bool(finite) and smallest >= -_LARGEST and largest <= _LARGEST
