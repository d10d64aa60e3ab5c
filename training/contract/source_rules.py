"""Rules between the sections of a source spec. Each mistake is (field, rest of the sentence, what to do)."""

from collections.abc import Iterator

from training.contract.columns import Column
from training.contract.feature_tables import table_mistakes
from training.contract.feeds import EVENTS
from training.contract.names import did_you_mean, more_than_once
from training.contract.problems import Mistake
from training.contract.source_sections import LabelSpec, SourceSections

#: Our own columns in feature tables, joins and datasets.
TABLE_COLUMNS = frozenset(["day", "feature_timestamp", "event_timestamp"])
#: Names of Feast's own columns in every join.
FEAST_COLUMNS = frozenset(["event_timestamp", "entity_row_id"])
#: The tables that every source has in the lake, beside those of its feeds and features.
LAKE_TABLES = frozenset(["quarantine", "predictions"])

#: Kinds of columns that cannot be features as they are.
_NO_FEATURES = ("timestamp", "date", "list")
#: Of a text with a list of values. Most estimators get a column of four bytes a row for each of them.
MOST_CATEGORIES = 1000
#: Kinds of columns that can be an id or an entity.
_ID_KINDS = ("int", "string")
_RENAME_COLUMN = "Rename the column. docs/your-model.md lists the reserved names."


def contradictions(spec: SourceSections) -> list[Mistake]:
    """All contradictions between the sections of the spec."""
    if EVENTS not in spec.feeds:
        return [("feeds", "must have the feed events", "Define the feed events. Every other feed reports labels.")]
    if names := list(_unknown_names(spec)):
        return names
    rules = (_feeds, _labels, _ids, _entities, _columns, _tables, _event_columns)
    return [mistake for rule in rules for mistake in rule(spec)]


def _unknown_names(spec: SourceSections) -> Iterator[Mistake]:
    for name, label in spec.labels.items():
        if label.feed not in spec.feeds:
            what = f"names {label.feed!r}, which is not one of the feeds {sorted(spec.feeds)}"
            yield f"labels.{name}.feed", what, f"{did_you_mean(label.feed, spec.feeds)}Name one of the feeds."
        elif name not in (columns := spec.feeds[label.feed].columns):
            what = f"is not one of the columns {sorted(columns)} of the feed {label.feed}"
            fix = "A label is named as its column. Rename the label, or add the column."
            yield f"labels.{name}", what, did_you_mean(name, columns) + fix
    columns = spec.events.columns
    for table, features in spec.features.tables.items():
        if features.entity not in columns:
            what = f"names {features.entity!r}, which is not one of the columns {sorted(columns)}"
            fix = f"{did_you_mean(features.entity, columns)}Name one of the columns."
            yield f"features.tables.{table}.entity", what, fix
    for name, feed in spec.feeds.items():
        if feed.id_column != spec.id_column:
            what = f"is {feed.id_column!r}, but the events have {spec.id_column!r}"
            yield f"feeds.{name}.id_column", what, "Give the column that identifies an event one name in all feeds."


def _feeds(spec: SourceSections) -> Iterator[Mistake]:
    for name in spec.feeds:
        if name in LAKE_TABLES:
            what = "has a reserved name, which the lake uses for a table that every source has"
            yield f"feeds.{name}", what, "Rename the feed, here and in the landing folder."
        if name != EVENTS and not spec.labels_of(name):
            what = "reports no label"
            yield f"feeds.{name}", what, f"Add `<column>: {{feed: {name}, …}}` to labels, or remove the feed."


def _labels(spec: SourceSections) -> Iterator[Mistake]:
    for name, label in spec.labels.items():
        place, feed = f"labels.{name}", spec.feeds[label.feed]
        if name in (feed.id_column, feed.time_column):
            other = "id_column" if name == feed.id_column else "time_column"
            yield place, f"is also feeds.{label.feed}.{other}", "Name the column that holds the label."
            continue
        if name in TABLE_COLUMNS:
            yield place, "is a reserved name", _RENAME_COLUMN
        yield from _delay(place, label)
    for feed_name in spec.feeds:
        rules = {
            (label.delay_days, label.unlabelled_after_delay)
            for label in spec.labels_of(feed_name)
            if "delay_days" in spec.labels[label.column].model_fields_set
        }
        if len(rules) > 1:
            what = f"of the feed {feed_name} differ in delay_days or unlabelled_after_delay, but one row reports them"
            yield "labels", what, "Give them the same values, or deliver them in feeds of their own."


