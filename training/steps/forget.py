"""Remove the rows of a person from a source, and from everything that was made of them.

It can be killed and run again: what decides is read before it is removed, events go last, and a run that finds nothing
removes nothing. The value of the entity is in no result, no log line of the step itself and no ledger entry.
"""

import logging
import secrets
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from training import storage
from training.adapters.features import OnlineRows
from training.adapters.lake import EVENTS, PREDICTIONS, QUARANTINE, Lake
from training.adapters.ledger import Ledger
from training.adapters.quarantine_table import Quarantine
from training.adapters.registry import Registry
from training.adapters.registry.retention import (
    FORGOTTEN,
    delete_artifacts,
    needed_table_versions,
    registered_models,
    table_versions,
)
from training.adapters.tables import Events
from training.contract.errors import DataContractError, StepError
from training.contract.messages import ForgetInputs, ForgetResult
from training.contract.model_spec import models_of, source_of
from training.contract.source_spec import load_source_spec
from training.domain.arrow_types import feed_schema
from training.domain.forgetting import ids_of, one_of, parse_entity, quarantined, written_as
from training.domain.sql_names import quoted
from training.forgotten import FOLDER, record
from training.forgotten_artifacts import clean_versions
from training.left_behind import left_behind
from training.settings import StateSettings
from training.workspace import DATA_DOCS, MADE_AGAIN

log = logging.getLogger("perennial")


def run(inputs: ForgetInputs, settings: StateSettings) -> ForgetResult:
    """See docs/privacy.md for what is removed, and what stays.

    Raises InputError for a column that holds no entities; TransientError when another writer changed a table meanwhile,
    or when MLflow or a store does not answer: run it again then.
    """
    return _Forget(inputs, settings).run()


