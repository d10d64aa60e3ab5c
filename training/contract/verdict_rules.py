"""Rules between the sections of `evaluation` that judge groups of rows and the source. A mistake is (field, rest of the
sentence, what to do)."""

from collections.abc import Iterator

from training.contract.columns import Column
from training.contract.names import did_you_mean, listed
from training.contract.problems import Mistake
from training.contract.spec_sections import SpecSections
from training.contract.tasks import Relative
from training.contract.verdict_spec import Grouping

#: Kinds of columns that cannot form groups.
_NO_GROUPS = ("timestamp", "date", "list")
_NUMBERS = ("int", "float", "decimal")
#: A Python type → what YAML writes.
_WRITTEN = {"int": (int,), "float": (int, float), "decimal": (int, float, str), "string": (str,), "bool": (bool,)}


def verdict_mistakes(spec: SpecSections) -> Iterator[Mistake]:
    """Contradictions of evaluation.slices, evaluation.calibration and evaluation.fairness."""
    slices, fairness = spec.evaluation.slices, spec.evaluation.fairness
    for place, columns in (("slices", slices.columns), ("fairness", fairness.columns)):
        for name, grouping in columns.items():
            yield from _column(spec, f"evaluation.{place}.columns.{name}", name, grouping)
    for name, grouping in slices.ages.items():
        yield from _age(spec, f"evaluation.slices.ages.{name}", name, grouping)
    yield from _metric(spec)
    yield from _fairness(spec)


def _column(spec: SpecSections, place: str, name: str, grouping: Grouping) -> Iterator[Mistake]:
    events = spec.source.request_columns
    if name in spec.source.labels:
        what = "is a label: groups of it would be groups of what is predicted"
        yield place, what, "Name a column that is known when the prediction is made."
    elif name in (spec.source.id_column, spec.source.events.time_column):
        kind = "id" if name == spec.source.id_column else "time"
        fix = "Name a column whose values many events share."
        yield place, f"is the {kind} of an event, so each row would be a group of its own", fix
    elif name in events:
        yield from _event_column(place, events[name], grouping)
    # Which other features there are only the files of the source say: `make check` reads them.
    elif isinstance(spec.features, tuple) and name not in spec.features:
        what = "is neither a column of the events nor a feature of the model"
        yield place, what, f"{did_you_mean(name, [*events, *spec.features])}Columns of the events: {', '.join(events)}."


def _event_column(place: str, column: Column, grouping: Grouping) -> Iterator[Mistake]:
    if column.kind in _NO_GROUPS:
        fix = "Name a column of texts, numbers or booleans, or compute a feature of it."
        yield place, f"is of type {column.type}, which has no groups", fix
    elif grouping.bounds is not None and column.kind not in _NUMBERS:
        yield (
            f"{place}.bounds",
            f"is set, but the column is of type {column.type}",
            "Write `values`, or leave both out.",
        )
    elif grouping.values is not None:
        wrong = [value for value in grouping.values if not _is_written(value, column.kind)]
        if wrong:
            what = f"holds {', '.join(map(repr, wrong))}, but the column is of type {column.type}"
            yield f"{place}.values", what, "Write values of the column's type; quote texts."
        elif column.values is not None and (unknown := sorted(set(grouping.values) - set(column.values), key=str)):
            what = f"holds {listed(unknown)}, which the column does not allow"
            yield f"{place}.values", what, f"It allows {listed(column.values)}."
    elif grouping.bounds is not None:
        low, high = column.low, column.high
        outside = [
            each for each in grouping.bounds if (low is not None and each <= low) or (high is not None and each > high)
        ]
        if outside:
            what = f"holds {', '.join(f'{each:g}' for each in outside)}, where no value of the column is on both sides"
            yield f"{place}.bounds", what, f"The column is from {column.minimum} to {column.maximum}."


def _age(spec: SpecSections, place: str, name: str, grouping: Grouping) -> Iterator[Mistake]:
    columns, kinds = spec.source.request_columns, ("int", "string")
    if name not in columns:
        what, fix = "is not a column of the events", f"{did_you_mean(name, columns)}Name the column of an entity."
        yield place, what, fix
    elif columns[name].kind not in kinds or name == spec.source.id_column:
        what = "is the id: every event has another one" if name == spec.source.id_column else "is not an entity"
        yield place, what, "Name a column of texts or whole numbers that many events share."
    if grouping.values is not None:
        yield f"{place}.values", "is set, but an age is a number of days", "Write `bounds: [7, 30]`."
    if any(bound <= 0 for bound in grouping.bounds or ()):
        yield f"{place}.bounds", "has a bound that is not above 0, but no age is below 0 days", "Correct it."


def _metric(spec: SpecSections) -> Iterator[Mistake]:
    slices, rules = spec.evaluation.slices, spec.task.rules
    if rules is None:
        return
    if slices.metric and slices.metric not in rules:
        what = f"is {slices.metric}, which the task {spec.task.kind} does not have"
        yield "evaluation.slices.metric", what, f"Its metrics are {', '.join(rules)}."
        return
    rule = rules.get(slices.metric or spec.evaluation.primary)
    if rule and rule.bounded and not isinstance(slices.margin, Relative) and slices.margin >= 1:
        what = f"is {slices.margin:g}, but the metric is at most 1"
        yield "evaluation.slices.margin", what, "Correct it: no slice could fail."


def _fairness(spec: SpecSections) -> Iterator[Mistake]:
    fairness, measures = spec.evaluation.fairness, spec.task.GROUP_MEASURES
    for field, named in (("limits", fairness.limits), ("maximum_change", fairness.maximum_change)):
        if named and not fairness.columns:
            what = "is set, but evaluation.fairness.columns names no groups"
            yield f"evaluation.fairness.{field}", what, "Name the columns whose groups are compared."
        if measures is not None and (unknown := sorted(set(named) - set(measures))):
            what = f"names {', '.join(unknown)}, which the task {spec.task.kind} does not have"
            meant = did_you_mean(unknown[0], measures)
            yield f"evaluation.fairness.{field}", what, f"{meant}Its measures are {', '.join(measures)}."


def _is_written(value: object, kind: str) -> bool:
    return isinstance(value, _WRITTEN.get(kind, ())) and (kind == "bool" or not isinstance(value, bool))
