"""What a prediction takes from the online store, and how its feature vector is made of that."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from training.adapters.features.definitions import Definitions
from training.contract.model_spec import ModelSpec

Transform = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class OnlineFeatures:
    #: float32 [rows, features], columns as in Features.names().
    values: np.ndarray
    #: Per row the oldest of the feature timestamps used; None when an entity is unknown or its row too old.
    timestamps: list[datetime | None]


@dataclass(frozen=True)
class View:
    """The features that are wanted of one feature view."""

    #: The feast.FeatureView itself.
    feast: Any
    #: The event column that holds its entity.
    key: str
    names: tuple[str, ...]
    ttl_seconds: float


@dataclass(frozen=True)
class Found:
    """Of one view, per event: float32 [rows, names], NaN where the store has none, and the rows' times (Unix s)."""

    values: np.ndarray
    stamps: np.ndarray


class Plan:
    """The reads and transformations that give the features `wanted`; others of the service stay 0."""

    def __init__(self, definitions: Definitions, spec: ModelSpec, wanted: Iterable[str]) -> None:
        made = [view for view in definitions.on_demand if {f.name for f in view.features} & set(wanted)]
        needed = set(wanted)
        for view in made:
            sources = view.source_feature_view_projections.values()
            needed |= {feature.name for source in sources for feature in source.features}
        views = [
            View(view, spec.features.tables[view.name], names, view.ttl.total_seconds())
            for view in definitions.views
            if (names := tuple(f.name for f in view.features if f.name in needed))
        ]
        self.views = tuple(views)
        self._transforms: list[Transform] = [view.feature_transformation.udf for view in made]
        self._time_column = spec.feeds["events"].time_column
        columns = [name for name in definitions.request_columns if name != self._time_column]
        kinds = {name: spec.request_columns[name].type for name in columns}
        nullable = {name for name in columns if spec.request_columns[name].nullable}
        #: Columns of one type become one array: for a single row the arrays are what costs.
        self._numbers = [
            (found, dtype)
            for kind, dtype in (("float64", np.float64), ("int64", np.int64))
            if (found := [name for name in columns if kinds[name] == kind and name not in nullable])
        ]
        self._others = [name for name in columns if not any(name in found for found, _ in self._numbers)]
        self._wanted = [name if name in set(wanted) else None for name in definitions.names]

    def assemble(self, rows: Sequence[Mapping[str, Any]], found: Sequence[Found]) -> OnlineFeatures:
        """The features of `rows` (events) with what was `found` in each of `views`.

        A feature row counts for as long as its view's ttl says, measured at the event's time. What is missing is 0,
        after the transformations have seen it as NaN.
        """
        times = np.array([_microseconds(row[self._time_column]) for row in rows], np.int64)
        columns = {name: np.array([row[name] for row in rows]) for name in self._others}
        for names, dtype in self._numbers:
            columns.update(zip(names, np.array([[row[name] for name in names] for row in rows], dtype).T, strict=True))
        columns[self._time_column] = times.astype("datetime64[us]")
        oldest = np.full(len(rows), np.inf)
        for view, part in zip(self.views, found, strict=True):
            stamps = np.where(times / 1e6 - part.stamps <= view.ttl_seconds, part.stamps, np.nan)
            values = np.where(np.isnan(stamps)[:, None], np.float32("nan"), part.values)
            columns.update(zip(view.names, values.T, strict=True))
            oldest = np.minimum(oldest, stamps)
        for transform in self._transforms:
            columns.update(transform(columns))
        nothing = np.zeros(len(rows), np.float32)
        made = np.array([nothing if name is None else columns[name] for name in self._wanted], np.float32).T
        made = np.ascontiguousarray(made)
        made[np.isnan(made)] = 0.0
        if not self.views:
            oldest = times / 1e6  # nothing was looked up: as fresh as the event
        return OnlineFeatures(made, [datetime.fromtimestamp(s, UTC) if s == s else None for s in oldest.tolist()])

    def defaults(self, rows: Sequence[Mapping[str, Any]]) -> OnlineFeatures:
        """The features of `rows` as if the store knew none of their entities."""
        n = len(rows)
        nothing = [Found(np.full((n, len(v.names)), np.nan, np.float32), np.full(n, np.nan)) for v in self.views]
        return self.assemble(rows, nothing)


def _microseconds(time: datetime | str) -> int:
    """Since 1970 UTC; a time without a zone is UTC."""
    time = datetime.fromisoformat(time) if isinstance(time, str) else time
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def number(value: Any) -> float:
    """The number in Feast's protobuf value; NaN when there is none."""
    kind = value.WhichOneof("val")
    return float("nan") if kind is None else float(getattr(value, kind))
