"""A dataset on disk: its manifest `dataset.json`, training and holdout rows as Parquet, in time order, and a sample of
the training features, `reference.parquet`, which drift is measured against.

For the artifacts it has the definitions of its features, `features.json`, and of each row of the holdout what they were
made of, `requests.parquet`: `event` (a struct) and `batch` (a struct of the views' columns, null without a row).
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from training import atomic, storage
from training.contract.errors import DataContractError, InputError
from training.contract.feature_definitions import FeatureColumn, FeatureDefinitions
from training.contract.messages import DatasetResult, TrainingWindow
from training.contract.model_spec import ModelSpec
from training.domain.arrow_types import as_exact_pandas
from training.domain.encoding import encoded
from training.domain.entity_age import age_column, complete
from training.domain.frames import EXCLUDED
from training.domain.windows import reference_rows, rows_of_window

log = logging.getLogger("perennial")

MANIFEST, TRAIN, HOLDOUT, REFERENCE = "dataset.json", "train.parquet", "holdout.parquet", "reference.parquet"
REQUESTS, DEFINITIONS = "requests.parquet", "features.json"


@dataclass(frozen=True)
class Rows:
    """Rows of one split, in time order. Arrays are [n]; `features` gives [n, d]."""

    table: pa.Table
    spec: ModelSpec

    def features(self, columns: Sequence[FeatureColumn]) -> np.ndarray:
        """The matrix of these columns, float32 [n, d]. Raises DataContractError when the split lacks one."""
        if missing := [column.name for column in columns if column.name not in self.table.column_names]:
            problem = f"The dataset has no column {', '.join(missing)}"
            raise DataContractError(problem, hint=f"It has {', '.join(self.table.column_names)}.")
        return encoded({column.name: _plain(self.table[column.name]) for column in columns}, columns)

    @property
    def labels(self) -> np.ndarray:
        """As they were reported."""
        return self.column(self.spec.label).to_numpy()

    @property
    def entities(self) -> pd.Series | None:
        """None when the spec names no entity of evaluation."""
        return None if self.spec.evaluation.entity is None else self.column(self.spec.evaluation.entity)

    def some(self, numbers: np.ndarray) -> "Rows":
        """Only the rows with these numbers, in that order."""
        return Rows(self.table.take(pa.array(numbers)), self.spec)

    def column(self, name: str) -> pd.Series:
        """One column of the table."""
        values: pd.Series = as_exact_pandas(self.table.select([name])).squeeze(axis="columns")
        return values

    @property
    def times(self) -> np.ndarray:
        """In UTC, without a zone."""
        return self.table[self.spec.source.events.time_column].to_numpy()

    @property
    def days(self) -> np.ndarray:
        return self.times.astype("datetime64[D]")

    @property
    def ages(self) -> dict[str, np.ndarray]:
        """Column of entities → their ages in days [n] (training/domain/entity_age.py), where all rows have them."""
        kinds = [name for name in self.spec.entity_columns if age_column(name) in self.table.column_names]
        found = {name: self.column(age_column(name)).to_numpy() for name in kinds}
        return complete(found, {name: self.column(name) for name in kinds})

    @property
    def evaluated(self) -> np.ndarray:
        """Which rows evaluation counts: all but the excluded ones."""
        if EXCLUDED not in self.table.column_names:
            return np.ones(len(self.table), dtype=bool)
        return ~self.table[EXCLUDED].to_numpy(zero_copy_only=False)


class Dataset:
    """The dataset in folder `uri`."""

    def __init__(self, uri: str, spec: ModelSpec) -> None:
        """Raises InputError when there is none, DataContractError when its manifest is broken."""
        self._uri, self._spec = uri, spec
        manifest = storage.join(uri, MANIFEST)
        content = storage.read(manifest)
        if content is None:
            hint = "Run the dataset step; datasets can be made again from the lake."
            raise InputError(f"No dataset at {manifest}", hint)
        try:
            self.manifest = DatasetResult.model_validate_json(content)
        except ValidationError as error:
            raise DataContractError(f"{manifest} is not a dataset's manifest: {error}", "Make it again.") from error

    def train(self) -> Rows:
        """The rows of all windows."""
        return self._read(storage.join(self._uri, TRAIN))

    def window(self, name: str) -> TrainingWindow:
        """Raises InputError when the dataset has no window with that name."""
        for window in self.manifest.all_windows:
            if window.name == name:
                return window
        has = ", ".join(repr(window.name) for window in self.manifest.all_windows)
        raise InputError(f"The dataset in {self._uri} has no window {name!r}", hint=f"It has {has}.")

    def train_on(self, name: str) -> Rows:
        """The rows that a model is fitted on in the window `name`."""
        rows, window = self.train(), self.window(name)
        numbers = rows_of_window(name, window.days, rows.days, self.manifest.seed)
        return rows if len(numbers) == len(rows.table) else rows.some(numbers)

    def train_labels(self, columns: Sequence[str]) -> Rows:
        """The training rows with their labels and these columns only."""
        names = dict.fromkeys([*self._keys, self._spec.label, *columns])
        return self._read(storage.join(self._uri, TRAIN), columns=list(names))

    def train_sample(self, choose: Callable[[np.ndarray], np.ndarray]) -> Rows:
        """Some of the training rows, in the order of their numbers. `choose`: the labels of all [n] → the numbers.

        It takes the memory of the rows that are chosen, not of all.
        """
        with self._parquet(storage.join(self._uri, TRAIN)) as content:
            file, label = pq.ParquetFile(content), self._spec.label
            wanted = np.sort(choose(file.read([label])[label].to_numpy()))
            parts, start = [], 0
            for batch in file.iter_batches():
                first, last = np.searchsorted(wanted, [start, start + batch.num_rows])
                parts.append(batch.take(pa.array(wanted[first:last] - start)))
                start += batch.num_rows
            return Rows(pa.Table.from_batches(parts, file.schema_arrow), self._spec)

    def holdout(self) -> Rows:
        return self._read(storage.join(self._uri, HOLDOUT))

    def reference(self, window: str = "") -> bytes:
        """A sample of the rows of `window`, with features, entities and times, as Parquet.

        That of the first window lies in the folder; another one is drawn here. Raises InputError when it is gone.
        """
        if window == self.manifest.all_windows[0].name:
            return self._content(storage.join(self._uri, REFERENCE))
        rows = self.train_on(window)
        every = np.arange(len(rows.table))
        chosen = reference_rows(every, self._spec.monitoring.maximum_rows, self.manifest.seed)
        ages = [name for name in map(age_column, self._spec.entity_columns) if name in rows.table.column_names]
        names = dict.fromkeys([*self.manifest.feature_names, *self._spec.drift_columns, *ages])
        kept, buffer = rows.some(chosen).table.select(list(names)), pa.BufferOutputStream()
        pq.write_table(kept, buffer)
        return bytes(buffer.getvalue())

    def definitions(self) -> FeatureDefinitions:
        """What makes the features. Raises InputError when the file is gone."""
        return FeatureDefinitions.model_validate_json(self._content(storage.join(self._uri, DEFINITIONS)))

    def columns(self) -> tuple[FeatureColumn, ...]:
        """The columns of the matrix of its features. Raises InputError when the definitions are gone."""
        return self.definitions().columns(self.manifest.feature_names)

    def requests(self) -> pa.Table:
        """What the features of the holdout's rows were made of, in their order. Raises InputError when it is gone."""
        return self._read(storage.join(self._uri, REQUESTS), "event").table

    def _content(self, uri: str) -> bytes:
        content = storage.read(uri)
        if content is None:
            raise InputError(f"{uri} is gone", hint="Run the dataset step again.")
        return content

    @property
    def _keys(self) -> tuple[str, str]:
        """The columns that order the rows."""
        return self._spec.source.events.time_column, self._spec.source.id_column

    def _read(self, uri: str, within: str | None = None, columns: list[str] | None = None) -> Rows:
        """The rows at `uri`, in the order of the events, whose columns lie in the struct `within`."""
        with self._parquet(uri) as content:
            table = pq.read_table(content, columns=columns)
        events = pa.Table.from_struct_array(table[within]) if within else table
        keys = [(name, "ascending") for name in self._keys]
        return Rows(table.take(pc.sort_indices(events, sort_keys=keys)), self._spec)

    @contextmanager
    def _parquet(self, uri: str) -> Iterator[pa.BufferReader]:
        """The file at `uri`, to be read. Raises InputError when it is gone, or broken."""
        content = pa.BufferReader(self._content(uri))
        try:
            yield content
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"Cannot read {uri}: {error}", hint="Run the dataset step again.") from error


