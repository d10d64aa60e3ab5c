"""The SELECT of a feature table with declared aggregations, in the convention of `feature_repo/<source>.sql`.

Events are summed per entity and per day or hour (a bucket). Each sum is copied to all later times whose windows include
its bucket, and to one time more than the longest window, so that an entity without new events gets a last row of
defaults. Without that row its old numbers would stay the newest. With a label, an event counts from the first day or
hour after the report of its label on, and a correction from the one after the correction's report.

All sums are exact, of integers and decimals. So the order of rows does not matter, and one day computed alone has the
same values as among others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Final, Literal

from training.contract.columns import Column
from training.contract.conditions import is_never_null, qualified
from training.contract.feature_tables import Aggregation, FeatureTable, window_hours
from training.contract.feeds import EVENTS
from training.contract.source_spec import SourceSpec
from training.domain.sql_names import quoted

#: Decimal digits of DuckDB's integers of 64 and of 128 bits.
_DIGITS_64, _DIGITS_128 = 18, 38
#: Microseconds.
_HOUR = 3_600_000_000

#: Functions whose values over a window are sums over its events. Those of the others are not.
ADDED: Final = frozenset({"count", "sum", "mean", "std", "share"})


@dataclass(frozen=True)
class Part:
    """An aggregate over the events of a bucket, of which the features of all windows are made."""

    function: Literal["count", "sum", "min", "max"]
    #: SQL of one event.
    value: str = "*"
    condition: str = ""
    #: Whether a sum is of whole numbers, not of decimals.
    is_whole: bool = True

    def where(self, condition: str) -> "Part":
        """Of the events that meet `condition` only."""
        return replace(self, condition=condition)

    @property
    def sql(self) -> str:
        found = f"{self.function}({self.value})"
        return f"{found} FILTER (WHERE {self.condition})" if self.condition else found

    @property
    def merge(self) -> str:
        """The aggregate that makes one bucket of several."""
        return "sum" if self.function == "count" else self.function


#: A part and what to call it → the SQL of it over a window.
_Merged = Callable[[Part, str], str]


@dataclass(frozen=True)
class LabelFeed:
    """Where the labels of events are reported."""

    relation: str
    column: str
    #: The columns of the label feed and of the events that are equal for an event and its label.
    id_column: str
    event_id: str
    #: The column with the time of the report.
    reported_at: str
    delay_days: int
    #: The column of the label feed.
    definition: Column


def declared_queries(source: SourceSpec) -> dict[str, str]:
    """Feature table → its SELECT, for the tables of `source` with declared aggregations."""
    return {
        name: feature_sql(table, source.events.columns, source.events.time_column, label_feed(source, table.label))
        for name, table in source.features.tables.items()
        if table.is_declared
    }


def label_feed(source: SourceSpec, name: str | None) -> LabelFeed | None:
    label = None if name is None else source.label(name)
    if label is None or label.feed == EVENTS:
        return None
    definition = source.feeds[label.feed].columns[label.column]
    return LabelFeed(
        relation=label.feed,
        column=label.column,
        id_column=label.id_column,
        event_id=source.id_column,
        reported_at=label.time_column,
        delay_days=label.delay_days,
        definition=definition,
    )


def feature_sql(
    table: FeatureTable, columns: Mapping[str, Column], time_column: str, label: LabelFeed | None = None
) -> str:
    """The SELECT that computes `table` from the relation `events`, which has `columns`.

    `label`: the feed of the table's label; None when it has no label, or one that stands in the events themselves.
    It yields the entity, `day`, for hourly tables also `feature_timestamp`, and the features as FLOAT.
    """
    return Generator(table, columns, time_column, label).select()


class Generator:
    """Makes the SQL of one table. `feature_grid_sql.py` derives another one, which shares what defines the values."""

    def __init__(
        self, table: FeatureTable, columns: Mapping[str, Column], time_column: str, label: LabelFeed | None
    ) -> None:
        self._table, self._label = table, label
        self._columns = {**columns, **({label.column: label.definition} if label else {})}
        self._time, self._entity = f"events.{quoted(time_column)}", f"events.{quoted(table.entity)}"
        self._hourly = table.every == "1h"
        self._delay = (label.delay_days if label else 0) * 24 // table.step_hours
        self._names = {name: f"events.{quoted(name)}" for name in columns}
        if label:
            self._names[label.column] = "_known.label"
        #: The parts that the features need → their quoted names.
        self._parts: dict[Part, str] = {}

    def select(self) -> str:
        table = self._table
        distinct = [name for name, each in table.aggregations.items() if each.function == "distinct_count"]
        columns = [
            f"{self._value(feature.aggregation, feature.window)}::FLOAT AS {quoted(feature.name)}"
            for feature in table.features()
            if feature.aggregation not in distinct
        ]
        relations = [*self._known(), self._buckets(), self._spread(), self._summed(columns)]
        relations += [relation for name in distinct for relation in self._distinct(name)]
        time = "CAST(moment AS DATE) AS day,\n    moment AS feature_timestamp" if self._hourly else "moment AS day"
        chosen = [f"entity AS {quoted(table.entity)}", time]
        for feature in table.features():
            name = quoted(feature.name)
            if feature.aggregation in distinct:
                window = f"distinct_{feature.aggregation}.{quoted(feature.window)}"
                name = f"{_filled(window, feature.default)}::FLOAT AS {name}"
            chosen.append(name)
        selected = ",\n    ".join(chosen)
        joins = "".join(f" LEFT JOIN distinct_{name} USING (entity, moment)" for name in distinct)
        return f"WITH {', '.join(relations)}\nSELECT\n    {selected}\nFROM summed{joins}\n"

    def _known(self) -> list[str]:
        """The labels, each with the times of its report and of the next report about the same event."""
        if not (label := self._label):
            return []
        column, at = quoted(label.column), quoted(label.reported_at)
        lines = [f"{quoted(label.id_column)} AS id", f"{column} AS label", f"{self._bucket(at)} AS reported"]
        lines.append(f"lead({self._bucket(at)}, 1, 'infinity') OVER reports AS corrected")
        window = f"reports AS (PARTITION BY {quoted(label.id_column)} ORDER BY {at}, {column})"
        return [relation("_known", lines, f"FROM {quoted(label.relation)}", f"WINDOW {window}")]

    def _bucket(self, time: str) -> str:
        return f"date_trunc('hour', CAST({time} AS TIMESTAMP))" if self._hourly else f"CAST({time} AS DATE)"

    def _source(self) -> list[str]:
        """Events and labels, in clauses that follow the columns of a SELECT."""
        if not (label := self._label):
            return ["FROM events"]
        return [f"FROM events LEFT JOIN _known ON events.{quoted(label.event_id)} = _known.id"]

    def _times(self) -> list[str]:
        """The columns of a bucket."""
        known = ["_known.reported", "_known.corrected"] if self._label else []
        return [f"{self._entity} AS entity", f"{self._bucket(self._time)} AS bucket", *known]

    def _buckets(self) -> str:
        """The sums over the events of each entity and bucket."""
        sums = [f"{part.sql} AS {name}" for part, name in self._parts.items()]
        return relation("buckets", [*self._times(), *sums], *self._source(), "GROUP BY ALL")

    def _spread(self) -> str:
        """The sums of each bucket at each time whose windows they are in; null as long as the labels are not known."""
        names = list(self._parts.values())
        if self._label:
            known = f"reported < {self._moment} AND {self._moment} <= corrected"
            names = [f"CASE WHEN {known} THEN {name} END AS {name}" for name in names]
        lines = ["entity", f"{self._moment} AS moment", f"{self._age} AS age", *names]
        return relation("spread", lines, f"FROM buckets, {self._ages()}", f"WHERE {self._wanted()}")

    @property
    def _moment(self) -> str:
        return "bucket + INTERVAL 1 HOUR * age" if self._hourly else "bucket + age"

    @property
    def _age(self) -> str:
        return f"age - {self._delay}" if self._delay else "age"

    def _ages(self) -> str:
        end = self._table.longest_window_hours() // self._table.step_hours + self._delay + 2
        return f"(SELECT CAST(range AS INTEGER) AS age FROM range(1, {end}))"

    def _wanted(self) -> str:
        return f"{self._moment} >= $start AND {self._moment} < $end"

    def _within(self, window: str) -> str:
        """The condition that a bucket is in the window."""
        steps = window_hours(window) // self._table.step_hours
        return f"age BETWEEN 1 AND {steps}" if self._delay else f"age <= {steps}"

    def _summed(self, columns: list[str]) -> str:
        return relation("summed", ["entity", "moment", *columns], "FROM spread", "GROUP BY entity, moment")

    def _value(self, name: str, window: str) -> str:
        """The SQL of one feature, from the parts of the buckets in its window."""
        each = self._table.aggregations[name]

        def merged(part: Part, called: str) -> str:
            if each.condition is not None and each.function != "share":
                part, called = part.where(self._condition(each)), f"{called}_of_{name}"
            return self._over_window(part, self._part(part, called), window)

        return _filled(self._merged(name, each, merged), each.value_without_events(window))

    def _over_window(self, part: Part, name: str, window: str) -> str:
        """The SQL of a part, called `name`, over all buckets in the window."""
        return f"{part.merge}({name}) FILTER (WHERE {self._within(window)})"

    def _merged(self, name: str, each: Aggregation, merged: _Merged) -> str:
        if each.function == "count":
            counted = merged(Part("count"), "n")
            return counted if each.default == 0 else f"nullif({counted}, 0)"
        if each.function == "time_since_last":
            last = merged(Part("max", f"epoch_us({self._time})"), "last")
            return f"(epoch_us(CAST(moment AS TIMESTAMP)) - {last}) / {_HOUR}"
        if each.function == "share":
            return self._share(name, each, merged)
        assert each.column is not None
        column, definition = self._names[each.column], self._columns[each.column]
        if each.function == "min" or each.function == "max":
            return merged(Part(each.function, column), f"{each.function}_{each.column}")
        if each.function == "std":
            return self._deviation(each, merged)
        exact = Part("sum", _exact(column, definition, each.decimals), is_whole=definition.kind == "int")
        added = merged(exact, f"sum_{each.column}")
        return added if each.function == "sum" else f"{added} / {self._counted(each, merged)}"

    def _share(self, name: str, each: Aggregation, merged: _Merged) -> str:
        condition = self._condition(each)
        nullable = {column: definition.nullable for column, definition in self._columns.items()}
        judged, called = Part("count"), "n"
        if not is_never_null(each.condition or "", nullable):
            judged, called = judged.where(f"({condition}) IS NOT NULL"), f"judged_{name}"
        hits = merged(Part("count", condition=condition), f"hits_{name}")
        return f"{hits} / nullif({merged(judged, called)}, 0)"

    def _counted(self, each: Aggregation, merged: _Merged) -> str:
        """The number of values that are not null."""
        assert each.column is not None
        if not self._columns[each.column].nullable:
            return merged(Part("count"), "n")
        return merged(Part("count", self._names[each.column]), f"n_{each.column}")

    def _deviation(self, each: Aggregation, merged: _Merged) -> str:
        """The standard deviation of a sample, from the exact sums of whole numbers and of their squares."""
        assert each.column is not None
        is_whole = self._columns[each.column].kind == "int"
        digits, column = 0 if is_whole else each.decimals, self._names[each.column]
        whole = f"CAST({column if is_whole else f'round(CAST({column} AS DOUBLE) * 1e{digits})'} AS HUGEINT)"
        n = self._counted(each, merged)
        total = merged(Part("sum", whole), f"whole_{each.column}")
        squares = merged(Part("sum", f"{whole} * {whole}"), f"squares_{each.column}")
        return f"sqrt(({n} * {squares} - {total} * {total}) / nullif({n} * ({n} - 1), 0)) / 1e{digits}"

    def _part(self, part: Part, called: str) -> str:
        """The quoted name of a part of each bucket."""
        if part not in self._parts:
            taken = self._parts.values()
            names = (quoted(called if i == 1 else f"{called}_{i}") for i in count(1))
            self._parts[part] = next(name for name in names if name not in taken)
        return self._parts[part]

    def _distinct(self, name: str) -> list[str]:
        """The counts of distinct values: a value is in all windows that its newest event is in."""
        each = self._table.aggregations[name]
        assert each.column is not None
        column = self._names[each.column]
        condition = f" AND ({self._condition(each)})" if each.condition else ""
        known = f" AND reported < {self._moment} AND {self._moment} <= corrected" if self._label else ""
        values, newest = f"values_{name}", f"newest_{name}"
        values_sql = relation(
            values,
            [*self._times(), f"{column} AS value"],
            *self._source(),
            f"WHERE {column} IS NOT NULL{condition}",
            "GROUP BY ALL",
        )
        newest_sql = relation(
            newest,
            ["entity", f"{self._moment} AS moment", "value", f"min({self._age}) AS age"],
            f"FROM {values}, {self._ages()}",
            f"WHERE age > {self._delay} AND {self._wanted()}{known}",
            "GROUP BY ALL",
        )
        counts = [
            f"nullif(count(*) FILTER (WHERE {self._within(window)}), 0) AS {quoted(window)}"
            for window in self._table.windows_of(name)
        ]
        distinct = relation(f"distinct_{name}", ["entity", "moment", *counts], f"FROM {newest}", "GROUP BY ALL")
        return [values_sql, newest_sql, distinct]

    def _condition(self, each: Aggregation) -> str:
        return qualified(each.condition or "", self._names)


def _exact(column: str, definition: Column, decimals: int) -> str:
    """The SQL of a column whose sum does not depend on the order of rows."""
    if definition.kind != "float":
        return column
    bounds = (definition.minimum, definition.maximum)
    is_small = all(isinstance(bound, int | float) and abs(bound) < 10 ** (_DIGITS_64 - decimals) for bound in bounds)
    return f"CAST({column} AS DECIMAL({_DIGITS_64 if is_small else _DIGITS_128}, {decimals}))"


def _filled(value: str, default: float | None) -> str:
    if default is None:
        return f"({value})"
    return f"coalesce({value}, {int(default) if default.is_integer() else repr(default)})"


def relation(name: str, columns: list[str], *clauses: str) -> str:
    select = ",\n        ".join(columns)
    return f"{name} AS (\n    SELECT\n        {select}\n    " + "\n    ".join(clauses) + "\n)"
