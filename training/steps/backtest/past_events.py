"""The events of the period with their features as known then, computed once, and what each model scores them.

They are kept by weeks that begin on a Monday: `<place>/events/<monday>.parquet` in the order of time and id, and
`<place>/scores/<digest of the model>/<monday>.npy` in the same order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from training import atomic
from training.adapters.lake import EVENTS, Lake
from training.adapters.onnx_model import OnnxModel
from training.adapters.tables import Events
from training.contract.base import Days, midnight
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.arrow_types import as_exact_pandas
from training.domain.encoding import encoded
from training.steps.backtest.own_state import Place


def monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def mondays(days: Days) -> list[date]:
    """The Mondays of the weeks that `days` touch."""
    first, last = monday(days.start), monday(days.end - timedelta(days=1))
    return [first + timedelta(days=n) for n in range(0, (last - first).days + 1, 7)]


@dataclass(frozen=True)
class PastEvents:
    """Frames with the id, the time and the entities of events, and the model's features (float32, text)."""

    place: Place

    @property
    def spec(self) -> ModelSpec:
        return _spec(self.place.model, self.place.settings.models_dir, self.place.settings.feature_repo)

    @property
    def keys(self) -> list[str]:
        """The id, the time and the entities of events."""
        source = self.spec.source
        return list(dict.fromkeys([source.id_column, source.events.time_column, *self.spec.entity_columns]))

    def compute(self, week: date) -> None:
        """Compute the features of one week, unless they are kept already."""
        from training.adapters.features import Features

        path, source = self._path(week), self.spec.source
        if path.is_file():
            return
        lake = Lake(self.place.settings.lake, source.name, self.place.model)
        events = Events(lake, source, self.place.versions[EVENTS])
        rows = events.within(Days(start=week, end=week + timedelta(days=7)))
        rows = rows.sort_values([source.events.time_column, source.id_column], ignore_index=True)
        features = Features(self.place.settings, self.spec)
        made = features.historical(rows, self.place.versions) if len(rows) else rows
        wanted = dict.fromkeys([*self.keys, *self.spec.monitoring.embeddings, *features.names()])
        names = [name for name in wanted if name in made]
        with atomic.replacing(path) as draft:
            pq.write_table(pa.Table.from_pandas(made[names], preserve_index=False), draft)

    def rows(self, days: Days) -> pd.DataFrame:
        """The events of `days` in the order of time and id."""
        return self._parts(days, [_read(self._path(week)) for week in mondays(days)])

    def count(self, week: date) -> int:
        """The number of events of one week."""
        return int(pq.read_metadata(self._path(week)).num_rows)

    def score(self, model: OnnxModel, week: date) -> np.ndarray:
        """What `model` scores the events of one week, [n] or [n, k]. Kept."""
        path = self.place.folder / "scores" / model.metadata.digest[:16] / f"{week}.npy"
        if path.is_file():
            return np.asarray(np.load(path))
        rows, columns = _read(self._path(week)), model.metadata.columns
        features = encoded({column.name: rows[column.name].to_numpy() for column in columns}, columns)
        scores = model.score(features) if len(rows) else np.empty(0, np.float32)
        with atomic.replacing(path) as draft, draft.open("wb") as file:
            np.save(file, scores)
        return scores

    def scores(self, model: OnnxModel, days: Days) -> np.ndarray:
        """What `model` scores `rows(days)`."""
        weeks = mondays(days)
        found = [
            self.score(model, week)[self._inside(_read(self._path(week)), days)] for week in weeks if self._filled(week)
        ]
        return np.concatenate(found) if found else np.empty(0, np.float32)

    def _filled(self, week: date) -> bool:
        return len(_read(self._path(week))) > 0

    def _parts(self, days: Days, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
        filled = [frame for frame in frames if len(frame)] or list(frames[:1])
        found: pd.DataFrame = pd.concat([frame[self._inside(frame, days)] for frame in filled], ignore_index=True)
        return found

    def _inside(self, frame: pd.DataFrame, days: Days) -> np.ndarray:
        times = frame[self.spec.source.events.time_column]
        return ((times >= midnight(days.start)) & (times < midnight(days.end))).to_numpy()

    def _path(self, week: date) -> Path:
        return self.place.folder / "events" / f"{week}.parquet"


@lru_cache(maxsize=2)
def _spec(model: str, models_dir: Path, feature_repo: Path) -> ModelSpec:
    """Read once by a process: all of its jobs are of one backtest."""
    return load_model_spec(model, models_dir, feature_repo)


@lru_cache(maxsize=12)
def _read(path: Path) -> pd.DataFrame:
    """Not to be changed: the next caller gets the same frame."""
    found: pd.DataFrame = as_exact_pandas(pq.read_table(path))
    return found
