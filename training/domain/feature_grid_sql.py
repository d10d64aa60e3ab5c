"""The SELECTs around a grid (feature_grid.py): one that yields the parts of each event, one that makes the features.

Together they compute the same rows as the table's one SELECT (feature_sql.py), for tables whose aggregations are all
sums over events. Between the two, sums over windows are differences on a grid, which take a fraction of the CPU time.
Engines in another process get the sums as SQL as well (feature_sums_sql.py), and so all in one SELECT.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from training.contract.columns import Column
from training.contract.feature_tables import FeatureTable, window_hours
from training.contract.source_spec import SourceSpec
from training.domain.arrow_types import all_distinct
from training.domain.feature_grid import CORRECTED, ENTITY, MOMENT, REPORTED, Grid, PartSums
from training.domain.feature_sql import ADDED, Generator, LabelFeed, Part, label_feed, relation
from training.domain.feature_sums_sql import sums_relations
from training.domain.sql_names import quoted

#: The relation of the sums over windows.
GRID = "grid"


@dataclass(frozen=True)
class GridQueries:
    """How to compute one table."""

    grid: Grid
    #: Yields what each event adds, with a row for each report of its label.
    parts: str
    #: As `parts`, where no event has several reports.
    parts_of_single_reports: str
    #: Yields the columns of the feature table from the relation GRID, row by row in its order.
    features: str
    #: All of it in SQL: yields the columns of the feature table from the feeds.
    select: str
    #: The feed of the table's label, and its column with the event's id; None without a label.
    reports: tuple[str, str] | None

    def parts_of(self, relations: Mapping[str, Any]) -> str:
        """The SELECT of the parts for these `relations` (Arrow datasets or tables)."""
        if self.reports is None:
            return self.parts
        feed, identity = self.reports
        rows = relations[feed]
        if isinstance(rows, pa.Table) and all_distinct(rows[identity]):
            return self.parts_of_single_reports
        return self.parts


def grid_queries(source: SourceSpec) -> dict[str, GridQueries]:
    """Feature table → how to compute it on a grid, for the tables of `source` for which that is possible."""
    return {
        name: table_queries(table, source.events.columns, source.events.time_column, label_feed(source, table.label))
        for name, table in source.features.tables.items()
        if table.is_declared and all(each.function in ADDED for each in table.aggregations.values())
    }


def table_queries(
    table: FeatureTable, columns: Mapping[str, Column], time_column: str, label: LabelFeed | None
) -> GridQueries:
    """Takes the arguments of `feature_sql`. All functions of the table must be among ADDED."""
    return _GridGenerator(table, columns, time_column, label).queries()


class _GridGenerator(Generator):
    def __init__(
        self, table: FeatureTable, columns: Mapping[str, Column], time_column: str, label: LabelFeed | None
    ) -> None:
        super().__init__(table, columns, time_column, label)
        #: Part → its windows in steps.
        self._windows: dict[str, set[int]] = {}

    def queries(self) -> GridQueries:
        table = self._table
        time = f"CAST({MOMENT} AS DATE) AS day, {MOMENT} AS feature_timestamp" if self._hourly else f"{MOMENT} AS day"
        columns = [f"{ENTITY} AS {quoted(table.entity)}", time]
        for feature in table.features():
            value = self._value(feature.aggregation, feature.window)
            columns.append(f"{value}::FLOAT AS {quoted(feature.name)}")
        sums = [
            PartSums(_bare(name), tuple(sorted(self._windows[name])), part.function == "count")
            for part, name in self._parts.items()
        ]
        grid = Grid(
            step_hours=table.step_hours,
            delay=self._delay,
            longest=table.longest_window_hours() // table.step_hours,
            sums=tuple(sums),
        )
        reports = None if self._label is None else (self._label.relation, self._label.id_column)
        parts, features = self._of_events(single=False), f"SELECT {', '.join(columns)} FROM"
        relations = sums_relations(grid, parts, is_labelled=self._label is not None)
        select = f"WITH {', '.join(relations)}\n{features} {GRID}"
        single = self._of_events(single=True)
        return GridQueries(grid, parts, single, f"{features} ({self._wide(grid)})", select, reports)

    def _wide(self, grid: Grid) -> str:
        """GRID with whole sums of 128 bits, as those of the one SELECT. Sums of decimals come as decimals."""
        whole = {_bare(name) for part, name in self._parts.items() if part.is_whole}
        columns = [ENTITY, MOMENT]
        for each in grid.sums:
            names = [quoted(f"{each.name}_{window}") for window in each.windows]
            columns += [f"CAST({name} AS HUGEINT) AS {name}" if each.name in whole else name for name in names]
        return f"SELECT {', '.join(columns)} FROM {GRID}"

    def _over_window(self, part: Part, name: str, window: str) -> str:
        steps = window_hours(window) // self._table.step_hours
        self._windows.setdefault(name, set()).add(steps)
        return quoted(f"{_bare(name)}_{steps}")

    def _of_events(self, single: bool) -> str:
        columns = [f"{self._entity} AS {ENTITY}", f"{self._time} AS {MOMENT}"]
        known = []
        if self._label:
            columns += [f"_known.{name} AS {name}" for name in (REPORTED, CORRECTED)]
            known = self._reports(self._label, single)
        columns += [f"{_of_event(part)} AS {name}" for part, name in self._parts.items()]
        where = f"WHERE {self._entity} IS NOT NULL AND {self._time} IS NOT NULL"
        select = f"SELECT {', '.join(columns)} {' '.join(self._source())} {where}"
        return f"WITH {', '.join(known)}\n{select}" if known else select

    def _reports(self, label: LabelFeed, single: bool) -> list[str]:
        """The labels as in `_known`, with times instead of days or hours."""
        column, at, identity = quoted(label.column), quoted(label.reported_at), quoted(label.id_column)
        lines = [f"{identity} AS id", f"{column} AS label", f"{at} AS {REPORTED}"]
        if single:
            lines.append(f"CAST(NULL AS TIMESTAMP) AS {CORRECTED}")
            return [relation("_known", lines, f"FROM {quoted(label.relation)}")]
        lines.append(f"lead({at}) OVER reports AS {CORRECTED}")
        window = f"WINDOW reports AS (PARTITION BY {identity} ORDER BY {at}, {column})"
        return [relation("_known", lines, f"FROM {quoted(label.relation)}", window)]


def _bare(name: str) -> str:
    """`name` without its quotes."""
    return name[1:-1].replace('""', '"')


def _of_event(part: Part) -> str:
    """The SQL of what one event adds to the part: for a count whether it counts, for a sum its number or null."""
    if part.function == "count":
        conditions = [] if part.value == "*" else [f"{part.value} IS NOT NULL"]
        conditions += [f"({part.condition})"] if part.condition else []
        return " AND ".join(conditions) or "true"
    return f"CASE WHEN {part.condition} THEN {part.value} END" if part.condition else part.value
