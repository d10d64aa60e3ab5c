"""How a feature vector is computed from an event and the rows of the online store."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from training.adapters.features.views import NAN, View, ViewRows
from training.contract.errors import DataContractError
from training.contract.feature_definitions import FeatureDefinitions
from training.contract.model_spec import Column, ModelSpec
from training.domain.encoding import Categories

#: The function of a request view. It takes columns by name and returns features by name.
Transform = Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]]

#: Kind of an event column → the ValueTypes of Feast's keys that the column can be.
KEY_TYPES: dict[str, tuple[str, ...]] = {"int": ("INT64", "INT32"), "string": ("STRING",)}

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_DATETIME = np.dtype("datetime64[us]")
_NO_TIME = np.iinfo(np.int64).min  # NumPy's NaT


class OnlineFeatures(NamedTuple):
    #: float32 [rows, features], columns as in the names of the plan.
    values: np.ndarray
    #: For each row, the oldest feature timestamp that was used. None when a default was used, because an entity is null
    #: or unknown, or its row is older than the view's ttl, newer than the event, or incomplete.
    timestamps: list[datetime | None]
    #: Columns that rows in the online store lack.
    lacking: frozenset[str] = frozenset()


class FeaturePlan:
    """The lookups and transformations that compute the features `names`, in this order.

    `functions`: request view → its function. Raises DataContractError when a definition, a function or an event column
    is missing.
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
        #: Request view → its function, for the request views in `definitions`.
        self.functions = {view.name: functions[view.name] for view in self.definitions.request_views}
        self.views = tuple(
            View(view.name, view.entity, view.entity_type, tuple(column.name for column in view.columns))
            for view in self.definitions.views
        )
        self._ttl_seconds = [view.ttl_seconds for view in self.definitions.views]
        self._looked_up = [name for view in self.views for name in view.names]
        defaults: dict[str, float | None] = dict.fromkeys(self.definitions.event_features)
        defaults |= {column.name: column.default for view in self.definitions.views for column in view.columns}
        for request_view in self.definitions.request_views:
            defaults |= dict.fromkeys(request_view.may_be_missing)
        self._defaults = np.array([_number(defaults.get(name, 0.0)) for name in names], np.float32)
        #: The views' columns that are texts, and for each view the positions of those that are never missing.
        self._texts = {column.name for view in self.definitions.views for column in view.columns if column.is_text}
        self._filled = [
            [i for i, column in enumerate(view.columns) if not column.may_be_missing] for view in self.definitions.views
        ]
        #: Feature that is a text → the codes of its categories. Before categories are learned, there are none.
        self._categories = {
            name: Categories(self.definitions.categories.get(name, ()))
            for name in names
            if name in self.definitions.texts | event_texts(self.definitions, spec)
        }
        self._transforms = list(self.functions.values())
        self._time_column = spec.source.events.time_column
        taken = {name for view in self.definitions.request_views for name in view.event_columns}
        columns = sorted(taken.union(self.definitions.event_features) - {self._time_column})
        #: The columns of an event that are features, or that the request views take, without its time.
        self.event_columns = {name: spec.request_columns[name] for name in columns}
        #: Columns of one type become one array, because making arrays takes most of the time for a single row.
        #: itemgetter returns a tuple only for two names or more, so it gets the first name twice; zip drops the copy.
        self._numbers = [
            (numeric, itemgetter(*numeric, numeric[0]), dtype)
            for kinds, dtype in ((("float", "decimal"), np.float64), (("int",), np.int64))
            if (numeric := [name for name, c in self.event_columns.items() if c.kind in kinds and not c.nullable])
        ]
        self._others = [name for name in columns if not any(name in numeric for numeric, _, _ in self._numbers)]

    def assemble(self, rows: Sequence[Mapping[str, Any]], found: Sequence[ViewRows]) -> OnlineFeatures:
        """The features of `rows` (events). `found` holds the rows of each of `views` for these events.

        As in training, a feature row is used when it is not newer than the event and not older than its view's ttl at
        the event's time. A missing value is NaN for the transformations. Then it becomes the default of its feature.
        """
        times = [_microseconds(row[self._time_column]) for row in rows]
        columns = self._request_columns(rows, times)
        lacking = set[str]()
        if self.views:
            looked_up, oldest = self._looked_up_values(times, found, lacking)
            columns.update(self._view_columns(looked_up))
        else:
            oldest = [time / 1e6 for time in times]  # Nothing was looked up, so the features are from the event's time.
        made = self.values(columns, len(rows))
        stamps = [None if stamp is None else datetime.fromtimestamp(stamp, UTC) for stamp in oldest]
        return OnlineFeatures(made, stamps, frozenset(lacking))

    def values(self, columns: dict[str, np.ndarray], rows: int) -> np.ndarray:
        """The features as float32 [rows, features], made of the columns of the events and of the views.

        `columns` holds the event's time, `event_columns` and the columns of `views`, each [rows]. This method adds the
        features of the request views to it. A feature that is NaN gets its default. A text becomes its code.
        """
        flat = self._flat(columns)
        # For one row this is much faster than an array of arrays.
        count = len(self.names)
        made = flat.reshape(1, count) if rows == 1 else np.ascontiguousarray(flat.reshape(count, rows).T)
        total = np.add.reduce(flat)  # Faster than isnan: the sum is NaN when any value is.
        if total != total:
            np.copyto(made, self._defaults, where=np.isnan(made))
        return made

    def named_values(self, columns: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        """As `values`: feature → its values [rows], float32 or texts."""
        made = dict(zip(self.names, self._flat(columns).reshape(len(self.names), rows), strict=True))
        for values, default in zip(made.values(), self._defaults, strict=True):
            np.copyto(values, default, where=np.isnan(values))
        return made | {name: columns[name] for name in self._categories}

    def _flat(self, columns: dict[str, np.ndarray]) -> np.ndarray:
        """The features as float32, one after the other. Adds those of the request views to `columns`."""
        for transform in self._transforms:
            columns.update(transform(columns))
        parts = [columns[name] for name in self.names]
        if self._categories:
            texts = self._categories
            parts = [
                texts[name].codes(part) if name in texts else part for name, part in zip(self.names, parts, strict=True)
            ]
        return np.concatenate(parts, dtype=np.float32, casting="unsafe")

    def _request_columns(self, rows: Sequence[Mapping[str, Any]], times: list[int]) -> dict[str, np.ndarray]:
        columns = {self._time_column: np.array(times, _DATETIME)}
        for names, get, dtype in self._numbers:
            columns.update(zip(names, np.array([get(row) for row in rows], dtype).T, strict=False))
        for name in self._others:
            columns[name] = request_column([row[name] for row in rows], self.event_columns[name])
        return columns

    def _view_columns(self, looked_up: list[list[Any]]) -> Mapping[str, np.ndarray]:
        if not self._texts:
            return dict(zip(self._looked_up, np.array(looked_up, np.float32).T, strict=True))
        columns = zip(self._looked_up, zip(*looked_up, strict=True), strict=True)
        return {
            name: text_column(values) if name in self._texts else np.array(values, np.float32)
            for name, values in columns
        }

    def _looked_up_values(
        self, times: list[int], found: Sequence[ViewRows], lacking: set[str]
    ) -> tuple[list[list[Any]], list[float | None]]:
        """For each row the values of all views, and the oldest stamp (None when a view has no usable, complete row).

        Adds the columns that a row lacks to `lacking`.
        """
        oldest = list[float | None]([float("inf")] * len(times))
        looked_up: list[list[Any]] = [[] for _ in times]
        for view, ttl_seconds, filled, part in zip(self.views, self._ttl_seconds, self._filled, found, strict=True):
            for i, (stamp, values) in enumerate(zip(part.stamps, part.values, strict=True)):
                if 0 <= times[i] / 1e6 - stamp <= ttl_seconds:
                    looked_up[i] += values
                    known = oldest[i]
                    oldest[i] = None if known is None else min(known, stamp)
                    if len(filled) == len(values):  # Faster: the sum of numbers is NaN when any of them is.
                        total = sum(values)
                        if total == total:
                            continue
                    if missing := [view.names[at] for at in filled if values[at] != values[at]]:
                        lacking.update(missing)
                        oldest[i] = None
                else:
                    looked_up[i] += [NAN] * len(view.names)
                    oldest[i] = None
        return looked_up, oldest

    def replay(
        self, events: Sequence[Mapping[str, Any]], batch: Sequence[Mapping[str, float | str | None]]
    ) -> OnlineFeatures:
        """The features of `events` from `batch`, the values of the views' columns for each event (None: no value)."""
        times = [_microseconds(event[self._time_column]) / 1e6 for event in events]
        found = []
        for view in self.views:
            rows = [[row.get(name) for name in view.names] for row in batch]
            values = [[NAN if value is None else value for value in row] for row in rows]
            known = [any(value is not None for value in row) for row in rows]
            stamps = [time if is_known else NAN for time, is_known in zip(times, known, strict=True)]
            found.append(ViewRows(values, stamps))
        return self.assemble(events, found)


def request_column(values: Sequence[Any], column: Column) -> np.ndarray:
    """A column of events as the function of a request view gets it, the same as `event_columns` gives in training.

    Integers are int64, or float64 where they may be null; decimals and floats are float64. Times are UTC,
    datetime64[us], and dates are datetime64[D]. A list is a float64 array in an array of objects. A null becomes NaN in
    numbers, NaT in dates and times, and None in texts, booleans and lists.
    """
    match column.kind:
        case "timestamp":
            times = [_NO_TIME if value is None else _microseconds(value) for value in values]
            return np.array(times, np.int64).view(_DATETIME)
        case "date":
            return np.array(values, "datetime64[D]")
        case "int" | "float" | "decimal":
            if None in values:
                return np.array([NAN if value is None else value for value in values], np.float64)
            return np.array(values, np.int64 if column.kind == "int" and not column.nullable else np.float64)
        case "list":
            lists = np.empty(len(values), object)
            lists[:] = [None if value is None else np.asarray(value, np.float64) for value in values]
            return lists
    return np.array(values, object if column.kind == "string" or None in values else bool)


def _check(
    definitions: FeatureDefinitions, functions: Mapping[str, Transform], spec: ModelSpec, names: Sequence[str]
) -> None:
    if lacking := [name for name in names if name not in definitions.made()]:
        problem = f"The feature definitions of {spec.name} lack {', '.join(lacking)}"
        raise DataContractError(problem, hint="Apply the feature definitions that the model was trained on.")
    if lacking := [view.name for view in definitions.request_views if view.name not in functions]:
        problem = f"The feature code of {spec.name} has no request view {', '.join(lacking)}, only {list(functions)}"
        raise DataContractError(problem, hint=OTHER_CODE)
    taken = {view.entity for view in definitions.views} | set(definitions.event_features)
    taken = taken.union(*(view.event_columns for view in definitions.request_views))
    if lacking := sorted(taken - set(spec.request_columns)):
        problem = (
            f"Features of {spec.name} need the event columns {', '.join(lacking)}, which the model spec does not have"
        )
        raise DataContractError(problem, hint=OTHER_SPEC)
    for view in definitions.views:
        column = spec.request_columns[view.entity]
        if view.entity_type not in KEY_TYPES.get(column.kind, ()):
            problem = (
                f"{view.name} has the key {view.entity} as {view.entity_type}, but events have it as {column.type}"
            )
            raise DataContractError(problem, hint=OTHER_SPEC)


def event_texts(definitions: FeatureDefinitions, spec: ModelSpec) -> set[str]:
    """The columns of the event that are features and texts."""
    return {name for name in definitions.event_features if spec.request_columns[name].kind == "string"}


OTHER_SPEC = "Use the model spec that the feature definitions were made for. The service reads it when it starts."
#: What to do when the code in the image is not that of the model version.
OTHER_CODE = "Build the image from the commit that the version was trained with, or train again."


def text_column(values: Sequence[Any]) -> np.ndarray:
    """Texts as an array of objects. A missing one, None or NaN, becomes None."""
    found = np.empty(len(values), object)
    found[:] = [value if isinstance(value, str) else None for value in values]
    return found


def _number(default: float | None) -> float:
    return NAN if default is None else default


def _microseconds(time: datetime | str) -> int:
    """Microseconds since 1970-01-01 UTC. A time without a zone is UTC."""
    time = datetime.fromisoformat(time) if isinstance(time, str) else time
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
