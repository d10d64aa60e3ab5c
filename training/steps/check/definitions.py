"""The Feast definitions against the spec and against what the SQL makes."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from training.adapters.features.definitions import Definitions, load_definitions
from training.adapters.features.store import private_store
from training.contract.errors import StepError
from training.contract.model_spec import ModelSpec
from training.contract.problems import Problem, without_path
from training.contract.spec_rules import TABLE_COLUMNS
from training.settings import Settings
from training.steps.check.request_features import FEAST_TYPES, NUMBERS, RequestFunction

_ENTITY_TYPES = {"int64": "INT64", "string": "STRING"}


@dataclasses.dataclass
class FeastCheck:
    """`tables`: what the SQL made, for the tables where it did. `events`: made-up events for the request features."""

    settings: Settings
    spec: ModelSpec
    file: str
    tables: dict[str, pa.Table]
    events: pa.Table | None

    def problems(self) -> list[Problem]:
        try:
            definitions = load_definitions(self.settings.feature_repo, self.spec)
        except StepError as error:
            return [self._problem("", without_path(error.message, self.file), error.hint)]
        functions = [RequestFunction(view, self.spec, self.file) for view in definitions.on_demand]
        found = [*self._entities(definitions), *self._views(definitions), *self._names(definitions)]
        found += [problem for function in functions for problem in function.declared()]
        if self.events is not None and not found:
            tables = self.tables if len(self.tables) == len(self.spec.features.tables) else {}
            found += [problem for f in functions for problem in f.run(self.events, tables)]
        found += self._unused(definitions, functions)
        return found or self._applied(definitions)

    def _problem(self, place: str, what: str, fix: str, *, sure: bool = True) -> Problem:
        return Problem(file=self.file, place=place, what=what, fix=fix, sure=sure)

    def _entities(self, definitions: Definitions) -> Iterator[Problem]:
        used = set(self.spec.features.tables.values())
        for entity in definitions.entities:
            if entity.join_key in used:
                kind = self.spec.request_columns[entity.join_key].type
                if entity.value_type.name != _ENTITY_TYPES[kind]:
                    what = f"has value_type {entity.value_type.name}, and the column {entity.join_key} is {kind}"
                    fix = f"Write value_type=ValueType.{_ENTITY_TYPES[kind]}."
                    yield self._problem(f"entity {entity.name}", what, fix)

    def _views(self, definitions: Definitions) -> Iterator[Problem]:
        for view in definitions.views:
            place = f"view {view.name}"
            if view.batch_source.timestamp_field != "feature_timestamp":
                what = f"has the timestamp_field {view.batch_source.timestamp_field!r} in its source"
                yield self._problem(
                    place, what, 'Write timestamp_field="feature_timestamp": the step adds that column.'
                )
            made = self.tables.get(view.name)
            for feature in view.features:
                kind = str(feature.dtype)
                if kind not in NUMBERS:
                    what = f"declares {feature.name} as {kind}, and a feature is a number"
                    yield self._problem(place, what, "Use Float32, or encode the value as a number in the SQL.")
                elif made is not None and feature.name not in made.column_names:
                    what = f"declares the feature {feature.name}, which no query makes"
                    yield self._problem(place, what, f"Add it to the SELECT of {view.name}, or remove the field.")
                elif made is not None and not _holds(kind, made[feature.name].type):
                    what = f"declares {feature.name} as {kind}, the SQL makes it {made[feature.name].type}"
                    yield self._problem(place, what, "Declare the type that the SQL makes; values would be cut.")

    def _names(self, definitions: Definitions) -> Iterator[Problem]:
        place, names = f"service {definitions.service.name}", definitions.names
        if not names:
            yield self._problem(place, "lists no features", "List the views whose features the model takes.")
        if doubled := [name for name, count in Counter(names).items() if count > 1]:
            yield self._problem(place, f"lists {', '.join(doubled)} more than once", "Rename one of the features.")
        declared = {f.name for view in (*definitions.views, *definitions.on_demand) for f in view.features}
        if unknown := [name for name in names if name not in declared]:
            what = f"lists {', '.join(unknown)}, which no view declares"
            yield self._problem(place, what, "Declare the fields in their view, or take them from the service.")
        spec, feeds = self.spec, self.spec.feeds
        keys = {spec.label.id_column, spec.label.column, *(feed.time_column for feed in feeds.values())}
        # What a dataset holds beside the features; and, of batch features, what the request features take.
        taken = keys | TABLE_COLUMNS | {*spec.features.tables.values(), spec.evaluation.entity}
        batch = {feature.name for view in definitions.views for feature in view.features}
        for name in names:
            if name in taken or (name in batch and name in definitions.request_columns):
                what = f"lists the feature {name}, which is the name of a column that is needed beside it"
                yield self._problem(place, what, "Rename the feature: the two would stand in one place.")

    def _unused(self, definitions: Definitions, functions: list[RequestFunction]) -> Iterator[Problem]:
        """Features that are made and then not used. One that the service leaves out may be meant: that is how a feature
        of a live model is removed (docs/your-model.md).
        """
        service, read = set(definitions.names), {name for function in functions for name in function.read}
        fields = {view.name: {f.name for f in view.features} for view in definitions.views}
        for table, rows in self.tables.items():
            entity = self.spec.features.tables[table]
            made = [n for n in rows.column_names if n not in (entity, "day", "feature_timestamp")]
            for name in made:
                if name not in fields[table]:
                    what = f"does not declare {name}, which the SQL makes"
                    yield self._problem(f"view {table}", what, "Declare the field, or take the column from the SQL.")
                elif name not in service | read:
                    what = f"does not list {name}, which the SQL makes and no request feature reads"
                    fix = "Add it to the service; or remove it from SQL and view once no version in service uses it."
                    yield self._problem(f"service {definitions.service.name}", what, fix, sure=False)
        for view in definitions.on_demand:
            if lost := [f.name for f in view.features if f.name not in service]:
                what = f"does not list {', '.join(lost)} of {view.name}"
                fix = "Add them to the service; or remove them from the view once no version in service uses them."
                yield self._problem(f"service {definitions.service.name}", what, fix, sure=False)

    def _applied(self, definitions: Definitions) -> list[Problem]:
        """What Feast itself says of the definitions."""
        try:
            with private_store(self.settings, definitions, online=False):
                return []
        except Exception as error:
            what = f"Feast refuses the definitions: {type(error).__name__}: {error}"
            return [self._problem("", what, "Correct the definitions; `feast plan` in feature_repo says the same.")]


def _holds(feast: str, arrow: Any) -> bool:
    if pt.is_floating(arrow):
        return feast in FEAST_TYPES["float64"]
    return feast != "Bool" or bool(pt.is_boolean(arrow))
