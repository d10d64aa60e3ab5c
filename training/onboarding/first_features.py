"""First features of a new source: columns of the event, and aggregations for each of its entities."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from training.contract.conditions import columns_of
from training.contract.registries import FEATURE_ENGINES
from training.domain.feature_engine import SqlError
from training.onboarding.feeds import Feed
from training.onboarding.keys import Choice
from training.onboarding.profile import Profile, only
from training.onboarding.rules import Rules, calendar_bounds, correlation, rises

#: A text with more values says little as a category.
_CATEGORIES = 200
#: Columns of numbers that are averaged for each entity, and classes whose share is.
_AVERAGED, _SHARES = 2, 3
_LONGEST_NAME = 63
#: A column that is nearly the label, or that is missing in the same rows, may be known only after the event.
_TOO_GOOD, _TOGETHER = 0.98, 0.99
_TTL_DAYS = 7
_NUMBERS = ("int", "float", "decimal")


@dataclass(frozen=True)
class Table:
    """A feature table of a new source. `fields`: those of the spec but the aggregations."""

    name: str
    fields: dict[str, Any]
    aggregations: dict[str, dict[str, Any]] = field(default_factory=dict)
    comment: str = ""


def event_columns(events: Feed, entities: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The columns of events that are features as they are; column → why another one is not."""
    chosen, others = list[str](), dict[str, str]()
    for name, each in events.columns.items():
        if name in (events.id.column, events.time.column) or name in events.labels or each.declared is None:
            continue
        if reason := _no_feature(each, name in entities) or _not_before(events, each):
            others[name] = reason
        else:
            chosen.append(name)
    return chosen, others


def _no_feature(each: Profile, is_entity: bool) -> str:
    if each.kind in ("timestamp", "date", "list"):
        return f"a {each.kind}"
    if each.is_constant:
        return "one value"
    if each.kind == "string" and each.distinct > _CATEGORIES:
        return f"{each.distinct:,} texts"
    if each.key_kind == "int" and (is_entity or re.search(r"(^|_)id$", each.name, re.I)):
        return "a number that is a name"
    return ""


def _not_before(events: Feed, each: Profile) -> str:
    values, times = events.sample.table[each.name], events.sample.table[events.time.column]
    if each.kind in _NUMBERS and rises(values, times):
        return "rises with time"
    return known_later(events, each)


def known_later(events: Feed, each: Profile) -> str:
    """Why the values of a column seem to come from after the event; empty when they do not."""
    values, is_number = events.sample.table[each.name], each.kind in _NUMBERS
    for label in events.labels:
        truth, known = events.sample.table[label], events.columns[label]
        if each.nulls and known.nulls:
            together = pc.sum(pc.and_(values.is_null(), truth.is_null())).as_py()
            if together >= _TOGETHER * each.nulls and together >= known.nulls / 2:
                return f"missing where {label} is, so perhaps known only later"
        if is_number and known.kind in (*_NUMBERS, "bool"):
            found = abs(correlation(values, truth))
            if found > _TOO_GOOD:
                return f"correlation {found:.2f} with {label}, so perhaps known only later"
    return ""


def tables(
    source: str,
    events: Feed,
    labels: Mapping[str, Rules],
    entities: Sequence[Choice],
    features: Sequence[str],
    taken: Collection[str],
) -> list[Table]:
    """Two tables for each entity: of its events, and of the labels of its events.

    `labels`: label → its rules. `features`: the columns that are features. `taken`: names that tables cannot have.
    """
    names = _Names({*taken}, {name.lower() for name in events.columns})
    numbers = [each for each in only(events.columns, _NUMBERS) if each.name in features]
    averaged = [each for each in numbers if each.distinct > 10 and not calendar_bounds(each)][:_AVERAGED]
    found = []
    for entity in entities:
        each = events.columns[entity.column]
        windows = _windows(events, each)
        if not windows:
            continue
        fields: dict[str, Any] = {"entity": entity.column, "ttl_days": _TTL_DAYS, "windows": windows}
        aggregations: dict[str, dict[str, Any]] = {names.aggregation(entity.column, "events"): {"function": "count"}}
        for number in averaged:
            name = names.aggregation(entity.column, number.name)
            aggregations[name] = {"function": "mean", "column": number.name, "default": None}
        found.append(Table(names.table(source, entity.column), fields, aggregations, entity.why))
        label, rules = next(iter(labels.items()))
        found.append(
            Table(
                names.table(source, f"{entity.column}_{label}"),
                {**fields, "label": label},
                dict(_of_label(names, entity.column, label, rules)),
                f"only events whose {label} was known when the row's day began",
            )
        )
    return found


def _of_label(names: "_Names", entity: str, label: str, rules: Rules) -> list[tuple[str, dict[str, Any]]]:
    kind, values = rules.fields["type"], rules.fields.get("values")
    if kind == "bool" or values in ([0, 1], [1]):
        condition = f"{_quoted(label)} = {'true' if kind == 'bool' else 1}"
        return [(names.aggregation(entity, label), {"function": "share", "condition": condition, "default": None})]
    if kind != "string" and not values:
        return [(names.aggregation(entity, label), {"function": "mean", "column": label, "default": None})]
    found = []
    for value in (values or [])[:_SHARES]:
        written = "'" + value.replace("'", "''") + "'" if isinstance(value, str) else value
        share = {"function": "share", "condition": f"{_quoted(label)} = {written}", "default": None}
        found.append((names.aggregation(entity, f"{label}_{value}"), share))
    return found


def _quoted(column: str) -> str:
    """The column in a condition: in quotes when the engine, or a condition, would read it as a word of SQL."""
    condition, engine = f"{column} = 1", FEATURE_ENGINES.find("duckdb")()
    try:
        rows = engine.execute(f"SELECT ({condition}) FROM events", {}, {"events": pa.table({column: [1]})})
        is_plain = rows.column(0).to_pylist() == [True] and columns_of(condition, [column]) == {column}
    except SqlError:
        is_plain = False
    return column if is_plain else f'"{column}"'


def _windows(events: Feed, entity: Profile) -> list[str]:
    """Windows that the sample's days fill at least twice. Entities with few events have no window of a day."""
    days = len(events.counts)
    fitting = [window for window in (1, 7, 28) if window * 2 <= days]
    if len(fitting) > 1 and entity.known / entity.distinct / days < 1:
        fitting = fitting[1:]
    return [f"{window}d" for window in fitting]


class _Names:
    """Names of tables and aggregations: lower case, short, and each once."""

    def __init__(self, tables: set[str], columns: set[str]) -> None:
        self._tables, self._aggregations, self._columns = tables, set[str](), columns

    def table(self, source: str, rest: str) -> str:
        return _free(f"{source}_by_{_lower(rest)}", _LONGEST_NAME, self._tables)

    def aggregation(self, entity: str, what: str) -> str:
        # `_28d` follows.
        while True:
            name = _free(f"{_lower(entity)}_{_lower(what)}", _LONGEST_NAME - 4, self._aggregations)
            if not any(f"{name}_{window}d" in self._columns for window in (1, 7, 28)):
                return name


def _lower(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "value"


def _free(name: str, longest: int, taken: set[str]) -> str:
    name = name[:longest]
    number = 2
    found = name
    while found in taken:
        found, number = f"{name[: longest - 3]}_{number}", number + 1
    taken.add(found)
    return found
