"""Check the Feast definitions against the spec and against the columns and rows that the SQL yields."""

import dataclasses
from collections.abc import Iterator

from training.adapters.features.chosen import chosen_features
from training.adapters.features.definitions import Definitions, JoinKeyError, load_definitions
from training.adapters.features.sharing import clashes
from training.adapters.features.store import private_store
from training.adapters.features.view_schemas import schema_mistakes
from training.contract.errors import StepError
from training.contract.model_spec import load_model_spec, models_of
from training.contract.problems import Problem, without_path
from training.contract.source_rules import FEAST_COLUMNS, TABLE_COLUMNS
from training.contract.source_spec import SourceSpec, source_names
from training.settings import StateSettings
from training.steps.check.batch_sql import BatchSql
from training.steps.check.request_features import RequestFunction

#: Columns that Feast's join adds to a view's features. It also drops columns that end in _y.
_JOIN_COLUMNS = FEAST_COLUMNS | {"event_expire_timestamp", "rn"}


@dataclasses.dataclass
class FeastCheck:
    """The problems in a source's Feast definitions. `sql`: the result of running its SQL, with the sample events."""

    settings: StateSettings
    spec: SourceSpec
    file: str
    sql: BatchSql

    def problems(self) -> list[Problem]:
        try:
            definitions = load_definitions(self.settings.feature_repo, self.spec)
        except StepError as error:
            # Where SQL and view agree on another entity than the spec, the problem of the SQL says it.
            told = isinstance(error, JoinKeyError) and error.tables <= self.sql.without_entity
            return [] if told else [self._failed("", error)]
        functions = [RequestFunction(view, self.spec, self.file) for view in definitions.on_demand]
        found = [*self._schemas(definitions), *self._sources(definitions), *self._names(definitions)]
        found += self._shared(definitions)
        found += [problem for function in functions for problem in function.declared()]
        if runs := self.sql.events is not None and not found:
            tables = self.sql.tables if len(self.sql.tables) == len(self.spec.entities) else {}
            found += [problem for f in functions for problem in f.run(self.sql.events, tables)]
        read = {name for function in functions for name in (function.read if runs else function.takes)}
        found += self._unused(definitions, read)
        return found or self._applied(definitions)

    def _problem(self, place: str, what: str, fix: str, *, sure: bool = True) -> Problem:
        return Problem(file=self.file, place=place, what=what, fix=fix, sure=sure)

    def _failed(self, place: str, error: StepError) -> Problem:
        return self._problem(place, without_path(error.message, self.file), error.hint)

    def _schemas(self, definitions: Definitions) -> Iterator[Problem]:
        for table, columns in self.sql.schemas.items():
            for mistake in schema_mistakes(definitions, self.settings.feature_repo, self.spec, table, columns):
                yield self._failed(f"view {table}", mistake)

    def _sources(self, definitions: Definitions) -> Iterator[Problem]:
        for view in definitions.views:
            if view.batch_source.timestamp_field != "feature_timestamp":
                what = f"has the timestamp_field {view.batch_source.timestamp_field!r} in its source"
                fix = 'Write timestamp_field="feature_timestamp". The step adds that column.'
                yield self._problem(f"view {view.name}", what, fix)

    def _shared(self, definitions: Definitions) -> Iterator[Problem]:
        others = [name for name in source_names(self.settings.feature_repo) if name != self.spec.name]
        for clash in clashes(definitions, self.spec, others, self.settings):
            file, _, what = clash.message.partition(": ")
            yield Problem(file=file, place="", what=what, fix=clash.hint)

    def _names(self, definitions: Definitions) -> Iterator[Problem]:
        if not definitions.names:
            yield self._problem("feature views", "have no features", "Add views with the features of the source.")
        spec = self.spec
        keys = {spec.id_column, *spec.labels, *(feed.time_column for feed in spec.feeds.values())}
        # Other columns of a dataset. The names of batch features must also differ from those of request columns.
        taken = keys | TABLE_COLUMNS | set(spec.entities.values())
        batch = {feature.name for view in definitions.views for feature in view.features}
        for name in definitions.names[len(definitions.event_columns) :]:
            if name in taken or (name in batch and name in definitions.request_columns):
                what = f"have the feature {name}, but a dataset already has another column of this name"
                yield self._problem("feature views", what, "Rename the feature.")
        for name in sorted(batch):
            if name in _JOIN_COLUMNS or name.endswith("_y"):
                what = f"define the feature {name}, a name that Feast uses for its own column in joins"
                yield self._problem("feature views", what, "Rename the feature, also in the SQL.")

    def _unused(self, definitions: Definitions, read: set[str]) -> Iterator[Problem]:
        """Features that are computed but not used.

        This may be intended, because it is the first step to remove a feature (docs/your-model.md).
        """
        used, models = self._used(definitions)
        if not models:
            return
        place = f"the feature services of {', '.join(models)}"
        for view in definitions.views:
            columns = self.sql.schemas.get(view.name)
            for name in [f.name for f in view.features if columns is not None and f.name in columns.names]:
                if name not in used | read:
                    what = f"do not have {name}, which the SQL yields and no request feature reads"
                    fix = "Let a model use it, or remove it from SQL and view when no version in service uses it."
                    yield self._problem(place, what, fix, sure=False)
        for view in definitions.on_demand:
            if unused := [f.name for f in view.features if f.name not in used]:
                what = f"do not have {', '.join(unused)} of {view.name}"
                fix = "Let a model use them, or remove them from the view when no version in service uses them."
                yield self._problem(place, what, fix, sure=False)

    def _used(self, definitions: Definitions) -> tuple[set[str], list[str]]:
        """The features that some model of the source uses, and the models whose specs can be loaded."""
        found: set[str] = set()
        models = []
        for name in models_of(self.spec.name, self.settings.models_dir):
            try:
                spec = load_model_spec(name, self.settings.models_dir, self.settings.feature_repo)
                found |= set(chosen_features(definitions, spec, self.settings.feature_repo).names)
            except StepError:
                continue
            models.append(name)
        return found, models

    def _applied(self, definitions: Definitions) -> list[Problem]:
        """The error of Feast when it applies the definitions, if any."""
        try:
            with private_store(self.settings, definitions.objects, online=False):
                return []
        except Exception as error:
            what = f"Feast rejects the definitions: {type(error).__name__}: {error}"
            return [self._problem("", what, "Correct the definitions. `feast plan` in feature_repo shows the error.")]
