"""Feature tables of a source: `features.tables` in `feature_repo/<source>.yaml`.

A table either declares aggregations, from which its SQL and its Feast view are generated, or only says how far back its
own SELECT in `<source>.sql` looks.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from training.contract.base import LONGEST_DAYS, DayCount, Spec
from training.contract.columns import Column
from training.contract.conditions import columns_of, condition_mistake
from training.contract.names import WINDOW_PATTERN, Name, did_you_mean
from training.contract.problems import raise_contradictions

Mistake = tuple[str, str, str]

Function = Literal["count", "sum", "mean", "min", "max", "std", "distinct_count", "share", "time_since_last"]
#: So many days (7d) or hours (12h).
Window = Annotated[str, Field(pattern=WINDOW_PATTERN)]

_WITHOUT_COLUMN = ("count", "share", "time_since_last")
_OF_NUMBERS = ("sum", "mean", "min", "max", "std")
_NUMBERS = ("int", "float", "decimal")


def window_hours(window: str) -> int:
    """The hours of a window such as 7d or 12h."""
    return int(window[:-1]) * (24 if window.endswith("d") else 1)


class Aggregation(Spec):
    """One number per entity and window, over the events in the window for which `condition` is true."""

    function: Function
    """`std` is the standard deviation of a sample. `share` is the share of the events for which `condition` is true,
    among those for which it is true or false. `time_since_last` counts hours from the last event to the row's time.
    Null values of `column` are left out."""
    column: str | None = None
    """The column of the event, or the label that the table names. Not for count, share and time_since_last."""
    condition: str | None = None
    """An SQL expression of the event's columns and, where the table names a label, the label."""
    windows: Annotated[tuple[Window, ...] | None, Field(strict=False, min_length=1)] = None
    """Some of the table's windows. Default: all of them."""
    default: Annotated[int | float, Field(ge=-3.4e38, le=3.4e38)] | None = 0
    """The value when no event counts. null: missing, which estimators see as NaN. The default of time_since_last is
    the length of the window. `std` has this value for fewer than two events."""
    decimals: int = Field(4, ge=0, le=12)
    """For sum, mean and std of floats: values are rounded to this many digits after the point. Such sums are exact, so
    the order of the rows does not matter."""
    description: str = ""
    """The description of its features in Feast."""

    @model_validator(mode="after")
    def _fields_fit_the_function(self) -> "Aggregation":
        found, function = list[Mistake](), self.function
        if self.column is None and function not in _WITHOUT_COLUMN:
            found.append(("column", f"is missing, but {function} needs one", "Name a column of the events."))
        if self.column is not None and function in _WITHOUT_COLUMN:
            found.append(("column", f"is set, but {function} counts events", "Remove column."))
        if self.condition is None and function == "share":
            found.append(
                ("condition", "is missing, but share needs one", "Write for example `condition: amount > 100`.")
            )
        raise_contradictions(found)
        return self

    def value_without_events(self, window: str) -> float | None:
        """The value of the feature of `window` when no event counts; None: missing."""
        if self.function == "time_since_last" and "default" not in self.model_fields_set:
            return float(window_hours(window))
        return None if self.default is None else float(self.default)


class DeclaredFeature(NamedTuple):
    """A column of a declared table."""

    name: str
    aggregation: str
    window: str
    #: The value when no event counts; None: missing.
    default: float | None
    description: str