def _delay(place: str, label: LabelSpec) -> Iterator[Mistake]:
    if label.feed != EVENTS:
        if "delay_days" not in label.model_fields_set:
            what = "is missing"
            fix = "Write the days after an event within which its label has been reported. 0: by the end of its day."
            yield f"{place}.delay_days", what, fix
        return
    if label.delay_days:
        what = f"is {label.delay_days}, but the label is in the event file, so it is known with the event"
        yield f"{place}.delay_days", what, "Remove it, or deliver the label in a feed of its own."
    if label.unlabelled_after_delay != "missing":
        what = "is set, but every event of the event file has its label"
        yield f"{place}.unlabelled_after_delay", what, "Remove it."


def _ids(spec: SourceSections) -> Iterator[Mistake]:
    name = spec.id_column
    columns = {feed: each.columns[name] for feed, each in spec.feeds.items()}
    for feed, column in columns.items():
        place = f"feeds.{feed}.columns.{name}"
        if column.kind not in _ID_KINDS:
            what = f"is {column.type}, but an id must be an integer or a string"
            yield f"{place}.type", what, "Deliver the id as one of these."
        if column.nullable:
            what = "may be null, but an event without an id has no label"
            yield f"{place}.nullable", what, "Remove `nullable: true` from the id."
        if column.type != columns[EVENTS].type:
            what = f"is {column.type} in {feed} and {columns[EVENTS].type} in events, so the two cannot be joined"
            yield f"{place}.type", what, "Give the id the same type in all feeds."
    if columns[EVENTS].values is not None:
        what = "is set, but every event has an id of its own"
        yield f"feeds.events.columns.{name}.values", what, "Remove values."
    if not columns[EVENTS].unique:
        what = "must be true, because two events with one id would get the same label"
        yield f"feeds.events.columns.{name}.unique", what, "Write `unique: true`, or name another id_column."
    if name in TABLE_COLUMNS:
        yield "feeds.events.id_column", f"is {name!r}, a reserved name", _RENAME_COLUMN


def _entities(spec: SourceSections) -> Iterator[Mistake]:
    for table, name in spec.entities.items():
        yield from entity_mistakes(f"features.tables.{table}.entity", name, spec.request_columns)


def entity_mistakes(field: str, name: str, columns: dict[str, Column]) -> Iterator[Mistake]:
    """Why `name`, which `field` names, cannot be an entity. `columns`: the columns of a request."""
    if name not in columns:
        what = f"names {name!r}, which is not one of the columns {sorted(columns)} of a prediction request"
        yield field, what, f"{did_you_mean(name, columns)}Name one of the columns."
        return
    if columns[name].kind not in _ID_KINDS:
        what = f"names {name!r}, a column of type {columns[name].type}; but an entity must be an integer or a string"
        yield field, what, "Name another column, or deliver this one as an integer or a string."
    if name in TABLE_COLUMNS:
        yield field, f"is {name!r}, a reserved name", _RENAME_COLUMN


def _columns(spec: SourceSections) -> Iterator[Mistake]:
    events = spec.events
    for name in events.columns:
        if name.lower() in FEAST_COLUMNS:
            what = "has a reserved name, which Feast uses for its own column in every join"
            yield f"feeds.events.columns.{name}", what, "Rename the column, here and in the files that land."
    if events.time_column in TABLE_COLUMNS - FEAST_COLUMNS:
        yield "feeds.events.time_column", f"is {events.time_column!r}, a reserved name", _RENAME_COLUMN


def _tables(spec: SourceSections) -> Iterator[Mistake]:
    for table in sorted((LAKE_TABLES | set(spec.feeds)) & set(spec.features.tables)):
        what = "has a reserved name, which the lake uses for another table of the source"
        yield f"features.tables.{table}", what, "Rename the table, in the spec, the SQL and the Feast view."
    labels = {name: spec.feeds[label.feed].columns[name] for name, label in spec.labels.items()}
    yield from table_mistakes(spec.features.tables, spec.events.columns, labels)


def _event_columns(spec: SourceSections) -> Iterator[Mistake]:
    columns, names = spec.request_columns, spec.features.event_columns
    for name in sorted(more_than_once(names)):
        yield "features.event_columns", f"has {name} twice", "Name each column once."
    for name in names:
        if name not in columns:
            what = f"names {name!r}, which is not one of the columns {sorted(columns)} of a prediction request"
            yield "features.event_columns", what, f"{did_you_mean(name, columns)}Name one of the columns."
        elif columns[name].kind in _NO_FEATURES:
            what = f"names {name!r}, a column of type {columns[name].type}, which cannot be a feature unchanged"
            yield "features.event_columns", what, "Compute features of it in the .py file (an on-demand view)."
        elif columns[name].kind == "string" and len(columns[name].values or ()) > MOST_CATEGORIES:
            what = f"names {name!r}, whose {len(columns[name].values or ()):,} values are too many to be categories"
            fix = f"Remove `values` of {name}: then the training.maximum_categories most frequent texts count."
            yield "features.event_columns", what, fix
        elif name == spec.id_column:
            yield "features.event_columns", f"names {name!r}, the id of the event", "Remove it: it says nothing."
