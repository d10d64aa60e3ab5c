"""The rows of the holdout that count, as one Parquet file in the run of a version: what its performance is estimated
from while labels are late, and what a fall of it is compared with.

Entities are kept as numbers that say which rows belong together, not as their ids.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from training.contract.errors import DataContractError

#: Its name in the folder `reference` of the run.
HOLDOUT_ROWS = "holdout_rows.parquet"
#: More rows are sampled: estimates from these are as good, and the file stays small.
MAXIMUM_ROWS = 200_000
_FEATURE, _SCORE, _ENTITY, _AGE, _LABEL, _TIME = "feature:", "score:", "entity:", "age:", "label", "time"


@dataclass(frozen=True)
class HoldoutRows:
    """n rows: the matrix that the model gets, float32 [n, d]; its scores [n] or [n, k]; the labels as the task's
    `truth` gives them; kind of entity → entities (null: none); times in UTC; kind of entity → their ages in days [n]
    (NaN: none), which a version of an earlier release does not have."""

    features: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    entities: dict[str, pd.Series]
    times: np.ndarray
    ages: dict[str, np.ndarray] = field(default_factory=dict)

    def sample(self, maximum: int, seed: int) -> "HoldoutRows":
        """At most `maximum` of the rows, in their order; the same ones for the same seed."""
        if len(self.labels) <= maximum:
            return self
        rows = np.sort(np.random.default_rng(seed).permutation(len(self.labels))[:maximum])
        entities = {name: values.iloc[rows] for name, values in self.entities.items()}
        ages = {name: values[rows] for name, values in self.ages.items()}
        return HoldoutRows(self.features[rows], self.scores[rows], self.labels[rows], entities, self.times[rows], ages)


def write_holdout_rows(path: Path, rows: HoldoutRows, names: list[str]) -> None:
    """`names`: of the features, in their order."""
    scores = rows.scores.reshape(len(rows.scores), -1)
    columns = {f"{_FEATURE}{name}": pa.array(rows.features[:, place]) for place, name in enumerate(names)}
    columns |= {f"{_SCORE}{place}": pa.array(scores[:, place]) for place in range(scores.shape[1])}
    for name, values in rows.entities.items():
        numbers = pd.factorize(values)[0]
        columns[f"{_ENTITY}{name}"] = pa.array(numbers, mask=numbers < 0)
    columns |= {f"{_AGE}{name}": pa.array(values) for name, values in rows.ages.items()}
    columns |= {_LABEL: pa.array(rows.labels), _TIME: pa.array(rows.times)}
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_holdout_rows(path: Path, names: list[str]) -> HoldoutRows:
    """With the features `names`. Raises DataContractError when the file lacks one, or cannot be read."""
    try:
        table = pq.read_table(path)
        features = np.column_stack([table[f"{_FEATURE}{name}"].to_numpy() for name in names])
        scores = [table[name].to_numpy() for name in table.column_names if name.startswith(_SCORE)]
        labels, times = table[_LABEL].to_numpy(), table[_TIME].to_numpy()
    except (KeyError, OSError, pa.ArrowInvalid) as error:
        raise DataContractError(f"{path} cannot be read: {error}", hint="Train a new version.") from error
    entities = {
        name.removeprefix(_ENTITY): table[name].to_pandas() for name in table.column_names if name.startswith(_ENTITY)
    }
    ages = {name.removeprefix(_AGE): table[name].to_numpy() for name in table.column_names if name.startswith(_AGE)}
    values = scores[0] if len(scores) == 1 else np.column_stack(scores)
    return HoldoutRows(features, values, labels, entities, times, ages)
