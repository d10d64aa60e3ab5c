"""Rules between the sections of a model spec."""

from collections.abc import Iterator

from training.contract.cron import cron_mistake
from training.contract.problems import Mistake
from training.contract.spec_sections import SpecSections
from training.contract.tasks import Relative

#: Our own columns in feature tables, joins and datasets.
TABLE_COLUMNS = frozenset(["day", "feature_timestamp", "event_timestamp"])
#: Names of Feast's own columns in every join.
FEAST_COLUMNS = frozenset(["event_timestamp", "entity_row_id"])
#: The tables that every model has in the lake.
LAKE_TABLES = frozenset(["events", "labels", "quarantine", "predictions"])

_ID_TYPES = ("int64", "string")
_NAME_A_COLUMN = "Name one of the columns."


def contradictions(spec: SpecSections) -> list[Mistake]:
    """All contradictions between the sections of the spec."""
    if set(spec.feeds) != {"events", "labels"}:
        return [("feeds", "must be exactly events and labels", "Define both feeds, and no other.")]
    names = list(_unknown_columns(spec))
    if names:
        return names
    return [
        *_label(spec),
        *_ids(spec),
        *_entities(spec),
        *_tables(spec),
        *_training(spec),
        *_evaluation(spec),
        *_schedule(spec),
    ]


def _unknown_columns(spec: SpecSections) -> Iterator[Mistake]:
    events, labels = spec.feeds["events"].columns, spec.feeds["labels"].columns
    wanted = [("label.column", spec.label.column, labels), ("label.id_column", spec.label.id_column, labels)]
    wanted += [("label.id_column", spec.label.id_column, events)]
    wanted += [(field, column, events) for field, column in _entity_fields(spec)]
    for field, column, columns in wanted:
        if column not in columns:
            yield field, f"names {column!r}, which is not one of the columns {sorted(columns)}", _NAME_A_COLUMN


def _entity_fields(spec: SpecSections) -> list[tuple[str, str]]:
    fields = [("evaluation.entity", spec.evaluation.entity)] if spec.evaluation.entity else []
    fields += [(f"features.tables.{table}", entity) for table, entity in spec.features.tables.items()]
    return [*fields, ("rollout.sticky_by", spec.rollout.sticky_by)]


def _label(spec: SpecSections) -> Iterator[Mistake]:
    label, feed = spec.label, spec.feeds["labels"]
    if label.column in (label.id_column, feed.time_column):
        other = "label.id_column" if label.column == label.id_column else "feeds.labels.time_column"
        yield "label.column", f"is {label.column!r}, and so is {other}", "Name the column with the label."
        return
    if label.column in TABLE_COLUMNS:
        yield (
            "label.column",
            f"is {label.column!r}, a reserved name",
            "Rename the column. docs/your-model.md lists the reserved names.",
        )
    column, place = feed.columns[label.column], f"feeds.labels.columns.{label.column}"
    if column.nullable:
        what = "may be null, but a label must have a value"
        yield f"{place}.nullable", what, "Remove `nullable: true`, and deliver a label only when it is known."
    only_positives = label.unlabelled_after_delay == "negative"
    for field, what, fix in spec.task.label_mistakes(column, only_positives):
        yield f"{place}.{field}", what, fix
    if only_positives and not spec.task.HAS_NEGATIVES:
        what = f"is negative, but the labels of a task of kind {spec.task.kind} are not positive or negative"
        yield "label.unlabelled_after_delay", what, "Write `missing`."


def _ids(spec: SpecSections) -> Iterator[Mistake]:
    name = spec.label.id_column
    columns = {feed: spec.feeds[feed].columns[name] for feed in ("events", "labels")}  # type: ignore[index]
    for feed, column in columns.items():
        place = f"feeds.{feed}.columns.{name}"
        if column.type not in _ID_TYPES:
            yield (
                f"{place}.type",
                f"is {column.type}, but an id must be int64 or string",
                "Deliver the id as one of these.",
            )
        if column.nullable:
            what = "may be null, but an event without an id has no label"
            yield f"{place}.nullable", what, "Remove `nullable: true` from the id."
    if len({column.type for column in columns.values()}) > 1:
        what = (
            f"is {columns['labels'].type} in labels and {columns['events'].type} in events, so the two cannot be joined"
        )
        yield f"feeds.labels.columns.{name}.type", what, "Give the id the same type in both feeds."
    if not columns["events"].unique:
        what = "must be true, because two events with one id would get the same label"
        yield f"feeds.events.columns.{name}.unique", what, "Write `unique: true`, or name another label.id_column."
    if name in TABLE_COLUMNS:
        yield (
            "label.id_column",
            f"is {name!r}, a reserved name",
            "Rename the column. docs/your-model.md lists the reserved names.",
        )


