"""The features of one model: their names, their values in history, and their newest values."""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

import training.adapters.features.store as stores
from training.adapters.features.definitions import (
    Definitions,
    described,
    load_definitions,
)
from training.adapters.features.definitions_file import definitions_digest, functions_of
from training.adapters.features.feature_plan import FeaturePlan, OnlineFeatures
from training.adapters.features.history import event_columns, look_up, timed_rows
from training.adapters.features.online_record import OnlineRecord
from training.adapters.features.online_stores import contract_errors, online_store
from training.adapters.features.online_stores._feast_reader import OnlineReader
from training.adapters.features.sharing import clashes
from training.adapters.lake import Lake
from training.compat import feast as compat
from training.contract.base import TableVersions, midnight
from training.contract.errors import InputError
from training.contract.feature_definitions import FeatureDefinitions, ViewDefinition
from training.contract.model_spec import ModelSpec, model_names
from training.contract.registries import FEATURE_ENGINES
from training.domain.feature_engine import TimedRows
from training.settings import StateSettings

if TYPE_CHECKING:
    from feast import FeatureStore

log = logging.getLogger("perennial")

#: Rows per lookup. SQLite allows 32,766 variables in a query.
_LOOKUP = 10_000


class Features:
    """The features of one model. The first call that needs Feast imports it, which takes more than a second."""

    def __init__(self, settings: StateSettings, spec: ModelSpec) -> None:
        self._settings, self._spec = settings, spec
        self._lake = Lake(settings.lake, spec.name)
        self._time_column = spec.feeds["events"].time_column

    def names(self) -> list[str]:
        """The features of the feature service, in its order. Models take them in this order."""
        return list(self._definitions.names)

    def historical(
        self, rows: pd.DataFrame, versions: TableVersions, at: pd.DatetimeIndex | None = None
    ) -> pd.DataFrame:
        """`rows` (events, at least one) with the feature columns (float32, text) added. Length and order stay the same.
        Columns of the event that are features stay as they are.

        The values are those of the newest feature rows at the times of the events, or at the times `at` (UTC, one per
        row) if given. Reads exactly the `versions` of the feature tables. A batch feature is 0 when there is no feature
        row, when the entity is null, or when the row is older than its view's ttl.
        Raises InputError when a version is missing or lacks features that the definitions name.
        """
        return self.historical_with_batch(rows, versions, at)[0]

    def historical_with_batch(
        self, rows: pd.DataFrame, versions: TableVersions, at: pd.DatetimeIndex | None = None
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """As `historical`, and also the joined values of the views' columns (float32; NaN: no feature row)."""
        times = pd.DatetimeIndex(rows[self._time_column]).tz_convert("UTC").as_unit("us")
        as_of = times if at is None else at.as_unit("us")
        days = as_of.min().date(), as_of.max().date()
        views = [self._rows_of(view, versions, *days) for view in self.definitions.views]
        batch = look_up(FEATURE_ENGINES.find("duckdb")(), rows, as_of, views)
        columns = event_columns(rows, self._full_plan.event_columns)
        columns[self._time_column] = times.tz_convert(None).to_numpy()
        features = self._full_plan.named_values(columns | batch, len(rows))
        joined = pd.DataFrame(batch, index=pd.RangeIndex(len(rows)))
        # A column of the event that is a feature stays as it is.
        return rows.assign(**{name: values for name, values in features.items() if name not in rows}), joined

    def online(self, rows: Sequence[Mapping[str, Any]]) -> OnlineFeatures:
        """The features of `rows` (events) from the online store, with the defaults of `historical`.

        Times in `rows` are datetimes or ISO strings. A feature row older than its view's ttl at the event's time is not
        used. Raises TransientError when the store does not answer.
        """
        plan, parts = self._full_plan, [rows[i : i + _LOOKUP] for i in range(0, len(rows), _LOOKUP)]
        chunks = [plan.assemble(part, self.reader.look_up(part, plan.views)) for part in parts]
        values = [chunk.values for chunk in chunks] or [np.empty((0, len(self.names())), np.float32)]
        return OnlineFeatures(np.concatenate(values), [stamp for chunk in chunks for stamp in chunk.timestamps])

    @cached_property
    def definitions(self) -> FeatureDefinitions:
        """The definitions of the service's features, as an artifact holds them."""
        return described(self._definitions, self._spec)

    def plan(self, wanted: Sequence[str] | None = None) -> FeaturePlan:
        """The plan that computes the features `wanted` (None: all) online, in this order."""
        names = self.names() if wanted is None else wanted
        return FeaturePlan(self.definitions, functions_of(self._definitions.on_demand), self._spec, names)

    @cached_property
    def _full_plan(self) -> FeaturePlan:
        return self.plan()

    @cached_property
    def reader(self) -> OnlineReader:
        """A reader of the online store, for one thread at a time."""
        return OnlineReader(self._settings)

    def materialize(self, versions: TableVersions) -> tuple[date | None, dict[str, int]]:
        """Write the newest feature row of each entity to the online store, and delete all other rows.

        Returns the newest feature day online, and the number of rows written per table. Reads the feature rows within
        the view's ttl of the newest day. An entity without a row in that time has none online. A version older than the
        one that is online is skipped, so a late run does not undo a newer one.
        Raises InputError when a version is missing or lacks features that the definitions name, ConfigError when
        another model has published objects of the same names, TransientError when the store does not answer.
        """
        written = dict.fromkeys(self._spec.features.tables, 0)
        with stores.registry_lock(self._settings):
            self._publish()
            record = OnlineRecord(self._settings, self._spec.name)
            for view in self._definitions.views:
                version, table = self._pinned(versions, view.name), self._lake.identity(view.name) or ""
                if (newer := record.newer_than(view.name, table, version)) is not None:
                    log.info("%s: skipped version %d, because version %d is online", view.name, version, newer)
                    continue
                newest = self._newest_rows(view, version)
                day = pc.max(newest["day"]).as_py()
                record.begin(view, table, version, day)
                removed = self._put_online(view, newest, record)
                record.end(view)
                written[view.name] = newest.num_rows
                counts = (view.name, version, day, newest.num_rows, removed)
                log.info("%s: version %d up to %s, %d entities online, %d removed", *counts)
        return record.newest([view.name for view in self._definitions.views]), written

    def _put_online(self, view: Any, rows: pa.Table, record: OnlineRecord) -> int:
        """Write `rows` and delete the other rows of `view`. Returns the number of entities deleted."""
        with contract_errors(self._settings):
            store = self._feature_store
            if rows.num_rows:
                store.write_to_online_store(view.name, rows.drop_columns("day").to_pandas())
            [column] = view.entity_columns
            entities = rows[self._spec.features.tables[view.name]].to_pylist()
            keys = compat.stored_keys(store.config, column.name, entities, column.dtype.to_value_type())
            return online_store(self._settings).keep_only(store.config, view, keys, *record.stored(view.name))

    def publish(self) -> None:
        """Publish the definitions, for the `feast` command and its UI, unless they are published already."""
        with stores.registry_lock(self._settings):
            self._publish()

    @cached_property
    def _definitions(self) -> Definitions:
        return load_definitions(self._settings.feature_repo, self._spec)

    @cached_property
    def _feature_store(self) -> "FeatureStore":
        # It stays open until the process ends.
        self._open = contextlib.ExitStack()
        return self._open.enter_context(stores.private_store(self._settings, self._definitions, online=True))

    def _publish(self) -> None:
        definitions = load_definitions(self._settings.feature_repo, self._spec)
        # When two models use one name, the model that was published first keeps it.
        others = [name for name in model_names(self._settings.models_dir) if name != self._spec.name]
        published = [name for name in others if stores.published(self._settings, name)]
        for clash in clashes(definitions, self._spec, published, self._settings):
            raise clash
        for view in definitions.views:
            view.batch_source.file_options.uri = self._lake.uri(view.name)
        digest = f"{definitions_digest(self._settings.feature_repo, self._spec)} {self._settings.lake}"
        with contract_errors(self._settings):
            applied = stores.publish(self._settings, definitions, self._spec.name, digest)
        if applied:
            log.info("Published the feature definitions to %s", self._settings.feature_registry)

    def _pinned(self, versions: TableVersions, table: str) -> int:
        if table not in versions:
            raise InputError(f"table_versions names no version of {table!r}", hint="Run the features step first.")
        return versions[table]

    def _scan(self, view: Any, version: int) -> ds.Dataset:
        """The feature table of `view` at `version`. Raises InputError when it lacks features of the view."""
        rows = self._lake.scan(view.name, version)
        if missing := [feature.name for feature in view.features if feature.name not in rows.schema.names]:
            problem = f"Version {version} of {view.name!r} in {self._lake.uri(view.name)} has no {missing}"
            raise InputError(
                problem, hint="An older definition made this version. Run the features step and name a newer version."
            )
        return rows

    def _newest_rows(self, view: Any, version: int) -> pa.Table:
        """The last row of each entity among the rows within the view's ttl of the newest day."""
        rows = self._scan(view, version)
        newest = pc.max(rows.to_table(columns=["day"])["day"]).as_py()
        if newest is None:
            return rows.head(0)
        key = self._spec.features.tables[view.name]
        columns = [key, "feature_timestamp", *(feature.name for feature in view.features), "day"]
        found = rows.to_table(columns, filter=ds.field("feature_timestamp") >= midnight(newest) - view.ttl)
        last = found.group_by(key).aggregate([("feature_timestamp", "max")])
        last = last.rename_columns([key, "feature_timestamp"])
        return found.join(last, [key, "feature_timestamp"], join_type="inner")

    def _rows_of(self, needed: ViewDefinition, versions: TableVersions, first: date, last: date) -> TimedRows:
        """The feature rows that events from `first` to `last` can need, with the columns that are `needed`."""
        [view] = [view for view in self._definitions.views if view.name == needed.name]
        days = (ds.field("day") >= first - view.ttl) & (ds.field("day") <= last)
        rows = self._scan(view, self._pinned(versions, view.name)).filter(days)
        return timed_rows(view, [needed.entity], [column.name for column in needed.columns], rows)