class _Forget:
    def __init__(self, inputs: ForgetInputs, settings: StateSettings) -> None:
        self.spec = load_source_spec(inputs.source, settings.feature_repo)
        self.settings, self.dry = settings, inputs.dry_run
        self.events = feed_schema(self.spec.events)
        columns = dict.fromkeys(name for name in self.spec.entities.values() if name in self.events.names)
        self.entity = parse_entity(inputs.entity, {name: self.events.field(name).type for name in columns})
        self.mine = pc.field(self.entity.column) == self.entity.value
        self.lake = Lake(settings.lake, self.spec.name)
        #: The models with predictions of this source, and those that learned from it, also when their specs are gone.
        self.predicting = storage.folders(storage.join(settings.lake, self.spec.name, PREDICTIONS))
        self.models = self._models()
        self.removed: dict[str, int] = {}
        self.left: list[str] = []

    def run(self) -> ForgetResult:
        pinned = {model: table_versions(self.settings.tracking_uri, model) for model in self.models}
        needed = {pair for versions in pinned.values() for tables in versions.values() for pair in tables.items()}
        holding = {pair for pair in needed if self._holds(*pair, self.entity.column, self.mine)}
        texts = [row["row"] for row in Quarantine(self.lake).rows("row")]
        ids = self._ids(holding, texts)
        of_events = pc.field(self.spec.id_column).isin(sorted(ids))
        holding |= {pair for pair in needed if ids and self._holds(*pair, self.spec.id_column, of_events)}
        affected = {
            model: learned
            for model, versions in pinned.items()
            if (learned := [version for version, tables in versions.items() if holding & tables.items()])
        }
        predicates = self._predicates(ids, texts)
        found = {table: self._count(table, each) for table, each in predicates.items()}
        tombstone = ""
        if not self.dry and (any(found.values()) or affected):
            tombstone = self._tombstone(affected, found, ids)
        self.removed |= {table: rows for table, rows in found.items() if rows}
        if not self.dry:
            self._remove_rows(predicates)
            self._vacuum(predicates)
            self._clean_online()
        for model in self.models:
            self._clean_work(model)
            removed, left = clean_versions(model, self.entity, self.settings, self.dry)
            self.removed |= removed
            self.left += left
        self._remove_work(self.spec.name, DATA_DOCS)
        self.left += left_behind(self.spec, self.entity, ids, self.models, self.settings)
        for sentence in self.left:
            log.info("%s", sentence)
        log.info("%s: %s", "Would be removed" if self.dry else "Removed", self.removed)
        return ForgetResult(tombstone=tombstone, removed=self.removed, versions=affected, left=self.left)

    def _models(self) -> list[str]:
        """Those whose specs name the source, and registered ones without a spec, unless they predict for another."""
        others = [name for name in storage.folders(self.settings.lake) if name != self.spec.name]
        elsewhere = {
            model for name in others for model in storage.folders(storage.join(self.settings.lake, name, PREDICTIONS))
        }
        without_spec = {
            model
            for model in registered_models(self.settings.tracking_uri)
            if source_of(model, self.settings.models_dir) is None
            and (model in self.predicting or model not in elsewhere)
        }
        return sorted({*models_of(self.spec.name, self.settings.models_dir), *without_spec})

    def _has(self, table: str) -> bool:
        return self.lake.version(table) is not None

    def _holds(self, table: str, number: int, column: str, matching: pc.Expression) -> bool:
        """Whether a version of a table has rows of the person. A version that is gone has none."""
        try:
            stored = self.lake.scan(table, number)
            return column in stored.schema.names and stored.count_rows(filter=matching) > 0
        except (StepError, OSError):  # Its files were deleted before.
            return False

    def _ids(self, holding: set[tuple[str, int]], texts: list[str]) -> set[Any]:
        """The ids of the person's events: of the newest version, of those that are needed, of quarantine."""
        name = self.spec.id_column
        found = ids_of(texts, self.entity, name, number=pa.types.is_integer(self.events.field(name).type))
        if (newest := self.lake.version(EVENTS)) is not None:
            for number in sorted({newest, *(number for table, number in holding if table == EVENTS)}):
                found |= Events(self.lake, self.spec, number).ids_of(self.entity.column, self.entity.value)
        return found - {None}

    def _predicates(self, ids: set[Any], texts: list[str]) -> dict[str, list[str]]:
        """Table → SQL that the person's rows in it match. Events last: the others are found by their ids."""
        found: dict[str, list[str]] = {}
        for model in self.predicting:
            held = Lake(self.settings.lake, self.spec.name, model).schema(PREDICTIONS)
            found[f"{PREDICTIONS}/{model}"] = [self.entity.equals(each) for each in self._event_columns(held)]
        if self._has(QUARANTINE):
            found[QUARANTINE] = one_of("row", quarantined(texts, self.entity, self.spec.id_column, ids))
        for table in [*(each for each in self._tables() if each != EVENTS), EVENTS]:
            held = self.lake.schema(table)
            names = [] if held is None else held.names
            if table not in self.spec.tables:  # Nobody checks its types any more.
                found[table] = [self.entity.equals(quoted(self.entity.column))] if self.entity.column in names else []
                found[table] += written_as(quoted(self.spec.id_column), ids) if self.spec.id_column in names else []
            elif self.entity.column in names:
                found[table] = [self.entity.predicate]
            elif table in self.spec.feeds and names:
                found[table] = one_of(self.spec.id_column, ids)
        return found

    def _event_columns(self, predictions: pa.Schema | None) -> list[str]:
        """SQL of the columns of a table of predictions that hold the entity, also in a type that it once had."""
        if predictions is None:
            return []
        name = self.entity.column.lower()
        if "event" not in predictions.names or not pa.types.is_struct(predictions.field("event").type):
            return [quoted(each) for each in predictions.names if each.lower() == name]
        held = [field.name for field in predictions.field("event").type]
        mine = [each for each in held if each.lower() == name or each.lower().startswith(f"_{name}_")]
        return [f"get_field(event, '{each}')" for each in mine]

    def _tables(self) -> list[str]:
        """Those of the spec, and of feeds and feature tables that were taken out of it."""
        found = list(self.spec.tables)
        ours = {PREDICTIONS, QUARANTINE, FOLDER, *found}
        for name in storage.folders(storage.join(self.settings.lake, self.spec.name)):
            if name in ours:
                continue
            try:
                found += [name] if self._has(name) else []
            except DataContractError as error:
                self.left.append(f"{error.message}: look into it yourself")
        return found

    def _of(self, table: str) -> tuple[Lake, str]:
        """The lake and its name of a table of `_predicates`."""
        folder, _, model = table.partition("/")
        return (Lake(self.settings.lake, self.spec.name, model), folder) if model else (self.lake, table)

    def _count(self, table: str, predicates: list[str]) -> int:
        lake, name = self._of(table)
        return sum(lake.count_where(name, predicate) for predicate in predicates)

    def _tombstone(self, affected: dict[str, list[int]], found: dict[str, int], ids: set[Any]) -> str:
        """Before anything is removed: say what cannot be made again, and which partitions lose rows."""
        tombstone, registry = secrets.token_hex(8), Registry(self.settings.tracking_uri)
        for model in sorted({*self.models, *self.predicting}):
            for version in affected.get(model, ()):
                registry.tag(model, version, FORGOTTEN, tombstone)
            tables = {name: rows for name, rows in found.items() if "/" not in name or name.endswith(f"/{model}")}
            body = {"column": self.entity.column, "versions": affected.get(model, []), "rows": tables}
            Ledger(self.settings.ledger).append(FORGOTTEN, model, body, tombstone)
        record(self.settings.lake, self.spec.name, tombstone, self.entity.column, self._partitions(ids))
        return tombstone

    def _partitions(self, ids: set[Any]) -> dict[str, list[str]]:
        """Feed → the partitions that lose rows of the person, or of the person's events."""
        found, of_events = {}, pc.field(self.spec.id_column).isin(sorted(ids))
        for feed in self.spec.feeds:
            if (held := self.lake.schema(feed)) is not None:
                mine = self.mine if self.entity.column in held.names else of_events
                names = self.lake.scan(feed).to_table(["partition"], filter=mine)["partition"]
                found[feed] = sorted(set(names.to_pylist()))
        return found

    def _remove_rows(self, predicates: dict[str, list[str]]) -> None:
        for table, each in predicates.items():
            lake, name = self._of(table)
            for predicate in each:
                lake.remove(name, predicate)

    def _vacuum(self, predicates: dict[str, list[str]]) -> None:
        """Delete the files of all earlier versions, but of those that registered versions without the person need."""
        kept = needed_table_versions(
            self.settings.tracking_uri,
            lambda model: source_of(model, self.settings.models_dir) in (None, self.spec.name),
        )
        for table in dict.fromkeys([*predicates, *self.spec.tables, QUARANTINE]):
            lake, name = self._of(table)
            lake.vacuum(name, 0, kept.get(table, set()))

    def _clean_online(self) -> None:
        """Materializing deletes all online rows of entities that the newest version does not have."""
        versions = self.lake.versions(*self.spec.entities)
        if lacking := sorted(self.spec.entities.keys() - versions.keys()):
            said = f"the lake lacks {', '.join(lacking)}. If it has rows of {self.spec.name}, run the step features"
            self.left.append(f"The online store was left as it is, because {said}, then run this again")
            return
        OnlineRows(self.settings, self.spec).erase(versions)

    def _clean_work(self, model: str) -> None:
        """What is made again from the lake, and artifacts of runs that no registered version belongs to."""
        for folder in MADE_AGAIN:
            self._remove_work(model, folder)
        runs = delete_artifacts(self.settings.tracking_uri, model, datetime.now(UTC), self.dry, unended=True)
        if runs:
            self.removed[f"artifacts of unregistered runs of {model}"] = len(runs)

    def _remove_work(self, owner: str, folder: str) -> None:
        """Delete a folder of the source or of a model, if it has files, where it is shared and where steps work."""
        for work in dict.fromkeys([self.settings.work.removeprefix("file://"), str(self.settings.scratch)]):
            uri = storage.join(work, owner, folder)
            if files := len(storage.tree(uri)):
                name = f"work/{owner}/{folder}"
                self.removed[name] = self.removed.get(name, 0) + files
                if not self.dry:
                    storage.remove_folder(uri)