def _plain(values: pa.ChunkedArray) -> np.ndarray:
    # to_numpy gives a null among dictionary-encoded texts the last text.
    kind = values.type
    return (values.cast(kind.value_type) if pa.types.is_dictionary(kind) else values).to_numpy()


def is_complete(uri: str) -> bool:
    """Whether all of a dataset is at `uri`."""
    return {MANIFEST, TRAIN, HOLDOUT, REFERENCE, REQUESTS, DEFINITIONS} <= {file.name for file in storage.files(uri)}


def requests(events: pd.DataFrame, batch: pd.DataFrame) -> pa.Table:
    """The table REQUESTS of rows: their `events`, and the values of the views' columns that were joined to them."""
    return pa.table({"event": _structs(events), "batch": _structs(batch)})


def _structs(frame: pd.DataFrame) -> pa.Array:
    if frame.columns.empty:  # Parquet has no struct without fields
        return pa.nulls(len(frame))
    return pa.Table.from_pandas(frame, preserve_index=False).to_struct_array()


def write_dataset(
    uri: str,
    frames: Mapping[str, pd.DataFrame],
    manifest: DatasetResult,
    requests: pa.Table,
    definitions: FeatureDefinitions,
) -> None:
    """The whole dataset or none. Of two that write the same one, one wins; they are equal."""
    beside = None if storage.is_remote(uri) else storage.local(uri).parent
    if beside:
        beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside, prefix=f".{manifest.dataset_id}.") as temporary:
        draft = Path(temporary, "dataset")
        draft.mkdir()
        for name, frame in frames.items():
            pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), draft / name)
            log.info("%s: %d rows, %d columns", storage.join(uri, name), *frame.shape)
        pq.write_table(requests, draft / REQUESTS)
        (draft / DEFINITIONS).write_text(definitions.model_dump_json(indent=2))
        (draft / MANIFEST).write_text(manifest.model_dump_json(indent=2))
        if beside:
            _move(draft, storage.local(uri))
            return
        # The manifest last: a folder without it is not a dataset.
        for name in (*frames, REQUESTS, DEFINITIONS, MANIFEST):
            storage.write(storage.join(uri, name), (draft / name).read_bytes())


def _move(draft: Path, folder: Path) -> None:
    if folder.exists() and not is_complete(str(folder)):
        log.info("%s lacks files, it is made again", folder)
        shutil.rmtree(folder)
    atomic.flush(draft)
    try:
        os.rename(draft, folder)
        atomic.flush_one(folder.parent)
    except OSError:
        if not is_complete(str(folder)):
            raise
