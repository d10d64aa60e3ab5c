"""What a prediction takes from the online store, and how its feature vector is made of that."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

import numpy as np

from training.adapters.features.definitions import Definitions
from training.contract.model_spec import ModelSpec

Transform = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]

NAN, INFINITE = float("nan"), float("inf")

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_DATETIME = np.dtype("datetime64[us]")


@dataclass(frozen=True)
class OnlineFeatures:
    #: float32 [rows, features], columns as in Features.names().
    values: np.ndarray
    #: Per row the oldest of the feature timestamps used; None when a default was used: an entity is null or unknown,
    #: its row too old or from after the event, or a feature not online.
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
    """Of one view, per event: its values in the order of the view's names, and its time (Unix s); NaN for nothing.

    Lists: there are few numbers, and for one row every call of NumPy costs more than the loop.
    """

    values: Sequence[Sequence[float]]
    stamps: Sequence[float]


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
        self._looked_up = [name for view in views for name in view.names]
        self._transforms: list[Transform] = [view.feature_transformation.udf for view in made]
        self._time_column = spec.feeds["events"].time_column
        columns = [name for name in definitions.request_columns if name != self._time_column]
        kinds = {name: spec.request_columns[name].type for name in columns}
        nullable = {name for name in columns if spec.request_columns[name].nullable}
        #: Columns of one type become one array: for a single row the arrays are what costs. The first is got once more
        #: at the end, and zip leaves that out: of a single name itemgetter would make no tuple.
        self._numbers = [
            (found, itemgetter(*found, found[0]), dtype)
            for kind, dtype in (("float64", np.float64), ("int64", np.int64))
            if (found := [name for name in columns if kinds[name] == kind and name not in nullable])
        ]
        self._others = [name for name in columns if not any(name in found for found, _, _ in self._numbers)]
        self._wanted = [name if name in set(wanted) else None for name in definitions.names]

    def assemble(self, rows: Sequence[Mapping[str, Any]], found: Sequence[Found]) -> OnlineFeatures:
        """The features of `rows` (events) with what was `found` in each of `views`.

        A feature row counts from its own time on for as long as its view's ttl says, measured at the event's time: as
        in history, never one from after the event. What is missing is 0, after the transformations have seen it as NaN.
        """
        times = [_microseconds(row[self._time_column]) for row in rows]
        columns = self._request_columns(rows, times)
        if self.views:
            looked_up, oldest = self._looked_up_values(times, found)
            columns.update(zip(self._looked_up, np.array(looked_up, np.float32).T, strict=True))
        else:
            oldest = [time / 1e6 for time in times]  # nothing was looked up: as fresh as the event
        for transform in self._transforms:
            columns.update(transform(columns))
        nothing = np.zeros(len(rows), np.float32)
        parts = [nothing if name is None else columns[name] for name in self._wanted]
        # For one row this is much quicker than an array of arrays.
        made = np.concatenate(parts, dtype=np.float32, casting="unsafe").reshape(len(parts), len(rows))
        made = np.ascontiguousarray(made.T)
        total = np.vdot(made, made)  # a sum of squares is NaN when one of them is: quicker than to ask each
        if total != total:
            made[np.isnan(made)] = 0.0
        return OnlineFeatures(made, [None if stamp is None else datetime.fromtimestamp(stamp, UTC) for stamp in oldest])

    def _request_columns(self, rows: Sequence[Mapping[str, Any]], times: list[int]) -> dict[str, np.ndarray]:
        columns = {name: np.array([row[name] for row in rows]) for name in self._others}
        for names, get, dtype in self._numbers:
            columns.update(zip(names, np.array([get(row) for row in rows], dtype).T, strict=False))
        columns[self._time_column] = np.array(times, np.int64).view(_DATETIME)
        return columns

    def _looked_up_values(
        self, times: list[int], found: Sequence[Found]
    ) -> tuple[list[list[float]], list[float | None]]:
        """Per row the values of all views, and the oldest stamp; None when a view lacks a value that counts."""
        oldest = list[float | None]([INFINITE] * len(times))
        looked_up: list[list[float]] = [[] for _ in times]
        for view, part in zip(self.views, found, strict=True):
            for i, (stamp, values) in enumerate(zip(part.stamps, part.values, strict=True)):
                if 0 <= times[i] / 1e6 - stamp <= view.ttl_seconds:
                    looked_up[i] += values
                    known, total = oldest[i], sum(values)
                    # A feature that the view has no more, or does not have yet, is NaN, and so is the sum.
                    oldest[i] = None if known is None or total != total else min(known, stamp)
                else:
                    looked_up[i] += [NAN] * len(view.names)
                    oldest[i] = None
        return looked_up, oldest

    def defaults(self, rows: Sequence[Mapping[str, Any]]) -> OnlineFeatures:
        """The features of `rows` as if the store knew none of their entities."""
        n = len(rows)
        return self.assemble(rows, [Found([[NAN] * len(view.names)] * n, [NAN] * n) for view in self.views])


def _microseconds(time: datetime | str) -> int:
    """Since 1970 UTC; a time without a zone is UTC."""
    time = datetime.fromisoformat(time) if isinstance(time, str) else time
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND


def number(value: Any) -> float:
    """The number in Feast's protobuf value; NaN when there is none."""
    kind = value.WhichOneof("val")
    return NAN if kind is None else float(getattr(value, kind))
