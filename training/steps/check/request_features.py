"""The function of an on-demand view, run on made-up events in all ways in which it is run for good.

Training and serving give it a dict of arrays, serving often of one row. Feast itself gives it a DataFrame, for example
when the definitions are published. All must give the same numbers.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from training.adapters.features import request_column
from training.adapters.features.definitions import HOLDS
from training.contract.model_spec import ModelSpec
from training.contract.problems import Problem

ROWS = 64
#: Of them, this many are run one by one, too.
ONE_BY_ONE = 4
_TOLERANCE = 1e-5
#: The spec's types → Feast's that hold them.
FEAST_TYPES = {
    "int64": ("Int32", "Int64", "Float32", "Float64"),
    "float64": ("Float32", "Float64"),
    "string": ("String",),
    "bool": ("Bool",),
    "timestamp": ("UnixTimestamp",),
}


class _Columns(dict):
    """Columns by name, as a prediction hands them over; `read` gets the names that are taken."""

    read: set[str]

    def __getitem__(self, name: str) -> Any:
        if hasattr(self, "read"):
            self.read.add(name)
        return super().__getitem__(name)


class RequestFunction:
    """An on-demand view. `read`: the columns that its function has taken so far."""

    def __init__(self, view: Any, spec: ModelSpec, file: str) -> None:
        self.view, self._spec, self._file = view, spec, file
        self.read: set[str] = set()
        self._requested = [f for source in view.source_request_sources.values() for f in source.schema]
        self._looked_up = [
            (source.name, f.name) for source in view.source_feature_view_projections.values() for f in source.features
        ]
        self._declared = [feature.name for feature in view.features]

    @property
    def takes(self) -> set[str]:
        """The features of views that it says it takes."""
        return {name for _, name in self._looked_up}

    def _problem(self, what: str, fix: str) -> Problem:
        return Problem(file=self._file, place=f"on-demand view {self.view.name}", what=what, fix=fix)

    def declared(self) -> Iterator[Problem]:
        """Mistakes in what it says that it takes."""
        if str(getattr(self.view, "mode", "pandas")) != "pandas":
            yield self._problem(f"has the mode {self.view.mode!r}", "Leave the mode out: pandas is what is called.")
        columns = self._spec.request_columns
        for field in self._requested:
            if field.name not in columns:
                what = f"takes {field.name!r} of a request, which is not one of the columns {sorted(columns)}"
                yield self._problem(what, "Take a column of feeds.events, or add it to the spec.")
            elif str(field.dtype) not in FEAST_TYPES[columns[field.name].type]:
                what = f"takes {field.name} as {field.dtype}, and the column is {columns[field.name].type}"
                yield self._problem(what, f"Declare it as {FEAST_TYPES[columns[field.name].type][-1]}.")
        if unsuited := [f"{f.name} as {f.dtype}" for f in self.view.features if str(f.dtype) not in HOLDS]:
            what = f"declares {', '.join(unsuited)}, and a feature is a number"
            yield self._problem(what, "Declare Float32, and return numbers.")

    def run(self, events: pa.Table, tables: Mapping[str, pa.Table]) -> list[Problem]:
        """Mistakes that show when it runs: on `events` with the feature rows of `tables`; none: made-up numbers."""
        events = events.slice(0, ROWS)
        columns = {field.name: self._column(events, field.name) for field in self._requested}
        known = columns | self._batch_features(tables, events.num_rows)
        unknown = columns | {name: np.full(events.num_rows, np.nan, np.float32) for _, name in self._looked_up}
        problems: list[Problem] = []
        made = self._call(known, "the arrays of a prediction", problems)
        if made is not None:
            if tables:
                problems += self._not_finite(made, known)
            self._compare(made, known, problems)
            made_of_nothing = self._call(unknown, "entities that are not known (NaN)", problems)
            if made_of_nothing is not None and (
                bad := [n for n, values in made_of_nothing.items() if np.isinf(values).any()]
            ):
                what = f"gives infinite {', '.join(bad)} for entities that are not known (NaN)"
                problems.append(self._problem(what, "Return a default there, such as 0."))
        return problems

    def _column(self, events: pa.Table, name: str) -> np.ndarray:
        """As serving makes it."""
        return request_column(events[name].to_pylist(), self._spec.request_columns[name])

    def _batch_features(self, tables: Mapping[str, pa.Table], rows: int) -> dict[str, np.ndarray]:
        """Rows of the feature tables: of one view all columns from one row, as they belong together."""
        random = np.random.default_rng(0)
        found = {}
        chosen = {view: random.integers(0, tables[view].num_rows, rows) for view in tables}
        for view, name in self._looked_up:
            if view in tables and name in tables[view].column_names:
                values = np.asarray(tables[view][name].to_numpy(), np.float32)[chosen[view]]
            else:
                values = random.random(rows, np.float32) * 10
            # What an entity has that nothing is known of.
            values[::5] = 0
            found[name] = values
        return found

    def _call(
        self, columns: Mapping[str, np.ndarray], of: str, problems: list[Problem]
    ) -> dict[str, np.ndarray] | None:
        """The features of `columns` as float64; None, with the reason among `problems`, when there are none."""
        recorder = _Columns(columns)
        recorder.read = self.read
        return self._features(recorder, of, len(next(iter(columns.values()))), problems)

    def _features(self, given: Any, of: str, rows: int, problems: list[Problem]) -> dict[str, np.ndarray] | None:
        takes = f"It takes {', '.join(given)}"
        try:
            made = self.view.feature_transformation.udf(given)
        except KeyError as error:
            what = f"reads the column {error}, which it does not take"
            fix = f"{takes}: add the column to the RequestSource or its view to `sources`, or correct the name."
            problems.append(self._problem(what, fix))
            return None
        except Exception as error:
            what = f"fails on {of}: {type(error).__name__}: {error}"
            problems.append(self._problem(what, f"{takes}. Write it with NumPy, for arrays and for a DataFrame alike."))
            return None
        if not isinstance(made, Mapping | pd.DataFrame):
            what = f"returns {type(made).__name__} for {of}"
            problems.append(self._problem(what, "Return `type(inputs)({name: values, …})`."))
            return None
        wanted, names = set(self._declared), set(made)
        if wanted != names:
            lacking, more = sorted(wanted - names), sorted(names - wanted)
            what = f"does not return {', '.join(lacking)}" if lacking else f"returns {', '.join(map(str, more))}"
            what += ", which its schema declares" if lacking else ", which its schema does not declare"
            problems.append(self._problem(what, "Make the schema and the returned columns agree."))
            return None
        return self._numbers(made, of, rows, problems)

    def _numbers(self, made: Any, of: str, rows: int, problems: list[Problem]) -> dict[str, np.ndarray] | None:
        found = {}
        for name in self._declared:
            try:
                found[name] = np.asarray(made[name]).astype(np.float64)
            except (TypeError, ValueError) as error:
                problems.append(self._problem(f"returns {name} that is no number: {error}", "Return numbers."))
                return None
            if found[name].shape != (rows,):
                what = f"returns {name} of shape {found[name].shape} for {rows} rows"
                problems.append(self._problem(what, "Return one number per row, in the order of the rows."))
                return None
        return found

    def _not_finite(self, made: dict[str, np.ndarray], given: Mapping[str, np.ndarray]) -> Iterator[Problem]:
        # A null in the event may give NaN, which becomes 0.
        lacking = np.any([pd.isna(values) for values in given.values()], axis=0)
        for name, values in made.items():
            if (bad := np.flatnonzero(np.isinf(values) | (np.isnan(values) & ~lacking))).size:
                inputs = ", ".join(f"{column} {given[column][bad[0]]}" for column in given)
                what = f"gives {name} as {values[bad[0]]} for {inputs}"
                yield self._problem(what, "Return a number whatever the inputs: guard divisions, logarithms and nulls.")

    def _compare(self, made: dict[str, np.ndarray], given: dict[str, np.ndarray], problems: list[Problem]) -> None:
        rows = len(next(iter(given.values())))
        frame = pd.DataFrame({name: self._of_feast(name, values) for name, values in given.items()})
        by_feast = self._features(frame, "the DataFrame of Feast", rows, problems)
        if by_feast is not None and (bad := _differing(made, by_feast)):
            what = f"gives other {', '.join(bad)} for a DataFrame (Feast) than for arrays (training and serving)"
            problems.append(self._problem(what, "Write it with NumPy: np.asarray(inputs[name]) is the same in both."))
        for i in range(ONE_BY_ONE):
            one = self._call({name: values[i : i + 1] for name, values in given.items()}, "a single row", problems)
            if one is None:
                return
            if bad := _differing({name: values[i : i + 1] for name, values in made.items()}, one):
                what = f"gives other {', '.join(bad)} for a row alone than among others"
                problems.append(self._problem(what, "Compute each row from that row alone: no mean or rank over rows."))
                return

    def _of_feast(self, name: str, values: np.ndarray) -> Any:
        if values.dtype.kind == "M":
            return pd.DatetimeIndex(values).tz_localize("UTC")
        return values


def _differing(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> list[str]:
    return [name for name in left if not np.allclose(left[name], right[name], _TOLERANCE, _TOLERANCE, equal_nan=True)]
