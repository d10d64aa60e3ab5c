"""The features of a model version for many events at once, point-in-time from the feature tables.

The values are those that the service gives the version: the definitions of its artifact say which columns of which
tables are read, and the same functions make the matrix. Only the lookup differs: the service asks the online store for
the newest rows, this module joins the rows that were the newest at each event's time.
"""

import logging
from collections.abc import Mapping
from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from training.adapters.features.definitions_file import request_code
from training.adapters.features.feature_plan import FeaturePlan
from training.adapters.features.features import Features
from training.adapters.features.golden import check_golden_features
from training.adapters.features.history import column_values, event_columns, newest_rows
from training.adapters.lake import Lake
from training.contract.artifact import ArtifactMetadata
from training.contract.base import TableVersions
from training.contract.feature_definitions import ViewDefinition
from training.contract.model_spec import ModelSpec
from training.contract.registries import FEATURE_ENGINES
from training.domain.arrow_types import TIME, as_exact_pandas
from training.domain.feature_engine import LakeRows, TimedRows
from training.settings import StateSettings

#: The time of a row in every feature table.
_STAMP = "feature_timestamp"

log = logging.getLogger("perennial")


class BatchFeatures:
    """The features of the version whose artifact has `metadata`, read from `versions` of the feature tables.

    Raises DataContractError, as the service does, when the feature code here is not that of the version.
    """

    def __init__(
        self, settings: StateSettings, spec: ModelSpec, metadata: ArtifactMetadata, versions: TableVersions
    ) -> None:
        definitions = metadata.features or Features(settings, spec).definitions
        code = request_code(settings.feature_repo, spec.source)
        self._plan = FeaturePlan(definitions, code.functions, spec, metadata.feature_names)
        check_golden_features(self._plan, metadata.golden, spec)
        self._time_column = spec.source.events.time_column
        self._engine = FEATURE_ENGINES.find(settings.engine)(settings.engine_url)
        self._lake = lake = Lake(settings.lake, spec.source.name, spec.name)
        self._tables: dict[str, ds.FileSystemDataset | None] = {
            view.name: lake.scan(view.name, versions[view.name]) if view.name in versions else None
            for view in self._plan.definitions.views
        }
        self._warn_of_lacking()

    @property
    def tables(self) -> set[str]:
        """The feature tables that the version's features come from."""
        return set(self._tables)

    def of(self, events: pa.Table) -> tuple[np.ndarray, pa.Array]:
        """The matrix of `events` [n], float32 [n, features], and for each event the time of the oldest feature row that
        was used.

        The time is null where a default was used: the entity is null or has no row within the view's ttl, or the row
        lacks a value. Without views it is the event's time.
        """
        frame = as_exact_pandas(events)
        times = pd.DatetimeIndex(frame[self._time_column]).tz_convert("UTC").as_unit("us")
        columns = event_columns(frame, self._plan.event_columns)
        columns[self._time_column] = times.tz_convert(None).to_numpy()
        oldest = None
        for view in self._plan.definitions.views:
            found, stamps = self._looked_up(view, frame, times)
            columns.update(found)
            oldest = stamps if oldest is None else _older(oldest, stamps)
        return self._plan.values(columns, len(events)), pa.array(times, TIME) if oldest is None else oldest

    def _looked_up(
        self, view: ViewDefinition, events: pd.DataFrame, times: pd.DatetimeIndex
    ) -> tuple[Mapping[str, np.ndarray], pa.Array]:
        """The columns of `view` for each event, and the time of the feature row: null unless the row is complete."""
        table = self._tables[view.name]
        held = set() if table is None else set(table.schema.names)
        there = [column.name for column in view.columns if column.name in held]
        if table is None or not there:
            return {c.name: _missing(c.is_text, len(events)) for c in view.columns}, pa.nulls(len(events), TIME)
        ttl = timedelta(seconds=view.ttl_seconds)
        first, last = (times.min() - ttl).date(), times.max().date()
        within = LakeRows(self._lake.uri(view.name), table, "day", first, last + timedelta(days=1))
        rows = TimedRows(within, {view.entity: view.entity}, _STAMP, [*there, _STAMP], ttl=ttl)
        found = newest_rows(self._engine, events, times, rows)
        stamps = found[_STAMP].combine_chunks().cast(TIME)
        columns = dict[str, np.ndarray]()
        for column in view.columns:
            if column.name not in there:
                columns[column.name] = _missing(column.is_text, len(events))
                stamps = pa.nulls(len(events), TIME)
                continue
            values = columns[column.name] = column_values(found[column.name])
            if not column.may_be_missing and not column.is_text:
                stamps = pc.if_else(pa.array(np.isnan(values)), pa.scalar(None, TIME), stamps)
        return columns, stamps

    def _warn_of_lacking(self) -> None:
        for view in self._plan.definitions.views:
            table = self._tables[view.name]
            names = {column.name for column in view.columns}
            lacking = sorted(names - set(table.schema.names)) if table is not None else sorted(names)
            if lacking:
                log.warning("The table %s has no %s: they get their defaults", view.name, ", ".join(lacking))


def _missing(is_text: bool, rows: int) -> np.ndarray:
    return np.full(rows, None, object) if is_text else np.full(rows, np.nan, np.float32)


def _older(one: pa.Array, other: pa.Array) -> pa.Array:
    """The older of two times; null where one of them is."""
    numbers = one.cast(pa.int64()), other.cast(pa.int64())  # Arrow compares no times here.
    return pc.min_element_wise(*numbers, skip_nulls=False).cast(TIME)