class FeatureTable(Spec):
    entity: str
    """The event column with the entity."""
    every: Literal["1d", "1h"] = "1d"
    """A row holds what was known at the start of its day or hour (UTC)."""
    ttl_days: DayCount | None = None
    """How long a row is used when no newer one comes. With aggregations only: else the view in `<source>.py` has it."""
    windows: Annotated[tuple[Window, ...], Field(strict=False)] = ()
    """How far back the aggregations look: a number of days, such as 7d, or with hourly rows also hours, such as 12h."""
    label: str | None = None
    """With a label, only events whose label is known count, and windows end `delay_days` before the row's time."""
    aggregations: dict[Name, Aggregation] = {}
    history_days: DayCount | None = None
    """Without aggregations only: days after an event in which it still changes a row of the table."""

    @model_validator(mode="after")
    def _one_kind_of_table(self) -> "FeatureTable":
        raise_contradictions(list(self._declared_mistakes() if self.aggregations else self._own_sql_mistakes()))
        return self

    @property
    def is_declared(self) -> bool:
        """Whether SQL and view are generated."""
        return bool(self.aggregations)

    @property
    def step_hours(self) -> int:
        """Hours from one row to the next."""
        return window_hours(self.every)

    def windows_of(self, aggregation: str) -> tuple[str, ...]:
        """The windows of an aggregation, in the table's order."""
        chosen = self.aggregations[aggregation].windows
        return self.windows if chosen is None else tuple(window for window in self.windows if window in chosen)

    def features(self) -> list[DeclaredFeature]:
        """The columns of a declared table, in order: aggregation by aggregation, window by window."""
        return [
            DeclaredFeature(f"{name}_{window}", name, window, each.value_without_events(window), each.description)
            for name, each in self.aggregations.items()
            for window in self.windows_of(name)
        ]

    def longest_window_hours(self) -> int:
        """Of a declared table."""
        return max(window_hours(feature.window) for feature in self.features())

    def days_of_history(self, delay_days: int = 0) -> int:
        """Days after an event in which it still changes a row. `delay_days`: the delay of the table's label.

        The longest window and the delay, and one step for the row without events when the entity leaves the window.
        """
        if self.history_days is not None:
            return self.history_days
        return -(-(self.longest_window_hours() + self.step_hours) // 24) + delay_days

    def _own_sql_mistakes(self) -> Iterator[Mistake]:
        if self.history_days is None:
            fix = "Declare aggregations, or write `history_days` for a table whose SELECT is in the .sql file."
            yield "aggregations", "is missing, and so is history_days", fix
        for field in ("ttl_days", "windows", "label"):
            if getattr(self, field):
                fix = f"Remove {field}, or declare aggregations. SQL and view of this table have their own."
                yield field, "is set, but the table has no aggregations", fix

    def _declared_mistakes(self) -> Iterator[Mistake]:
        if self.history_days is not None:
            yield "history_days", "is set, but the aggregations decide it", "Remove history_days."
        if self.ttl_days is None:
            yield "ttl_days", "is missing", "Write how many days a row is used when no newer one comes, such as 7."
        if not self.windows:
            yield "windows", "is missing", "Write for example `windows: [1d, 7d, 30d]`."
            return
        hours = [window_hours(window) for window in self.windows]
        if max(hours) > 24 * LONGEST_DAYS:
            yield "windows", f"has a window of more than {LONGEST_DAYS:,} days", "Write shorter windows."
        if len(set(hours)) < len(hours):
            yield "windows", f"{list(self.windows)} has one length twice", "Write each window once."
        if self.every == "1d" and (broken := [window for window in self.windows if window_hours(window) % 24]):
            yield "windows", f"has {broken[0]}, but rows are daily", "Write whole days, or `every: 1h`."
        for name, each in self.aggregations.items():
            if unknown := [window for window in each.windows or () if window not in self.windows]:
                what = f"has {unknown[0]}, which the table's windows do not have"
                yield f"aggregations.{name}.windows", what, f"Choose from {', '.join(self.windows)}, or add it there."


def table_mistakes(
    tables: Mapping[str, FeatureTable], columns: Mapping[str, Column], labels: Mapping[str, Column]
) -> Iterator[Mistake]:
    """Contradictions between feature tables and the columns of events (`columns`) and the `labels` by name."""
    seen, taken = dict[str, str](), {name.lower() for name in columns}
    twice = set[tuple[str, str]]()
    for table, spec in tables.items():
        place = f"features.tables.{table}"
        if spec.label is not None and spec.label not in labels:
            yield (
                f"{place}.label",
                f"names {spec.label!r}, which is not one of the labels {sorted(labels)}",
                "Name one.",
            )
            continue
        if spec.label is None and (used := _labels_used(spec, columns, labels)):
            what = f"is missing, but the aggregations use the label {used[0]}"
            fix = f"Add `label: {used[0]}`: then only events whose label is known count."
            yield f"{place}.label", what, fix
            continue
        known = dict(columns) | ({spec.label: labels[spec.label]} if spec.label is not None else {})
        for name, each in spec.aggregations.items():
            for field, what, fix in _aggregation_mistakes(each, known):
                yield f"{place}.aggregations.{name}.{field}", what, fix
        for feature in spec.features():
            where = f"{place}.aggregations.{feature.aggregation}"
            if len(feature.name) > 63:
                yield (
                    where,
                    f"gives the feature {feature.name}, which is longer than 63 characters",
                    "Shorten the name.",
                )
            if feature.name.lower() in taken:
                yield where, f"gives the feature {feature.name}, the name of an event column", "Rename the aggregation."
            elif (other := seen.setdefault(feature.name, where)) != where and (where, other) not in twice:
                twice.add((where, other))
                yield where, f"gives the feature {feature.name}, as {other} does", "Rename one of the two."


def _labels_used(table: FeatureTable, columns: Mapping[str, Column], labels: Mapping[str, Column]) -> list[str]:
    """The labels, which are not columns of the events, that the aggregations of `table` use."""
    used = {each.column for each in table.aggregations.values()}
    for each in table.aggregations.values():
        with contextlib.suppress(ValueError):  # No condition: its own mistake says so.
            used |= columns_of(each.condition or "", [*columns, *labels])
    return [name for name in labels if name in used and name not in columns]


#: A standard deviation needs sums of squares of whole numbers of the last digit: a million of these fit into 127 bits.
_LARGEST_SQUARED = 1e13


def _largest(column: Column) -> float:
    """The largest absolute value that the column declares; 0 where it does not declare both bounds."""
    if column.minimum is None or column.maximum is None:
        return 0.0
    return max(abs(float(column.minimum)), abs(float(column.maximum)))


def _digits(each: Aggregation, column: Column) -> int:
    return 0 if column.kind == "int" else each.decimals


def _aggregation_mistakes(each: Aggregation, columns: Mapping[str, Column]) -> Iterator[Mistake]:
    """`columns`: those of the events, and the label of the table."""
    if each.column is not None:
        column = columns.get(each.column)
        if column is None:
            what = f"names {each.column!r}, which is not one of the columns {sorted(columns)}"
            fix = "Name a column of feeds.events, or the label that the table names."
            yield "column", what, did_you_mean(each.column, columns) + fix
        elif each.function in _OF_NUMBERS and column.kind not in _NUMBERS:
            what = f"names {each.column!r}, a column of type {column.type}; {each.function} takes numbers"
            yield "column", what, "Name a column of numbers, or count with a condition."
        elif column.kind == "list":
            yield "column", f"names {each.column!r}, a column of lists", "Name another column."
        elif each.function == "std" and (largest := _largest(column)) * 10 ** _digits(each, column) > _LARGEST_SQUARED:
            what = f"names {each.column!r}, whose values reach {largest:g}: the squares of so many digits do not fit"
            yield "column", what, "Lower `decimals`, declare closer bounds of the column, or deliver it in other units."
    if each.condition is not None and (mistake := condition_mistake(each.condition, columns)):
        yield "condition", *mistake
