"""A dataset on disk: its manifest `dataset.json`, training and holdout rows as Parquet, in time order, and a sample of
the training features, `reference.parquet`, which drift is measured against.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from training.contract.errors import DataContractError, InputError
from training.contract.messages import DatasetResult
from training.contract.model_spec import ModelSpec

MANIFEST, REFERENCE = "dataset.json", "reference.parquet"
#: A holdout row that evaluation leaves out.
EXCLUDED = "excluded"


@dataclass(frozen=True)
class Rows:
    """Rows of one split, in time order. Arrays are [n]; `features` gives [n, d]."""

    table: pa.Table
    spec: ModelSpec

    def features(self, names: list[str]) -> np.ndarray:
        """These features as float32 [n, len(names)]. Raises DataContractError when the split lacks one."""
        if missing := [name for name in names if name not in self.table.column_names]:
            problem = f"The dataset has no column {', '.join(missing)}"
            raise DataContractError(problem, hint=f"It has {', '.join(self.table.column_names)}.")
        values = np.empty((len(self.table), len(names)), dtype=np.float32)
        for i, name in enumerate(names):
            values[:, i] = self.table[name].to_numpy()
        return values

    @property
    def labels(self) -> np.ndarray:
        return self.table[self.spec.label.column].to_numpy().astype(np.int64)

    @property
    def entities(self) -> np.ndarray:
        return self.table[self.spec.evaluation.entity].to_numpy()

    @property
    def days(self) -> np.ndarray:
        return self.table[self.spec.feeds["events"].time_column].to_numpy().astype("datetime64[D]")

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
        path = Path(uri, MANIFEST)
        self._folder, self._spec = Path(uri), spec
        try:
            self.manifest = DatasetResult.model_validate_json(path.read_bytes())
        except OSError as error:
            hint = "Run the dataset step; datasets can be made again from the lake."
            raise InputError(f"No dataset at {path}: {error}", hint) from error
        except ValidationError as error:
            raise DataContractError(f"{path} is not a dataset's manifest: {error}", hint="Make it again.") from error

    def train(self) -> Rows:
        return self._read(self.manifest.train.uri)

    def holdout(self) -> Rows:
        return self._read(self.manifest.holdout.uri)

    @property
    def reference(self) -> Path:
        """Where the sample of the training features lies. Raises InputError when it is gone."""
        path = self._folder / REFERENCE
        if not path.is_file():
            raise InputError(f"{path} is gone", hint="Run the dataset step again.")
        return path

    def _read(self, uri: str) -> Rows:
        try:
            table = pq.read_table(uri)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"Cannot read {uri}: {error}", hint="Run the dataset step again.") from error
        keys = [(self._spec.feeds["events"].time_column, "ascending"), (self._spec.label.id_column, "ascending")]
        return Rows(table.take(pc.sort_indices(table, sort_keys=keys)), self._spec)
