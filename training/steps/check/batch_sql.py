"""Run the feature SQL on empty feeds and on sample feeds. Check its columns, its rows, and what it knows at a time."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from training.adapters.feature_query import FeatureQueries
from training.contract.base import Days, midnight
from training.contract.errors import StepError
from training.contract.feeds import EVENTS
from training.contract.problems import Problem, without_path
from training.contract.source_spec import SourceSpec
from training.domain.arrow_types import arrow_type, feed_schema
from training.domain.sample_feeds import sample_feeds

#: The first day of the sample feeds.
START = date(2026, 1, 5)
#: The number of feature days to check, and those of them (from 0) that are also computed alone.
DAYS, ALONE = 7, (1, 3, 6)
#: Of tables with hourly rows: which hour of each of these days.
HOURS = {1: 5, 3: 0, 6: 17}
#: Days of sample feeds after the last feature day, to find SQL that reads the future.
AFTER = 3
#: Sums of float64 in a different order differ by less.
TOLERANCE = 1e-6


@dataclass
class BatchSql:
    """The result of running a source's SQL on the sample `events`: the rows of `tables`, by name, and the problems.

    `schemas` also has the columns of tables whose rows have a problem.
    """

    schemas: dict[str, pa.Schema] = field(default_factory=dict)
    tables: dict[str, pa.Table] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    events: pa.Table | None = None


def check_sql(spec: SourceSpec, folder: Path, may_be_null: Mapping[str, Collection[str]]) -> BatchSql:
    """Run and check the query of every table, generated or in `<folder>/<source>.sql`, also after a problem in another.

    `may_be_null`: table → the features that its view allows to be null.
    """
    path = folder / f"{spec.name}.sql"
    history = spec.history_days
    before = history + min(history, 60) + 2
    found = BatchSql()
    queries, literals = None, []
    try:
        queries = FeatureQueries.of_source(spec, folder)
        queries.may_be_null = may_be_null
        literals = _literals(queries, spec)
    except StepError as error:
        what = without_path(error.message, str(path))
        found.problems.append(Problem(file=str(path), place="", what=what, fix=error.hint))
    feeds = sample_feeds(spec, START, before + DAYS + AFTER, literals)
    found.events = feeds[EVENTS]
    if queries is None:
        return found
    days = Days.ending(START + timedelta(days=before + DAYS), DAYS)
    for table in spec.entities:
        file = path.with_suffix(".yaml") if spec.features.tables[table].is_declared else path
        one = _Table(spec, file, table, queries, feeds, days)
        found.problems += one.problems()
        if one.schema is not None:
            found.schemas[table] = one.schema
        if one.rows is not None:
            found.tables[table] = one.rows
    return found


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
    ) -> None:
        self._spec, self._path, self._table, self._queries = spec, path, table, queries
        self._feeds, self._days = feeds, days
        self._entity = spec.entities[table]
        self._history_days = spec.history_of(table)
        self._is_hourly = table in spec.hourly_tables
        self.schema: pa.Schema | None = None
        self.rows: pa.Table | None = None

    def problems(self) -> list[Problem]:
        empty: dict[str, pa.Table] = {name: feed_schema(feed).empty_table() for name, feed in self._spec.feeds.items()}
        try:
            self.schema = self._queries.schema(self._table, empty)
        except StepError as error:
            reads = " and ".join(f"{feed} ({', '.join(s.columns)})" for feed, s in self._spec.feeds.items())
            fix = f"{error.hint} It can read {reads}. It must yield {self._entity}, day (a DATE) and the features."
            return [self._failed(error.message, fix)]
        found = [*self._columns(self.schema), *self._clock()]
        try:
            rows = self._queries.run(self._table, self._days, self._all())
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
        return self._as_of(rows)

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

    def _as_of(self, together: pa.Table) -> list[Problem]:
        """The rows of a time must not change when later rows, and rows older than the history, are removed."""
        for n in ALONE:
            day = midnight(self._days.start + timedelta(days=n)) + timedelta(hours=HOURS[n] if self._is_hourly else 0)
            want = _at(together, day)
            try:
                alone = self._run(day, self._known(day, self._recent(day)))
                if found := self._differences(want, alone, day, "in a span of days", "alone"):
                    return self._explained(day, found)
            except StepError as error:
                return [self._failed(f"fails where a day is computed alone: {error.message}", error.hint)]
        return []

    def _explained(self, day: datetime, differences: str) -> list[Problem]:
        """The problems that explain the differences on `day`: which of the removed rows change its result."""
        alone = self._run(day, self._all())
        if again := self._differences(alone, self._run(day, self._all()), day, "at first", "then"):
            what = f"yields other rows when it runs again: {again}"
            return [
                self._problem(
                    what,
                    "Remove random(), now() and current_date; add ORDER BY if an aggregate needs it.",
                )
            ]
        tests: list[tuple[dict[str, pa.Table], str, str]] = [
            *(self._of_the_future(day, feed) for feed in self._feeds),
            (
                self._recent(day),
                f"uses events or labels from more than its history_days ({self._history_days}) ago",
                f"Raise features.tables.{self._table}.history_days to the longest window plus the label delay plus the"
                " day on which an entity leaves the window, or shorten the window.",
            ),
        ]
        found = [
            self._problem(f"{what}: {differing}", fix)
            for relations, what, fix in tests
            if (differing := self._differences(alone, self._run(day, relations), day, "with them", "without"))
        ]
        if found:
            return found
        what = f"yields different rows for one day than for several days: {differences}"
        fix = "Use $start and $end only to select the days to yield, not in the windows."
        return [self._problem(what, fix)]

    def _of_the_future(self, day: datetime, feed: str) -> tuple[dict[str, pa.Table], str, str]:
        """The relations without the rows of `feed` from `day` on, and the problem when they make a difference."""
        unit, time = "day", f"CAST({self._spec.feeds[feed].time_column} AS DATE) < day."
        if self._is_hourly:
            unit, time = "hour", f"date_trunc('hour', {self._spec.feeds[feed].time_column}) < feature_timestamp."
        start = f"at the start of {_time_text(day)}"
        what, fix = f"uses {feed} that were not yet reported {start}", "Use only labels reported"
        if feed == EVENTS:
            what, fix = f"uses events of the {unit} itself or later, which are not known {start}", "Use only events"
        return self._known(day, self._all(), feeds=(feed,)), what, f"{fix} before the {unit}: {time}"

    def _run(self, time: datetime, relations: dict[str, pa.Table]) -> pa.Table:
        """The rows of `time`, a midnight or an hour."""
        day = time.date()
        return _at(self._queries.run(self._table, Days(start=day, end=day + timedelta(days=1)), relations), time)

    def _all(self) -> dict[str, pa.Table]:
        return dict(self._feeds)

    def _known(
        self, day: datetime, relations: dict[str, pa.Table], feeds: tuple[str, ...] | None = None
    ) -> dict[str, pa.Table]:
        """`relations` without the rows of `feeds` (None: of all) from `day` on."""
        return self._filtered(
            relations, feeds or tuple(self._feeds), lambda times: pc.less(times, pa.scalar(day, times.type))
        )

    def _recent(self, day: datetime) -> dict[str, pa.Table]:
        """The rows that the features step reads."""
        first = midnight(day.date() - timedelta(days=self._history_days))
        return self._filtered(
            self._all(), tuple(self._feeds), lambda times: pc.greater_equal(times, pa.scalar(first, times.type))
        )

    def _filtered(
        self, relations: dict[str, pa.Table], feeds: tuple[str, ...], keep: Callable[[pa.ChunkedArray], Any]
    ) -> dict[str, pa.Table]:
        times = {feed: relations[feed][self._spec.feeds[feed].time_column] for feed in feeds}
        return relations | {feed: relations[feed].filter(keep(times[feed])) for feed in feeds}

    def _differences(self, left: pa.Table, right: pa.Table, day: datetime, *names_of_both: str) -> str:
        """The columns in which two tables of one day differ, with an example. Empty: none.

        `names_of_both`: how the message calls `left` and `right`.
        """
        # Columns that are not numbers are reported by the comparison with the feature view.
        names = [name for name in _features(left.schema, self._entity) if _is_number(left.schema.field(name).type)]
        # A missing row differs in all columns.
        frames = [table.select([self._entity, *names]).to_pandas().set_index(self._entity) for table in (left, right)]
        frames = [frame[~frame.index.duplicated()].astype(np.float64) for frame in frames]
        index = frames[0].index.union(frames[1].index)
        one, other = (frame.reindex(index) for frame in frames)
        same = pd.DataFrame(
            np.isclose(one, other, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True), index=index, columns=names
        )
        differing = [name for name in names if not same[name].all()]
        if not differing:
            return ""
        entity = same.index[~same[differing[0]]][0]
        values = [
            f"{_value_text(one_of.loc[entity, differing[0]])} {name}"
            for one_of, name in zip((one, other), names_of_both, strict=True)
        ]
        verb = "differs" if len(differing) == 1 else "differ"
        example = f"{differing[0]} of {self._entity} {entity} is {' and '.join(values)}"
        return f"{', '.join(differing)} {verb} on {_time_text(day)}; {example}"


def _at(rows: pa.Table, time: datetime) -> pa.Table:
    return rows.filter(pc.field("feature_timestamp") == time)


def _time_text(time: datetime) -> str:
    """The day of a midnight; day and hour of another time."""
    return f"{time:%Y-%m-%d %H:%M}" if time.hour else str(time.date())


def _features(schema: pa.Schema, entity: str) -> list[str]:
    return [name for name in schema.names if name not in (entity, "feature_timestamp", "day")]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_floating(kind) or pt.is_integer(kind) or pt.is_boolean(kind) or pt.is_decimal(kind))


def _value_text(value: float) -> str:
    return "absent" if np.isnan(value) else f"{value:g}"
