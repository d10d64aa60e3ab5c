"""What a prediction takes from the online store, and how its feature vector is made of that."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from training.contract.errors import DataContractError
from training.contract.feature_definitions import FeatureDefinitions
from training.contract.model_spec import Column, ModelSpec

#: A request view's function: a table of columns in, one of features out.
Transform = Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]]

NAN, INFINITE = float("nan"), float("inf")

#: Types of an event column → Feast's ValueTypes of a key that its values make.
KEY_TYPES = {"int64": ("INT64", "INT32"), "string": ("STRING",)}

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_DATETIME = np.dtype("datetime64[us]")
_NO_TIME = np.iinfo(np.int64).min  # NumPy's NaT


class OnlineFeatures(NamedTuple):
    #: float32 [rows, features], columns as in the names of the plan.
    values: np.ndarray
    #: Per row the oldest of the feature timestamps used; None when a default was used: an entity is null or unknown,
    #: its row too old, from after the event, or incomplete.
    timestamps: list[datetime | None]
    #: Columns that the online store's rows do not have.
    lacking: frozenset[str] = frozenset()


@dataclass(frozen=True)
class View:
    """What is read of one feature view."""

    name: str
    #: The event column that holds its entity, and Feast's ValueType of it.
    key: str
    key_type: str
    names: tuple[str, ...]

    @property
    def where(self) -> tuple[str, str, str]:
        """Of two views for which this is the same, one read brings both."""
        return self.name, self.key, self.key_type


@dataclass(frozen=True)
class Found:
    """Of one view, per event: its values in the order of the view's names, and its time (Unix s); NaN for nothing.

    Lists: there are few numbers, and for one row every call of NumPy costs more than the loop.
    """

    values: Sequence[Sequence[float]]
    stamps: Sequence[float]

    @classmethod
    def nothing(cls, view: View, rows: int) -> "Found":
        return cls([[NAN] * len(view.names)] * rows, [NAN] * rows)


class Plan:
    """The reads and transformations that give the features `names`, in this order.

    `functions`: request view → its function. Raises DataContractError when a definition, a function or an event column
    of `spec` is missing.
    """

    def __init__(
        self,
        definitions: FeatureDefinitions,
        functions: Mapping[str, Transform],
        spec: ModelSpec,
        names: Sequence[str],
    ) -> None:
        self.definitions = definitions.needed_for(names)
        self.names = tuple(names)
        _check(self.definitions, functions, spec, names)
        #: Of all request views of these definitions: request view → its function.
        self.functions = {view.name: functions[view.name] for view in self.definitions.request_views}
        self.views = tuple(
            View(view.name, view.entity, view.entity_type, tuple(column.name for column in view.columns))
            for view in self.definitions.views
        )
        self._ttl_seconds = [view.ttl_seconds for view in self.definitions.views]
        self._looked_up = [name for view in self.views for name in view.names]
        defaults = {column.name: column.default for view in self.definitions.views for column in view.columns}
        self._defaults = np.array([defaults.get(name, 0.0) for name in names], np.float32)
        self._transforms = list(self.functions.values())
        self._time_column = spec.feeds["events"].time_column
        taken = {name for view in self.definitions.request_views for name in view.event_columns}
        columns = sorted(taken - {self._time_column})
        self._columns = {name: spec.request_columns[name] for name in columns}
        #: Columns of one type become one array: for a single row the arrays are what costs. The first is got once more
        #: at the end, and zip leaves that out: of a single name itemgetter would make no tuple.
        self._numbers = [
            (found, itemgetter(*found, found[0]), dtype)
            for kind, dtype in (("float64", np.float64), ("int64", np.int64))
            if (found := [name for name, c in self._columns.items() if c.type == kind and not c.nullable])
        ]
        self._others = [name for name in columns if not any(name in found for found, _, _ in self._numbers)]

    def assemble(self, rows: Sequence[Mapping[str, Any]], found: Sequence[Found]) -> OnlineFeatures:
        """The features of `rows` (events) with what was `found` in each of `views`.

        A feature row counts from its own time on for as long as its view's ttl says, measured at the event's time: as
        in history, never one from after the event. What is missing has its default, after the transformations have
        seen it as NaN.
        """
        times = [_microseconds(row[self._time_column]) for row in rows]
        columns = self._request_columns(rows, times)
        lacking = set[str]()
        if self.views:
            looked_up, oldest = self._looked_up_values(times, found, lacking)
            columns.update(zip(self._looked_up, np.array(looked_up, np.float32).T, strict=True))
        else:
            oldest = [time / 1e6 for time in times]  # nothing was looked up: as fresh as the event
        for transform in self._transforms:
            columns.update(transform(columns))
        parts = [columns[name] for name in self.names]
        # For one row this is much quicker than an array of arrays.
        flat = np.concatenate(parts, dtype=np.float32, casting="unsafe")
        made = np.ascontiguousarray(flat.reshape(len(parts), len(rows)).T)
        total = flat.dot(flat)  # a sum of squares is NaN when one of them is: quicker than to ask each
        if total != total:
            np.copyto(made, self._defaults, where=np.isnan(made))
        stamps = [None if stamp is None else datetime.fromtimestamp(stamp, UTC) for stamp in oldest]
        return OnlineFeatures(made, stamps, frozenset(lacking))

    def _request_columns(self, rows: Sequence[Mapping[str, Any]], times: list[int]) -> dict[str, np.ndarray]:
        columns = {self._time_column: np.array(times, _DATETIME)}
        for names, get, dtype in self._numbers:
            columns.update(zip(names, np.array([get(row) for row in rows], dtype).T, strict=False))
        for name in self._others:
            columns[name] = request_column([row[name] for row in rows], self._columns[name])
        return columns

    def _looked_up_values(
        self, times: list[int], found: Sequence[Found], lacking: set[str]
    ) -> tuple[list[list[float]], list[float | None]]:
        """Per row the values of all views, and the oldest stamp; None when a view has not all that counts.

        Columns that a row does not have go into `lacking`.
        """
        oldest = list[float | None]([INFINITE] * len(times))
        looked_up: list[list[float]] = [[] for _ in times]
        for view, ttl_seconds, part in zip(self.views, self._ttl_seconds, found, strict=True):
            for i, (stamp, values) in enumerate(zip(part.stamps, part.values, strict=True)):
                if 0 <= times[i] / 1e6 - stamp <= ttl_seconds:
                    looked_up[i] += values
                    known = oldest[i]
                    oldest[i] = None if known is None else min(known, stamp)
                    total = sum(values)
                    if total != total and (without := _without(view, values)):
                        lacking |= without
                        oldest[i] = None
                else:
                    looked_up[i] += [NAN] * len(view.names)
                    oldest[i] = None
        return looked_up, oldest

    def defaults(self, rows: Sequence[Mapping[str, Any]]) -> OnlineFeatures:
        """The features of `rows` as if the store knew none of their entities."""
        return self.assemble(rows, [Found.nothing(view, len(rows)) for view in self.views])

    def replay(
        self, events: Sequence[Mapping[str, Any]], batch: Sequence[Mapping[str, float | None]]
    ) -> OnlineFeatures:
        """The features of `events` with the values of the views' columns that were joined to them."""
        times = [_microseconds(event[self._time_column]) / 1e6 for event in events]
        found = []
        for view in self.views:
            rows = [[row.get(name) for name in view.names] for row in batch]
            values = [[NAN if value is None else value for value in row] for row in rows]
            known = [any(value is not None for value in row) for row in rows]
            found.append(
                Found(values, [time if is_known else NAN for time, is_known in zip(times, known, strict=True)])
            )
        return self.assemble(events, found)


