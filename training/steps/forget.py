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
from training.adapters.registry import Registry
from training.adapters.registry.retention import FORGOTTEN, delete_artifacts, needed_table_versions, table_versions
from training.contract.errors import StepError
from training.contract.messages import ForgetInputs, ForgetResult
from training.contract.model_spec import models_of, source_of
from training.contract.source_spec import load_source_spec
from training.domain.arrow_types import feed_schema
from training.domain.forgetting import literal, one_of, parse_entity, quarantined
from training.forgotten import record
from training.forgotten_artifacts import clean_versions, landed_files, unfinished_replays
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
        events = feed_schema(self.spec.events)
        columns = dict.fromkeys(name for name in self.spec.entities.values() if name in events.names)
        self.entity = parse_entity(inputs.entity, {name: events.field(name).type for name in columns})
        self.mine = pc.field(self.entity.column) == self.entity.value
        self.lake, self.models = Lake(settings.lake, self.spec.name), models_of(self.spec.name, settings.models_dir)
        self.removed: dict[str, int] = {}
        self.left: list[str] = []

    def run(self) -> ForgetResult:
        pinned = {model: table_versions(self.settings.tracking_uri, model) for model in self.models}
        holding = self._holding(pinned)
        affected = {
            model: learned
            for model, versions in pinned.items()
            if (learned := [version for version, tables in versions.items() if holding & tables.items()])
        }
        ids = self._ids(holding)
        predicates = self._predicates(ids)
        found = {table: self._count(table, each) for table, each in predicates.items()}
        tombstone = ""
        if not self.dry and (any(found.values()) or affected):
            tombstone = self._tombstone(affected, found, ids)
        self.removed |= {table: rows for table, rows in found.items() if rows}
        if not self.dry:
            self._remove_rows(predicates)
            self._vacuum()
            self._clean_online()
        for model in self.models:
            self._clean_work(model)
            removed, left = clean_versions(model, self.entity, self.settings, self.dry)
            self.removed |= removed
            self.left += left
        self._remove_work(self.spec.name, DATA_DOCS)
        self.left += landed_files(self.spec, self.entity, ids, self.settings)
        self.left += unfinished_replays(self.spec, self.entity, ids, self.settings)
        self.left += _REST
        for sentence in self.left:
            log.info("%s", sentence)
        log.info("%s: %s", "Would be removed" if self.dry else "Removed", self.removed)
        return ForgetResult(tombstone=tombstone, removed=self.removed, versions=affected, left=self.left)

    def _holding(self, pinned: dict[str, dict[int, dict[str, int]]]) -> set[tuple[str, int]]:
        """The versions of tables, of those that registered versions need, that hold the person's rows."""
        needed = {pair for versions in pinned.values() for tables in versions.values() for pair in tables.items()}
        return {pair for pair in needed if self._holds(*pair)}

    def _holds(self, table: str, number: int) -> bool:
        """Whether a version of a table has rows of the person. A version that is gone has none."""
        try:
            stored = self.lake.scan(table, number)
            return self.entity.column in stored.schema.names and stored.count_rows(filter=self.mine) > 0
        except (StepError, OSError):  # Its files were deleted before.
            return False

    def _ids(self, holding: set[tuple[str, int]]) -> set[Any]:
        """The ids of the person's events, of the newest version and of those that registered versions need."""
        if self.lake.version(EVENTS) is None:
            return set()
        name, found = self.spec.id_column, set[Any]()
        for number in [None, *sorted(number for table, number in holding if table == EVENTS)]:
            found |= set(self.lake.scan(EVENTS, number).to_table([name], filter=self.mine)[name].to_pylist())
        return found

    def _predicates(self, ids: set[Any]) -> dict[str, list[str]]:
        """Table → SQL that the person's rows in it match. Events last: the others are found by their ids."""
        found: dict[str, list[str]] = {}
        for model in self.models:
            if (held := Lake(self.settings.lake, self.spec.name, model).schema(PREDICTIONS)) is not None:
                inside = "event" in held.names and pa.types.is_struct(held.field("event").type)
                column = f"get_field(event, '{self.entity.column}')" if inside else self.entity.column
                found[f"{PREDICTIONS}/{model}"] = [f"{column} = {literal(self.entity.value)}"]
        if self.lake.version(QUARANTINE) is not None:
            texts = self.lake.scan(QUARANTINE).to_table(["row"])["row"].to_pylist()
            found[QUARANTINE] = one_of("row", quarantined(texts, self.entity, self.spec.id_column, ids))
        for table in [*(each for each in self.spec.tables if each != EVENTS), EVENTS]:
            held = self.lake.schema(table)
            if held is None:
                continue
            if self.entity.column in held.names:
                found[table] = [self.entity.predicate]
            elif table in self.spec.feeds:
                found[table] = one_of(self.spec.id_column, ids)
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
        for model in self.models:
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

    def _vacuum(self) -> None:
        """Delete the files of all earlier versions, but of those that registered versions without the person need."""
        kept = needed_table_versions(
            self.settings.tracking_uri,
            lambda model: source_of(model, self.settings.models_dir) in (None, self.spec.name),
        )
        for table in [*self.spec.tables, QUARANTINE]:
            self.lake.vacuum(table, 0, kept.get(table, set()))
        for model in self.models:
            Lake(self.settings.lake, self.spec.name, model).vacuum(PREDICTIONS, 0, ())

    def _clean_online(self) -> None:
        """Materializing deletes all online rows of entities that the newest version does not have."""
        versions = self.lake.versions(*self.spec.entities)
        if versions.keys() == self.spec.entities.keys():
            OnlineRows(self.settings, self.spec).materialize(versions)

    def _clean_work(self, model: str) -> None:
        """What is made again from the lake, and artifacts of runs that no registered version belongs to."""
        folders = storage.folders(storage.join(self.settings.work, model))
        for folder in sorted(set(folders) & set(MADE_AGAIN)):
            self._remove_work(model, folder)
        runs = delete_artifacts(self.settings.tracking_uri, model, datetime.now(UTC), self.dry)
        if runs:
            self.removed[f"artifacts of unregistered runs of {model}"] = len(runs)

    def _remove_work(self, owner: str, folder: str) -> None:
        """Delete a work folder of the source or of a model, if it has files."""
        uri = storage.join(self.settings.work, owner, folder)
        if files := len(storage.tree(uri)):
            self.removed[f"work/{owner}/{folder}"] = files
            if not self.dry:
                storage.remove_folder(uri)


_REST = [
    "Predictions that a replica has not shipped yet come into the table later: run this again when they have.",
    "Replicas have copies of versions on their disks, with golden rows, until the next version replaces them.",
    "Backups made before now hold the rows: delete them when their time is over.",
    "Delta's log keeps the smallest and the largest value of each column of a file, also of files that are gone.",
    "Holdout rows of registered versions keep features, labels and times of single events, without the entities.",
    "Features of other entities, and models, were computed from the rows and stay; they do not name the person.",
    "Reports of drift, performance and audit may show single values: delete <work>/<model>/<report> if they must go.",
]
