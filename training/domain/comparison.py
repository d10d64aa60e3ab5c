"""The two sides of a drift comparison: their columns, and which of their rows resemble each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from training.contract.feature_definitions import FeatureColumn
from training.domain.evaluation_set import clusterings
from training.domain.resampling import Clusters

#: The names of columns with the champion's outputs begin with it; no feature's name does. They are compared like
#: features (prediction drift).
OUTPUT = "_"
#: So many values represent those of the holdout.
REPRESENTATIVES = 1000
#: The seasons that `matched` knows, and the least part of the rows that a part of the week must have of those it needs.
PARTS, LEAST = ("day_of_week", "hour_of_day"), 0.05
#: The kind of clusters that are blocks of time.
TIME = "(time)"


@dataclass(frozen=True)
class Side:
    """The rows of one side: columns [n] of finite numbers or texts, which may be missing (NaN, None).

    `clusters`: kind of entity → rows that resemble each other. Both sides have the same kinds, or one has none: which
    of its rows do is not known then. `times` [n]; None: not known.
    """

    columns: Mapping[str, np.ndarray]
    clusters: Mapping[str, Clusters] = field(default_factory=dict)
    times: np.ndarray | None = None


class Rows(NamedTuple):
    """Rows to compare. `keys`: their entities and time; None: not known."""

    columns: pd.DataFrame
    keys: pd.DataFrame | None

    def without(self, names: Sequence[str]) -> "Rows":
        """Without the columns `names`, where it has them."""
        return self._replace(columns=self.columns.drop(columns=list(names), errors="ignore"))

    def at(self, places: np.ndarray) -> "Rows":
        """The rows at `places`, in that order."""
        return Rows(self.columns.iloc[places], None if self.keys is None else self.keys.iloc[places])


def paired(reference: Rows, current: Rows, entities: Sequence[str], time: str) -> tuple[Side, Side]:
    """The sides of a comparison. The entities themselves are columns too, where both sides know them."""
    clusters = iter(
        clusters_of_sides([each.keys for each in (reference, current) if each.keys is not None], entities, time)
    )
    ids = [name for name in entities if reference.keys is not None and current.keys is not None]
    sides = []
    for columns, keys in (reference, current):
        found = {name: _plain(columns[name]) for name in columns}
        if keys is not None:
            found |= {name: keys[name].to_numpy(object) for name in ids if name not in found}
        known = () if keys is None else (next(clusters), keys[time].to_numpy("datetime64[ns]"))
        sides.append(Side(found, *known))
    return sides[0], sides[1]


def are_numbers(*sides: np.ndarray) -> bool:
    """Whether a column is compared as numbers: all its sides are."""
    return all(np.issubdtype(values.dtype, np.number) for values in sides)


def matched(reference: Rows, current: Rows, time: str, seasons: Sequence[str]) -> tuple[Rows, Rows]:
    """Rows of the reference with the mix of weekdays, hours or both (UTC) that the current rows have.

    `seasons`: `day_of_week`, `hour_of_day`. Rows are left out of the reference, so no row counts twice. Parts of the
    week of which it has far too few rows, less than LEAST of what they need, are left out of both sides.
    """
    if reference.keys is None or current.keys is None or not (wanted := [each for each in seasons if each in PARTS]):
        return reference, current
    parts = [_part(each.keys[time], wanted) for each in (reference, current) if each.keys is not None]
    old, new = (np.bincount(each, minlength=7 * 24) for each in parts)
    ratio = old / np.maximum(new, 1) * len(parts[1]) / max(len(parts[0]), 1)
    kept = (new > 0) & (ratio >= LEAST)
    if not kept.any():
        return reference, current
    share = (old[kept] / new[kept]).min()
    chosen = [
        spread(np.flatnonzero(parts[0] == part), int(share * new[part])) for part in np.flatnonzero(kept).tolist()
    ]
    return reference.at(np.sort(np.concatenate(chosen))), current.at(np.flatnonzero(kept[parts[1]]))


def _part(times: pd.Series, seasons: Sequence[str]) -> np.ndarray:
    days = times.dt.dayofweek.to_numpy() if "day_of_week" in seasons else 0
    hours = times.dt.hour.to_numpy() if "hour_of_day" in seasons else 0
    return np.asarray(days * 24 + hours, np.int64)


def _plain(values: pd.Series) -> np.ndarray:
    return values.to_numpy() if isinstance(values.dtype, np.dtype) else values.to_numpy(object)


def clusters_of_sides(sides: Sequence[pd.DataFrame], entities: Sequence[str], time: str) -> list[dict[str, Clusters]]:
    """For each side, the clusters of its rows by each of the columns `entities`.

    Blocks of time, once, where one side has too few entities of a kind, or there is none (training/domain/resampling.py
    says why). A kind of which one side has nothing to draw is left out: its rows count as independent.
    """
    found: list[dict[str, Clusters]] = [{} for _ in sides]
    for name in entities or [TIME]:
        kind, drawn = name, [_drawn(side, [name] if entities else [], time) for side in sides]
        if any(each.by_time for each in drawn):
            kind, drawn = TIME, [_drawn(side, [], time) for side in sides]
        if all(each.count for each in drawn):
            for side, each in zip(found, drawn, strict=True):
                side[kind] = each
    return found


def _drawn(rows: pd.DataFrame, entities: list[str], time: str) -> Clusters:
    [found] = clusterings([rows[name] for name in entities], rows[time].dt.floor("D"), rows[time])
    return found


def sample(rows: pd.DataFrame, maximum: int, seed: int) -> pd.DataFrame:
    """At most `maximum` of the rows, in their order; the same rows for the same input and seed."""
    return rows if len(rows) <= maximum else rows.sample(maximum, random_state=seed).sort_index()


def representatives(outputs: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    """Name → at most REPRESENTATIVES of the values in ascending order: quantiles, or texts in proportion."""
    return {
        name: spread(np.sort(values), min(len(values), REPRESENTATIVES)).tolist() for name, values in outputs.items()
    }


def spread(values: np.ndarray, rows: int) -> np.ndarray:
    """`rows` of the values, at even distances: some of them, or each about equally often."""
    return values[((np.arange(rows) + 0.5) * len(values) / max(rows, 1)).astype(int)]


def compared(features: pd.DataFrame, columns: Sequence[FeatureColumn], embeddings: Sequence[str] = ()) -> pd.DataFrame:
    """The `columns` of features as they are compared: numbers as models get them, texts as they are; and those of the
    columns `embeddings` that there are.

    A dataset has columns of events as they were delivered, such as decimals, which would be compared as texts.
    """
    numbers = {column.name: np.float32 for column in columns if column.categories is None}
    more = [name for name in embeddings if name in features]
    return features[[*(column.name for column in columns), *more]].astype(numbers)


def with_outputs(features: pd.DataFrame, outputs: pd.DataFrame) -> pd.DataFrame:
    """`features` with the columns of `outputs`, which may have another number of rows."""
    columns = {name: spread(outputs[name].to_numpy(), len(features)) for name in outputs}
    return features.reset_index(drop=True).assign(**columns)


def named_outputs(outputs: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """The outputs as columns, with names that no feature has."""
    return pd.DataFrame({f"{OUTPUT}{name}": values for name, values in outputs.items()})