class Reads:
    """What several plans read together: of a view that two of them name, each column once."""

    def __init__(self, plans: Iterable[Plan]) -> None:
        merged: dict[tuple[str, str, str], dict[str, None]] = {}
        plans = tuple(plans)
        for plan in plans:
            for view in plan.views:
                merged.setdefault(view.where, {}).update(dict.fromkeys(view.names))
        self.views = tuple(View(*view, tuple(names)) for view, names in merged.items())
        #: Plan → of each of its views the place here, and the places of its columns; None where all are its own.
        self._parts = {plan: [self._part(view) for view in plan.views] for plan in plans if plan.views != self.views}

    def _part(self, view: View) -> tuple[int, list[int] | None]:
        place = [(each.name, each.key, each.key_type) for each in self.views].index(
            (view.name, view.key, view.key_type)
        )
        names = self.views[place].names
        return place, None if names == view.names else [names.index(name) for name in view.names]

    def of(self, plan: Plan, found: Sequence[Found]) -> Sequence[Found]:
        """Of what was `found` in `views`, the part of `plan`."""
        parts = self._parts.get(plan)
        if parts is None:
            return found
        return [
            found[place]
            if columns is None
            else Found([[row[i] for i in columns] for row in found[place].values], found[place].stamps)
            for place, columns in parts
        ]

    def nothing(self, rows: int) -> list[Found]:
        """The result for `rows` events of which the store knows no entity."""
        return [Found.nothing(view, rows) for view in self.views]


