"""The matrix of a model version for events whose feature rows were looked up."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from training.adapters.features.feature_plan import FeaturePlan
from training.adapters.features.history import column_values, event_columns
from training.contract.feature_definitions import ViewDefinition
from training.domain.arrow_types import TIME, as_exact_pandas

#: The time of a row in every feature table.
STAMP = "feature_timestamp"


class JoinedFeatures:
    """`held`: view of the plan → those of its columns that its table has. It can be pickled."""

    def __init__(self, plan: FeaturePlan, time_column: str, held: Mapping[str, Sequence[str]]) -> None:
        self._plan, self._time_column, self._held = plan, time_column, held

    @property
    def views(self) -> list[ViewDefinition]:
        """Those of which rows are looked up, in the order in which `of` takes them."""
        return [view for view in self._plan.definitions.views if self._held[view.name]]

    def columns(self, view: ViewDefinition) -> list[str]:
        """What is looked up for `view`."""
        return [*self._held[view.name], STAMP]

    def of(self, events: pa.Table, found: Sequence[pa.Table]) -> tuple[np.ndarray, pa.Array]:
        """The matrix of `events` [n], float32 [n, features], and for each event the time of the oldest feature row that
        was used.

        `found`: for each of `views` the `columns` of the events' feature rows, null where there is none. The time is
        null where a default was used: the entity is null or has no row within the view's ttl, or the row lacks a value.
        Without views it is the event's time.
        """
        frame, rows = as_exact_pandas(events), iter(found)
        times = event_times(frame, self._time_column)
        columns = event_columns(frame, self._plan.event_columns)
        columns[self._time_column] = times.tz_convert(None).to_numpy()
        oldest = None
        for view in self._plan.definitions.views:
            looked_up, stamps = self._looked_up(view, len(events), next(rows) if self._held[view.name] else None)
            columns.update(looked_up)
            oldest = stamps if oldest is None else _older(oldest, stamps)
        return self._plan.values(columns, len(events)), pa.array(times, TIME) if oldest is None else oldest

    def _looked_up(
        self, view: ViewDefinition, events: int, found: pa.Table | None
    ) -> tuple[Mapping[str, np.ndarray], pa.Array]:
        """The columns of `view` for each event, and the time of the feature row: null unless the row is complete."""
        if found is None:
            return {c.name: _missing(c.is_text, events) for c in view.columns}, pa.nulls(events, TIME)
        stamps = found[STAMP].combine_chunks().cast(TIME)
        columns = dict[str, np.ndarray]()
        for column in view.columns:
            if column.name not in self._held[view.name]:
                columns[column.name] = _missing(column.is_text, events)
                stamps = pa.nulls(events, TIME)
                continue
            values = columns[column.name] = column_values(found[column.name])
            if not column.may_be_missing and not column.is_text:
                stamps = pc.if_else(pa.array(np.isnan(values)), pa.scalar(None, TIME), stamps)
        return columns, stamps


def event_times(events: pd.DataFrame, time_column: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(events[time_column]).tz_convert("UTC").as_unit("us")


def _missing(is_text: bool, rows: int) -> np.ndarray:
    return np.full(rows, None, object) if is_text else np.full(rows, np.nan, np.float32)


def _older(one: pa.Array, other: pa.Array) -> pa.Array:
    """The older of two times; null where one of them is."""
    numbers = one.cast(pa.int64()), other.cast(pa.int64())  # Arrow compares no times here.
    return pc.min_element_wise(*numbers, skip_nulls=False).cast(TIME)