def _entities(spec: SpecSections) -> Iterator[Mistake]:
    events = spec.feeds["events"]
    for field, name in _entity_fields(spec):
        if events.columns[name].type not in _ID_TYPES:
            what = (
                f"names {name!r}, a column of type {events.columns[name].type}; but an entity must be int64 or string"
            )
            yield field, what, "Name another column, or deliver this one as int64 or string."
        if name in TABLE_COLUMNS:
            yield (
                field,
                f"is {name!r}, a reserved name",
                "Rename the column. docs/your-model.md lists the reserved names.",
            )
    for name in events.columns:
        if name.lower() in FEAST_COLUMNS:
            what = "has a reserved name, which Feast uses for its own column in every join"
            yield f"feeds.events.columns.{name}", what, "Rename the column, here and in the files that land."
    if events.time_column in TABLE_COLUMNS - FEAST_COLUMNS:
        what = f"is {events.time_column!r}, a reserved name"
        yield "feeds.events.time_column", what, "Rename the column. docs/your-model.md lists the reserved names."


def _tables(spec: SpecSections) -> Iterator[Mistake]:
    for table in sorted(LAKE_TABLES & set(spec.features.tables)):
        what = "has a reserved name, which the lake uses for a table that every model has"
        yield f"features.tables.{table}", what, "Rename the table, in the spec, the SQL and the Feast view."


def _training(spec: SpecSections) -> Iterator[Mistake]:
    training = spec.training
    if untrained := sorted(set(spec.resources.estimators) - set(training.estimators)):
        what = f"has {untrained}, which training.estimators does not have"
        yield "resources.estimators", what, "Remove them, or add them to training.estimators."


def _evaluation(spec: SpecSections) -> Iterator[Mistake]:
    evaluation, rules = spec.evaluation, spec.task.rules
    if not evaluation.primary:
        yield "evaluation.primary", "is missing", f"Name a metric of the task {spec.task.kind}."
    elif evaluation.primary not in evaluation.limits:
        what = f"must have a limit for the primary metric {evaluation.primary!r}"
        yield "evaluation.limits", what, f"Add `{evaluation.primary}: <the worst value that may be promoted>`."
    if evaluation.exclude_known_entities and not (spec.task.ENDS_ENTITIES and evaluation.entity):
        what = "is true, but only a binary task with an evaluation.entity has entities that are known as positive"
        yield "evaluation.exclude_known_entities", what, "Remove it."
    if rules is None:  # The kind itself checks its metrics when it is made.
        return
    named = {"primary": [evaluation.primary], "limits": evaluation.limits, "margins": evaluation.margins}
    for field, metrics in named.items():
        if unknown := sorted(set(metrics) - set(rules) - {""}):
            what = f"names {', '.join(unknown)}, which the task {spec.task.kind} does not have"
            yield f"evaluation.{field}", what, f"Its metrics are {', '.join(rules)}."
    for metric, limit in evaluation.limits.items():
        if metric in rules and not rules[metric].low <= limit <= rules[metric].high:
            what = f"is {limit:g}, but the metric is between {rules[metric].low:g} and {rules[metric].high:g}"
            yield f"evaluation.limits.{metric}", what, "Correct it."
    for metric, margin in evaluation.margins.items():
        if metric in rules and rules[metric].bounded and not isinstance(margin, Relative) and margin > 1:
            yield f"evaluation.margins.{metric}", f"is {margin:g}, but the metric is at most 1", "Correct it."
    columns = spec.feeds["events"].columns
    if unknown := [name for name in spec.task.reference_columns if name not in columns]:
        what = f"names {', '.join(unknown)}, not one of the columns {sorted(columns)}"
        yield "task.reference.by", what, _NAME_A_COLUMN


def _schedule(spec: SpecSections) -> Iterator[Mistake]:
    for name in ("train", "drift"):
        expression = getattr(spec.schedule, name)
        if mistake := cron_mistake(expression):
            what = f"is {expression!r}, which {mistake}"
            yield f"schedule.{name}", what, 'Write five cron fields, such as "0 3 * * 1", or a preset such as @daily.'
