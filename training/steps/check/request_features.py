"""Run the function of an on-demand view on sample events, in all the ways in which it is run.

Training and serving give it a dict of arrays, serving often of one row. Feast itself gives it a DataFrame, for example
when the definitions are published. The results must be equal.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from training.adapters.features import request_column
from training.adapters.features.view_schemas import COMPATIBLE_TYPES
from training.contract.problems import Problem
from training.contract.source_spec import SourceSpec
from training.steps.check.request_clock import clock_calls

ROWS = 64
#: This many of the rows are also run one by one.
ONE_BY_ONE = 4
_TOLERANCE = 1e-5
#: Kind of a column → Feast's types that can hold it.
FEAST_TYPES: dict[str, tuple[str, ...]] = {
    "int": ("Int32", "Int64", "Float32", "Float64"),
    "float": ("Float32", "Float64"),
    "decimal": ("Float32", "Float64"),
    "string": ("String",),
    "bool": ("Bool",),
    "date": ("UnixTimestamp",),
    "timestamp": ("UnixTimestamp",),
    "list": ("Array(Float32)", "Array(Float64)"),
}


class _Columns(dict):
    """Columns by name, as in a prediction. `read` collects the names that the function reads."""

    read: set[str]

    def __getitem__(self, name: str) -> Any:
        if hasattr(self, "read"):
            self.read.add(name)
        return super().__getitem__(name)


class RequestFunction:
    """Checks an on-demand view. `read`: the columns that its function has read so far."""

    def __init__(self, view: Any, spec: SourceSpec, file: str) -> None:
        self.view, self._spec, self._file = view, spec, file
        self.read: set[str] = set()
        self._requested = [f for source in view.source_request_sources.values() for f in source.schema]
        self._looked_up = [
            (source.name, f.name) for source in view.source_feature_view_projections.values() for f in source.features
        ]
        self._declared = [feature.name for feature in view.features]

    @property
    def takes(self) -> set[str]:
        """The features of views that its definition names as inputs."""
        return {name for _, name in self._looked_up}

    def _problem(self, what: str, fix: str) -> Problem:
        return Problem(file=self._file, place=f"on-demand view {self.view.name}", what=what, fix=fix)

    def declared(self) -> Iterator[Problem]:
        """Mistakes in the definition's inputs and types."""
        if str(getattr(self.view, "mode", "pandas")) != "pandas":
            yield self._problem(f"has the mode {self.view.mode!r}", "Remove the mode: only pandas is supported.")
        columns = self._spec.request_columns
        for field in self._requested:
            if field.name not in columns:
                what = f"takes {field.name!r} of a request, which is not one of the columns {sorted(columns)}"
                yield self._problem(what, "Use a column of feeds.events, or add the column to the spec.")
            elif str(field.dtype) not in FEAST_TYPES[columns[field.name].kind]:
                what = f"takes {field.name} as {field.dtype}, but the column is {columns[field.name].type}"
                yield self._problem(what, f"Declare it as {FEAST_TYPES[columns[field.name].kind][-1]}.")
        if calls := self._clock_calls():
            what = f"depends on the current time: {', '.join(calls)}"
            yield self._problem(what, "Count from the event's time: training computes the features of past events.")
        numbers = COMPATIBLE_TYPES.keys() - {"String"}
        if wrong := [f"{f.name} as {f.dtype}" for f in self.view.features if str(f.dtype) not in numbers]:
            what = f"declares {', '.join(wrong)}, but a feature must be a number"
            yield self._problem(what, "Declare Float32, and return numbers.")

    def _clock_calls(self) -> list[str]:
        name = getattr(self.view.feature_transformation.udf, "__name__", "")
        return clock_calls(Path(self._file).read_text(encoding="utf-8"), name)

    def run(self, events: pa.Table, tables: Mapping[str, pa.Table]) -> list[Problem]:
        """Mistakes that appear when it runs on `events` and the rows of `tables` (random numbers without tables)."""
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
            made_from_nan = self._call(unknown, "unknown entities (NaN)", problems)
            if made_from_nan is not None and (
                bad := [n for n, values in made_from_nan.items() if np.isinf(values).any()]
            ):
                what = f"gives infinite {', '.join(bad)} for unknown entities (NaN)"
                problems.append(self._problem(what, "Return a default there, such as 0."))
        return problems

    def _column(self, events: pa.Table, name: str) -> np.ndarray:
        """A column of events as serving makes it."""
        return request_column(events[name].to_pylist(), self._spec.request_columns[name])

    def _batch_features(self, tables: Mapping[str, pa.Table], rows: int) -> dict[str, np.ndarray]:
        """Values of the feature tables. For one event, all columns of a view come from the same row."""
        random = np.random.default_rng(0)
        found = {}
        chosen = {view: random.integers(0, tables[view].num_rows, rows) for view in tables}
        for view, name in self._looked_up:
            if view in tables and name in tables[view].column_names:
                values = np.asarray(tables[view][name].to_numpy(), np.float32)[chosen[view]]
            else:
                values = random.random(rows, np.float32) * 10
            # The values of an entity without a feature row.
            values[::5] = 0
            found[name] = values
        return found

    def _call(
        self, columns: Mapping[str, np.ndarray], of: str, problems: list[Problem]
    ) -> dict[str, np.ndarray] | None:
        """The features of `columns` as float64. When the function fails, adds to `problems` and returns None."""
        recorder = _Columns(columns)
        recorder.read = self.read
        return self._features(recorder, of, len(next(iter(columns.values()))), problems)

    def _features(self, given: Any, of: str, rows: int, problems: list[Problem]) -> dict[str, np.ndarray] | None:
        takes = f"It takes {', '.join(given)}"
        try:
            made = self.view.feature_transformation.udf(given)
        except KeyError as error:
            what = f"reads the column {error}, which is not among its inputs"
            fix = f"{takes}. Add the column to the RequestSource or its view to `sources`, or correct the name."
            problems.append(self._problem(what, fix))
            return None
        except Exception as error:
            what = f"fails on {of}: {type(error).__name__}: {error}"
            problems.append(self._problem(what, f"{takes}. Use NumPy, for arrays and for a DataFrame."))
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
                problems.append(self._problem(f"returns {name} that is not a number: {error}", "Return numbers."))
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
                yield self._problem(what, "Return a number for all inputs: check divisions, logarithms and nulls.")

    def _compare(self, made: dict[str, np.ndarray], given: dict[str, np.ndarray], problems: list[Problem]) -> None:
        rows = len(next(iter(given.values())))
        frame = pd.DataFrame({name: self._of_feast(name, values) for name, values in given.items()})
        by_feast = self._features(frame, "the DataFrame of Feast", rows, problems)
        if by_feast is not None and (bad := _differing(made, by_feast)):
            what = (
                f"gives different values of {', '.join(bad)} for a DataFrame (Feast) and for arrays (training, serving)"
            )
            problems.append(self._problem(what, "Use NumPy: np.asarray(inputs[name]) is the same for both."))
        for i in range(ONE_BY_ONE):
            one = self._call({name: values[i : i + 1] for name, values in given.items()}, "a single row", problems)
            if one is None:
                return
            if bad := _differing({name: values[i : i + 1] for name, values in made.items()}, one):
                what = f"gives different values of {', '.join(bad)} for a row alone and among other rows"
                problems.append(self._problem(what, "Compute each row from that row alone, without means or ranks."))
                return

    def _of_feast(self, name: str, values: np.ndarray) -> Any:
        if values.dtype.kind == "M":
            return pd.DatetimeIndex(values).tz_localize("UTC")
        return values


def _differing(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> list[str]:
    return [name for name in left if not np.allclose(left[name], right[name], _TOLERANCE, _TOLERANCE, equal_nan=True)]
