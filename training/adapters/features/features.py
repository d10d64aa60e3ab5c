"""The features of one model: their names, their values in history, and their values online."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from training.adapters.features.chosen import ChosenFeatures, chosen_features
from training.adapters.features.definitions import Definitions, described, load_definitions
from training.adapters.features.definitions_file import functions_of
from training.adapters.features.feature_plan import FeaturePlan, OnlineFeatures, event_texts
from training.adapters.features.history import event_columns, look_up, timed_rows
from training.adapters.features.online_stores._feast_reader import OnlineReader
from training.adapters.features.view_rows import pinned_version, scan_view
from training.adapters.lake import Lake
from training.contract.base import TableVersions
from training.contract.feature_definitions import FeatureDefinitions, ViewDefinition
from training.contract.model_spec import ModelSpec
from training.domain.feature_engine import FeatureEngine, LakeRows, TimedRows
from training.engine import engine_of
from training.settings import StateSettings

#: Rows per lookup. SQLite allows 32,766 variables in a query.
_LOOKUP = 10_000


class Features:
    """The features of one model. The first call that needs Feast imports it, which takes more than a second.

    `lake`: what the caller has read feature tables with, so that their files need not be listed again.
    """

    def __init__(self, settings: StateSettings, spec: ModelSpec, lake: Lake | None = None) -> None:
        self._settings, self._spec = settings, spec
        self._lake = lake or Lake(settings.lake, spec.source.name, spec.name)
        self._time_column = spec.source.events.time_column

    def names(self) -> list[str]:
        """The features that the model spec names. Models take them in this order."""
        return list(self._chosen.names)

    @property
    def service(self) -> str:
        """The name of the feature service with these features."""
        return str(self._chosen.service.name)

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
        batch = look_up(self._engine, rows, as_of, views)
        columns = event_columns(rows, self._full_plan.event_columns)
        columns[self._time_column] = times.tz_convert(None).to_numpy()
        features = self._full_plan.named_values(columns | batch, len(rows))
        joined = pd.DataFrame(batch, index=pd.RangeIndex(len(rows)), copy=False)
        # A column of the event that is a feature stays as it is.
        added = {name: values for name, values in features.items() if name not in rows}
        return pd.concat([rows, pd.DataFrame(added, index=rows.index, copy=False)], axis=1, copy=False), joined

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
        """The definitions of the model's features, as an artifact holds them."""
        return described(self._definitions, self._spec.source).needed_for(self._chosen.names)

    @property
    def texts(self) -> set[str]:
        """The features that are texts."""
        return self.definitions.texts | event_texts(self.definitions, self._spec)

    def plan(self, wanted: Sequence[str] | None = None) -> FeaturePlan:
        """The plan that computes the features `wanted` (None: all) online, in this order."""
        names = self.names() if wanted is None else wanted
        return FeaturePlan(self.definitions, functions_of(self._definitions.on_demand), self._spec, names)

    @cached_property
    def _full_plan(self) -> FeaturePlan:
        return self.plan()

    @cached_property
    def _engine(self) -> FeatureEngine:
        return engine_of(self._settings)

    @cached_property
    def reader(self) -> OnlineReader:
        """A reader of the online store, for one thread at a time."""
        return OnlineReader(self._settings)

    @cached_property
    def _definitions(self) -> Definitions:
        return load_definitions(self._settings.feature_repo, self._spec.source)

    @cached_property
    def _chosen(self) -> ChosenFeatures:
        return chosen_features(self._definitions, self._spec, self._settings.feature_repo)

    def _rows_of(self, needed: ViewDefinition, versions: TableVersions, first: date, last: date) -> TimedRows:
        """The feature rows that events from `first` to `last` can need, with the columns that are `needed`."""
        [view] = [view for view in self._definitions.views if view.name == needed.name]
        table = scan_view(self._lake, view, pinned_version(versions, view.name))
        rows = LakeRows(self._lake.uri(view.name), table, "day", first - view.ttl, last + timedelta(days=1))
        return timed_rows(view, [needed.entity], [column.name for column in needed.columns], rows)