def request_column(values: Sequence[Any], column: Column) -> np.ndarray:
    """An event's column as a request view's function gets it: what `np.asarray` makes of it in training's DataFrame.

    A null is NaN among numbers, NaT among times, None among texts and booleans. Times are UTC, datetime64[us].
    """
    if column.type == "timestamp":
        times = [_NO_TIME if value is None else _microseconds(value) for value in values]
        return np.array(times, np.int64).view(_DATETIME)
    if column.type in ("int64", "float64"):
        if None in values:
            return np.array([NAN if value is None else value for value in values], np.float64)
        return np.array(values, np.float64 if column.nullable else column.type)
    return np.array(values, object if column.type == "string" or None in values else bool)


def _check(
    definitions: FeatureDefinitions, functions: Mapping[str, Transform], spec: ModelSpec, names: Sequence[str]
) -> None:
    if lacking := [name for name in names if name not in definitions.made()]:
        problem = f"The feature definitions of {spec.name} lack {', '.join(lacking)}"
        raise DataContractError(problem, hint="Apply the feature definitions that the model was trained on.")
    if lacking := [view.name for view in definitions.request_views if view.name not in functions]:
        problem = f"The feature code of {spec.name} has no request view {', '.join(lacking)}, only {list(functions)}"
        raise DataContractError(problem, hint=OTHER_CODE)
    taken = {view.entity for view in definitions.views}
    taken = taken.union(*(view.event_columns for view in definitions.request_views))
    if lacking := sorted(taken - set(spec.request_columns)):
        problem = f"Features of {spec.name} take {', '.join(lacking)} of the event, which the model spec does not have"
        raise DataContractError(problem, hint=OTHER_SPEC)
    for view in definitions.views:
        kind = spec.request_columns[view.entity].type
        if view.entity_type not in KEY_TYPES.get(kind, ()):
            problem = f"{view.name} lies under {view.entity} as {view.entity_type}, but events have it as {kind}"
            raise DataContractError(problem, hint=OTHER_SPEC)


OTHER_SPEC = (
    "The model spec must be the one that the feature definitions were made for: the service takes it when it starts."
)
#: What to do when the code in the image is not that of the model version.
OTHER_CODE = "Build the image from the commit that the version was trained with, or train again."


def _without(view: View, values: Sequence[float]) -> set[str]:
    return {name for name, value in zip(view.names, values, strict=True) if value != value}


def _microseconds(time: datetime | str) -> int:
    """Since 1970 UTC; a time without a zone is UTC."""
    time = datetime.fromisoformat(time) if isinstance(time, str) else time
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND


def number(value: Any) -> float:
    """The number in Feast's protobuf value; NaN when there is none."""
    kind = value.WhichOneof("val")
    return NAN if kind is None else float(getattr(value, kind))
