"""The newest feature rows of a source in the online store, and its definitions in the published registry."""

import contextlib
import json
import logging
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

import training.adapters.features.store as stores
from training.adapters.features.chosen import ChosenFeatures, chosen_features
from training.adapters.features.definitions import Definitions, described, load_definitions
from training.adapters.features.definitions_file import definitions_digest
from training.adapters.features.online_record import OnlineRecord
from training.adapters.features.online_stores import contract_errors, online_config, online_store, store_address
from training.adapters.features.sharing import clashes
from training.adapters.features.view_rows import newest_day, pinned_version, scan_view
from training.adapters.lake import Lake
from training.compat import feast as compat
from training.contract.base import TableVersions, midnight
from training.contract.errors import ConfigError, DataContractError, InputError
from training.contract.model_spec import ModelSpec, load_model_spec, models_of
from training.contract.source_spec import SourceSpec, source_names
from training.settings import StateSettings

if TYPE_CHECKING:
    from feast.repo_config import RepoConfig

log = logging.getLogger("perennial")


class OnlineRows:
    """The rows of one source. Every model that learns from the source looks up the same rows."""

    def __init__(self, settings: StateSettings, source: SourceSpec) -> None:
        self._settings, self._source = settings, source
        self._lake = Lake(settings.lake, source.name)

    def materialize(self, versions: TableVersions, restore: bool = False) -> tuple[date | None, dict[str, int]]:
        """Have the newest feature row of each entity in the online store, and no other rows.

        Returns the newest feature day online, and the number of rows per table that are now online. Reads the feature
        rows within the view's ttl of the newest day. An entity without a row in that time has none online. A version
        older than the one that is online is skipped, so a late run does not undo a newer one, unless the lake lost that
        one. Where it is certain which version is online, only entities whose rows differ are written. `restore`: all.
        Raises InputError when a version is missing or lacks features that the definitions name, ConfigError when
        another source has published objects of the same names, TransientError when the store does not answer.
        """
        written = dict.fromkeys(self._source.entities, 0)
        with stores.registry_lock(self._settings):
            self._publish()
            record = OnlineRecord(self._settings, self._source.name)
            for view in self._definitions.views:
                version = pinned_version(versions, view.name)
                if (newer := record.newer_than(view.name, self._lake, version)) is not None:
                    log.info("%s: skipped version %d, because version %d is online", view.name, version, newer)
                    continue
                newest = self._newest_rows(view, version)
                day = pc.max(newest["day"]).as_py()
                before = None if restore else self._online_rows(view, record)
                record.begin(view, self._lake, version, day)
                changed, removed = self._put_online(view, newest, before, record)
                written[view.name] = newest.num_rows
                counts = (view.name, version, day, newest.num_rows, changed, removed)
                log.info("%s: version %d up to %s, %d entities online, %d written, %d removed", *counts)
        return record.newest([view.name for view in self._definitions.views]), written

    def erase(self, versions: TableVersions) -> None:
        """As `materialize`. The store's files then hold nothing of deleted rows, in space that is free, either."""
        self.materialize(versions)
        with contract_errors(self._settings):
            online_store(self._settings).purge(self._config)

    def _online_rows(self, view: Any, record: OnlineRecord) -> pa.Table | None:
        """The rows of `view` that are online; None when that is not certain, or the lake cannot be asked any more."""
        with contract_errors(self._settings):
            mark = online_store(self._settings).mark(self._config, view.name)
        if (written := record.written(view.name)) not in (None, mark):
            found = f"has those of {mark}: it, or the record, was restored from an older copy"
            log.warning(
                "%s: rows were last written at %s, and the online store at %s %s. All are written again",
                *(view.name, written, store_address(self._settings), found if mark else "has lost them"),
            )
        version = record.complete_version(view, self._lake, mark)
        # The files of an older version may have been deleted.
        with contextlib.suppress(InputError, DataContractError):
            return None if version is None else self._newest_rows(view, version)
        return None

    def _put_online(self, view: Any, rows: pa.Table, before: pa.Table | None, record: OnlineRecord) -> tuple[int, int]:
        """Have `rows` and no others of `view` online. `before`: those that are; None: not known.

        Returns how many entities were written and how many deleted.
        """
        key, online = self._source.entities[view.name], online_store(self._settings)
        with contract_errors(self._settings):
            config = self._config
            compat.prepare_online_store(config, [view])
            changed = rows if before is None else changed_rows(rows, before, key)
            stored = compat.stored_rows(config, view, changed, "feature_timestamp")
            if stored.keys:
                online.write(config, view, stored)
            if before is None:
                removed = online.keep_only(config, view, set(stored.keys), *record.stored(view.name))
            else:
                gone = before.filter(pc.invert(pc.is_in(before[key], rows[key].combine_chunks())))
                removed = gone.num_rows
                online.delete(config, view, compat.stored_rows(config, view, gone, "feature_timestamp").keys)
            record.end(view, online.mark_complete(config, view.name))
        return len(stored.keys), removed

    def publish(self) -> None:
        """Publish the definitions, for the `feast` command and its UI, unless they are published already."""
        with stores.registry_lock(self._settings):
            self._publish()

    @cached_property
    def _definitions(self) -> Definitions:
        found = load_definitions(self._settings.feature_repo, self._source)
        described_views = {each.name: each for each in described(found, self._source).views}
        for view in found.views:
            compat.complete_view(view, self._source.entities[view.name], described_views[view.name].entity_type)
        return found

    @cached_property
    def _config(self) -> "RepoConfig":
        return online_config(self._settings)

    def _publish(self) -> None:
        folder = self._settings.feature_repo
        definitions = load_definitions(folder, self._source)
        # When two sources use one name, the source that was published first keeps it.
        others = [name for name in source_names(folder) if name != self._source.name]
        published = [name for name in others if stores.published(self._settings, name)]
        for clash in clashes(definitions, self._source, published, self._settings):
            raise clash
        for view in definitions.views:
            view.batch_source.file_options.uri = self._lake.uri(view.name)
        models = self._models()
        services = [chosen.service for model in models if (chosen := self._chosen(definitions, model))]
        chosen_of = json.dumps({model.name: model.model_dump(include={"features"}) for model in models})
        digest = f"{definitions_digest(folder, self._source)} {self._settings.lake} {chosen_of}"
        objects = [*definitions.objects, *(each for each in services if each.name not in definitions.services)]
        with contract_errors(self._settings):
            applied = stores.publish(self._settings, objects, self._source.name, digest)
        if applied:
            log.info("Published the feature definitions to %s", self._settings.feature_registry)

    def _models(self) -> list[ModelSpec]:
        """The models that learn from the source. One whose spec is broken is left out; its own check reports it."""
        found = []
        for name in models_of(self._source.name, self._settings.models_dir):
            try:
                found.append(load_model_spec(name, self._settings.models_dir, self._settings.feature_repo))
            except ConfigError as error:
                log.warning("The feature service of %s is not published: %s", name, error)
        return found

    def _chosen(self, definitions: Definitions, model: ModelSpec) -> ChosenFeatures | None:
        try:
            return chosen_features(definitions, model, self._settings.feature_repo)
        except ConfigError as error:
            log.warning("The feature service of %s is not published: %s", model.name, error)
            return None

    def _newest_rows(self, view: Any, version: int) -> pa.Table:
        """The last row of each entity among the rows within the view's ttl of the newest day."""
        rows = scan_view(self._lake, view, version)
        newest = newest_day(rows)
        if newest is None:
            return rows.head(0)
        key = self._source.entities[view.name]
        columns = [key, "feature_timestamp", *(feature.name for feature in view.features), "day"]
        since = midnight(newest) - view.ttl
        valid = (ds.field("day") >= since.date()) & (ds.field("feature_timestamp") >= since)
        found = rows.to_table(columns, filter=valid)
        return newest_of_each(found, key)


def newest_of_each(rows: pa.Table, key: str) -> pa.Table:
    """Of each value of the column `key`, the row with the last `feature_timestamp`."""
    order = pc.sort_indices(rows["feature_timestamp"]).to_numpy()
    entities = rows[key].combine_chunks().dictionary_encode()
    newest = np.empty(len(entities.dictionary), np.int64)
    # Of several rows for one place, the last one stays: NumPy documents that.
    newest[entities.indices.to_numpy()[order]] = order
    return rows.take(np.sort(newest))


def changed_rows(rows: pa.Table, before: pa.Table, key: str) -> pa.Table:
    """Those of `rows` (one for each `key`) that are not in `before`, or differ in any column but `day`."""
    found = before.take(pc.index_in(rows[key], before[key].combine_chunks()))
    changed = pc.is_null(found[key])
    for name in (name for name in rows.column_names if name not in (key, "day")):
        same = pc.fill_null(pc.equal(rows[name], found[name]), False)
        both_null = pc.and_(pc.is_null(rows[name]), pc.is_null(found[name]))
        changed = pc.or_(changed, pc.invert(pc.or_(same, both_null)))
    return rows.filter(changed)
