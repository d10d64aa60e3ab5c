"""Run the feature SQL on empty feeds and on sample feeds. Check its columns, its rows, and what it knows at a time."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from training.adapters.feature_query import FeatureQueries, MissingColumnError
from training.contract.base import Days, midnight
from training.contract.errors import StepError
from training.contract.feeds import EVENTS
from training.contract.problems import Problem, without_path
from training.contract.source_spec import SourceSpec
from training.domain.arrow_types import arrow_type, feed_schema
from training.domain.sample_feeds import sample_feeds
from training.settings import StateSettings
from training.steps.check.conditions import check_conditions
from training.steps.check.landed import find_landed_leakage
from training.steps.check.leakage import Leakage

#: The first day of the sample feeds.
START = date(2026, 1, 5)
#: The number of feature days to check. Each is also computed alone; of a table with hourly rows one hour of each day.
DAYS = 7
HOURS = dict(enumerate((9, 5, 21, 0, 13, 1, 17)))
#: Days of sample feeds after the last feature day, to find SQL that reads the future.
AFTER = 3


@dataclass
class BatchSql:
    """The result of running a source's SQL on the sample `events`: the rows of `tables`, by name, and the problems.

    `schemas` also has the columns of tables whose rows have a problem.
    """

    schemas: dict[str, pa.Schema] = field(default_factory=dict)
    tables: dict[str, pa.Table] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    events: pa.Table | None = None
    #: The tables whose SQL does not yield the entity of the spec.
    without_entity: set[str] = field(default_factory=set)


def check_sql(spec: SourceSpec, settings: StateSettings, never_null: Mapping[str, Collection[str]]) -> BatchSql:
    """Run and check the query of every table, generated or in `<source>.sql`, also after a problem in another.

    Tables that pass on generated feeds are checked for leakage on the landed ones. `never_null`: table → the features
    that its view does not allow to be null. Features that the view does not have are not checked for nulls.
    """
    folder = settings.feature_repo
    path = folder / f"{spec.name}.sql"
    history = spec.history_days
    before = history + min(history, 60) + 2
    found = BatchSql()
    queries, literals = None, []
    try:
        queries = FeatureQueries.of_source(spec, folder)
        literals = _literals(queries, spec)
    except StepError as error:
        what = without_path(error.message, str(path))
        found.problems.append(Problem(file=str(path), place="", what=what, fix=error.hint))
    feeds = sample_feeds(spec, START, before + DAYS + AFTER, literals)
    found.events = feeds[EVENTS]
    if queries is None:
        return found
    days = Days.ending(START + timedelta(days=before + DAYS), DAYS)
    conditions = check_conditions(spec, str(path.with_suffix(".yaml")), feeds)
    for table in spec.entities:
        if conditions[table]:
            found.problems += conditions[table]
            continue
        one = _Table(spec, _file_of(spec, table, path), table, queries, feeds, days, never_null.get(table, ()))
        found.problems += one.problems()
        found.without_entity |= {table} if one.lacks_entity else set()
        if one.schema is not None:
            found.schemas[table] = one.schema
        if one.rows is not None:
            found.tables[table] = one.rows
    reported = {problem.place for problem in found.problems}
    passed = [table for table in found.tables if table not in reported]
    for table, (what, fix) in find_landed_leakage(spec, passed, queries, settings).items():
        file = str(_file_of(spec, table, path))
        found.problems.append(Problem(file=file, place=table, what=what, fix=fix))
    return found


def _file_of(spec: SourceSpec, table: str, path: Path) -> Path:
    """The file that decides the query of `table`. `path`: that of the written queries."""
    return path.with_suffix(".yaml") if spec.features.tables[table].is_declared else path


def _literals(queries: FeatureQueries, spec: SourceSpec) -> list[str | float]:
    """The constants in the SQL. Sample rows contain some of them, because a filter might drop all rows otherwise."""
    tokens = [token for table in spec.entities for token in queries.tokens(table)]
    texts = [token[1:-1].replace("''", "'") for token in tokens if token.startswith("'")]
    numbers = [float(token) for token in tokens if re.fullmatch(r"\d+(\.\d+)?", token)]
    return [*dict.fromkeys(texts), *dict.fromkeys(numbers)]


class _Table:
    """Checks the query of one feature table by running it in several ways."""

    def __init__(
        self,
        spec: SourceSpec,
        path: Path,
        table: str,
        queries: FeatureQueries,
        feeds: dict[str, pa.Table],
        days: Days,
        never_null: Collection[str],
    ) -> None:
        self._spec, self._path, self._table, self._queries = spec, path, table, queries
        self._feeds, self._days, self._never_null = feeds, days, never_null
        self._entity = spec.entities[table]
        self._is_hourly = table in spec.hourly_tables
        self.schema: pa.Schema | None = None
        self.rows: pa.Table | None = None
        self.lacks_entity = False

    def problems(self) -> list[Problem]:
        empty: dict[str, pa.Table] = {name: feed_schema(feed).empty_table() for name, feed in self._spec.feeds.items()}
        try:
            self.schema = self._queries.schema(self._table, empty)
        except StepError as error:
            self.lacks_entity = isinstance(error, MissingColumnError) and error.column == self._entity
            reads = " and ".join(f"{feed} ({', '.join(s.columns)})" for feed, s in self._spec.feeds.items())
            fix = f"{error.hint} It can read {reads}. It must yield {self._entity}, day (a DATE) and the features."
            return [self._failed(error.message, fix)]
        nullable = [name for name in _features(self.schema, self._entity) if name not in self._never_null]
        self._queries.may_be_null = {**self._queries.may_be_null, self._table: nullable}
        found = [*self._columns(self.schema), *self._clock(), *self._sampling()]
        try:
            rows = self._queries.run(self._table, self._days, self._feeds)
        except StepError as error:
            return [*found, self._failed(error.message, error.hint)]
        if not rows.num_rows:
            what = (
                f"yields no row for {self._days}, from {self._feeds[EVENTS].num_rows} sample events before and in them"
            )
            fix = "Check the WHERE and JOIN conditions, and how the SQL uses $start and $end."
            found.append(self._problem(what, fix, sure=False))
        if found:
            return found
        self.rows = rows
        return self._leakage(rows)

    def _problem(self, what: str, fix: str, *, sure: bool = True) -> Problem:
        return Problem(file=str(self._path), place=self._table, what=what, fix=fix, sure=sure)

    def _failed(self, message: str, fix: str) -> Problem:
        return self._problem(without_path(message, str(self._path)), fix)

    def _columns(self, schema: pa.Schema) -> list[Problem]:
        found = []
        if not _features(schema, self._entity):
            what = f"yields no features, only {', '.join(schema.names)}"
            found.append(self._problem(what, f"Yield {self._entity}, day and at least one feature."))
        kind, wanted = schema.field(self._entity).type, arrow_type(self._spec.request_columns[self._entity])
        if kind != wanted:
            what = f"yields {self._entity} as {kind}, but events have it as {wanted}"
            found.append(self._problem(what, f"Yield {self._entity} as it is, without a cast."))
        return found

    def _clock(self) -> list[Problem]:
        """The current time must not be used, because feature rows of past days are computed again later."""
        columns = {name.lower() for feed in self._spec.feeds.values() for name in feed.columns}
        if not (used := [each for each in self._queries.clock_functions(self._table) if each not in columns]):
            return []
        what = f"depends on the current time: it uses {', '.join(used)}"
        return [self._problem(what, "Count from the feature day (day, $start, $end) instead.")]

    def _sampling(self) -> list[Problem]:
        """Rows drawn by chance. Running the SQL again does not show it reliably: few rows may all be drawn."""
        words = [token.upper() for token in self._queries.tokens(self._table)]
        if "TABLESAMPLE" not in words and ("USING", "SAMPLE") not in pairwise(words):
            return []
        what = "depends on chance: it uses USING SAMPLE or TABLESAMPLE"
        return [self._problem(what, "Read all rows, because days are computed again and must give the same rows.")]

    def _leakage(self, together: pa.Table) -> list[Problem]:
        hours = HOURS if self._is_hourly else dict.fromkeys(HOURS, 0)
        times = [midnight(self._days.start + timedelta(days=n)) + timedelta(hours=hour) for n, hour in hours.items()]
        try:
            found = Leakage(self._spec, self._table, self._queries, self._feeds).find(together, times)
        except StepError as error:
            return [self._failed(f"fails where a day is computed alone: {error.message}", error.hint)]
        return [self._problem(*found)] if found else []


def _features(schema: pa.Schema, entity: str) -> list[str]:
    return [name for name in schema.names if name not in (entity, "feature_timestamp", "day")]
