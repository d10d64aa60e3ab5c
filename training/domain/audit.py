"""Were the features that a model was served those that it would have been trained on? Value by value.

A logged value is explained when it equals the offline value of the same request at one of these times:

- at the request's own time: online and offline agree;
- when the online store was last filled before the request: the store was behind, as it is between two runs of
  materialization. That time is taken from the log, the newest feature timestamp that any request before had used;
- or it is the default, where the log says that an entity was unknown to the store or its row too old.

What none of them explains is skew.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from training.contract.base import Frozen
from training.contract.messages import FeatureSkew, SkewExample

#: Ledger entries of the audit.
AUDIT = "audit"
#: Features are float32: relative and absolute tolerance of one that went through the online store and back.
TOLERANCE = (1e-5, 1e-6)
EXAMPLES = 3


class Audit(Frozen):
    """Body of a ledger entry of kind `audit`."""

    as_of: date
    rows: int
    values: int
    mismatches: int
    #: Feature → share of its values, of those that have any.
    features: dict[str, float]

    @property
    def share(self) -> float:
        return self.mismatches / self.values if self.values else 0.0

    def __str__(self) -> str:
        worst = sorted(self.features.items(), key=lambda each: -each[1])[:3]
        named = "".join(f", {name} {share:.2%}" for name, share in worst)
        return f"{self.share:.2%} of {self.values} logged values are not explained{named}"


@dataclass(frozen=True)
class Offline:
    """Offline values [n, d] at one kind of time, and for which rows [n] they may explain the log."""

    values: np.ndarray
    rows: np.ndarray


def horizons(predicted_at: pd.Series, used: pd.Series) -> pd.Series:
    """Per request the newest feature timestamp that it or any request before it had `used` (NaT: none): when the online
    store was last filled, as far as the log can tell. Same index as `predicted_at`."""
    order = predicted_at.sort_values(kind="stable").index
    return used.reindex(order).cummax().ffill().reindex(predicted_at.index)


def compare(
    names: Sequence[str],
    ids: Sequence[object],
    logged: np.ndarray,
    given: np.ndarray,
    now: Offline,
    behind: Offline,
    default: Offline,
) -> dict[str, FeatureSkew]:
    """Feature → what was found, for `logged` values [n, d] of the requests `ids` [n], columns as in `names` [d].

    `given` (bool [n, d]) says which values there are: a version that does not take a feature has none. NaN is a value
    that only NaN explains.
    """
    relative, absolute = TOLERANCE

    def explained(by: Offline) -> np.ndarray:
        close = np.isclose(logged, by.values, rtol=relative, atol=absolute, equal_nan=True)
        return np.asarray(close & by.rows[:, None] & given)

    exact = explained(now)
    old = explained(behind) & ~exact
    unknown = explained(default) & ~exact & ~old
    skewed = given & ~(exact | old | unknown)
    # A value that is not a number counts as the largest difference, and is not reported as a number.
    differences = np.nan_to_num(np.abs(logged.astype(float) - now.values.astype(float)), nan=np.inf)
    found = {}
    for column, name in enumerate(names):
        rows, values = np.flatnonzero(skewed[:, column]), int(given[:, column].sum())
        far = differences[rows, column]
        examples = [
            SkewExample(id=str(ids[row]), logged=_number(logged[row, column]), offline=_number(now.values[row, column]))
            for row in rows[np.argsort(-far, kind="stable")][:EXAMPLES]
        ]
        found[name] = FeatureSkew(
            values=values,
            mismatches=len(rows),
            share=len(rows) / values if values else 0.0,
            largest=float(far[np.isfinite(far)].max(initial=0.0)),
            behind=int(old[:, column].sum()),
            defaulted=int(unknown[:, column].sum()),
            examples=examples,
        )
    return found


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
