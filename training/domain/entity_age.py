"""How long entities have been known: the days since the first event of each, among the events of the last LOOK_BACK.

Every row looks back equally far, so an entity that comes and goes has the same ages now as a year ago, and none gets
older because the lake has grown. One that was there LOOK_BACK before has that age.
"""

from collections.abc import Mapping
from datetime import date, timedelta

import numpy as np
import pandas as pd

from training.contract.feature_definitions import FeatureColumn

#: Older events are not read.
LOOK_BACK = timedelta(days=28)
#: More than there are days: entity · _DAYS + day is one number for both.
_DAYS = 1_000_000


def age_column(entity: str) -> str:
    """The column of a dataset that has the ages."""
    return f"_age_{entity}"


def age_name(entity: str) -> str:
    """What the age is called where people read it."""
    return f"days since {entity} was first seen"


def age_feature(entity: str) -> FeatureColumn:
    """The ages as a column that segments of rows are found by."""
    return FeatureColumn(name=age_name(entity), may_be_missing=True)


def ages(entities: pd.Series, days: np.ndarray, seen: pd.DataFrame, first: date) -> np.ndarray:
    """The ages of the entities of n rows of the `days` [n] (datetime64[D]), float32 [n].

    `seen`: an entity and a day on which it had an event, in each row. `first`: the day of the lake's first event. NaN
    where a row has no entity, or where the lake does not reach back far enough.
    """
    codes = pd.factorize(pd.concat([seen.iloc[:, 0], entities], ignore_index=True))[0].astype(np.int64)
    known = np.sort(codes[: len(seen)] * _DAYS + _numbers(seen.iloc[:, 1].to_numpy()))
    own = codes[len(seen) :] * _DAYS + _numbers(days)
    if not len(known):
        known = own
    # The first event that is no older. Nothing is known of an entity whose first one lies later, or is another's.
    at = np.searchsorted(known, own - LOOK_BACK.days)
    found = own - np.minimum(known.take(at, mode="clip"), own)
    # Those of the last entity in `known` may lie before.
    found = np.where(found > LOOK_BACK.days, 0, found).astype(np.float32)
    lacking = days < np.datetime64(first + LOOK_BACK)
    return np.where(entities.isna().to_numpy() | lacking, np.float32(np.nan), found)


def complete(
    found: Mapping[str, np.ndarray], entities: Mapping[str, pd.Series] | pd.DataFrame
) -> dict[str, np.ndarray]:
    """Those of the ages [n] by column that all rows with an entity have."""
    return {name: each for name, each in found.items() if not np.isnan(each[entities[name].notna().to_numpy()]).any()}


def _numbers(days: np.ndarray) -> np.ndarray:
    return np.asarray(days).astype("datetime64[D]").astype(np.int64)
