"""Training-serving skew: compare each logged feature value with the value that training would use.

A logged value is explained when it is equal to one of these:

- the offline value at the time of the request: online and offline agree;
- the offline value at the time when the online store was last filled before the request. The store is behind between
  two materializations. The log gives this time: it is the newest feature timestamp that an earlier request used;
- the default, if the log says that the store did not have the entity or that its row was too old.

A value that none of these explains is skew.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from training.contract.base import Frozen
from training.contract.messages import FeatureSkew, SkewExample

#: The kind of the audit's ledger entries.
AUDIT = "audit"
#: Relative and absolute tolerance of a float32 feature that was written to the online store and read from it.
TOLERANCE = (1e-5, 1e-6)
EXAMPLES = 3


class Audit(Frozen):
    """Body of a ledger entry of kind `audit`."""

    as_of: date
    rows: int
    values: int
    mismatches: int
    #: Feature → share of its values that are not explained. Only features with such values.
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
    """Offline values [n, d] at one kind of time, and the rows [n] whose logged values they may explain."""

    values: np.ndarray
    rows: np.ndarray


def horizons(predicted_at: pd.Series, first: pd.Series, used: pd.Series) -> pd.Series:
    """For each request, when the online store was last filled, as far as the log shows; NaT: it does not.

    This is the newest feature timestamp that a request up to then has `used`, `first` at that time. Same index as
    `predicted_at`.
    """
    uses = pd.DataFrame({"at": first, "used": used}).sort_values("at", ignore_index=True)
    newest = uses["used"].cummax()
    places = uses["at"].searchsorted(predicted_at, side="right") - 1
    found = newest.reindex(places).mask(places < 0)
    return pd.Series(found.array, predicted_at.index)


def compare(
    names: Sequence[str],
    ids: Sequence[object],
    logged: np.ndarray,
    given: np.ndarray,
    now: Offline,
    behind: Offline,
    default: Offline,
) -> dict[str, FeatureSkew]:
    """Feature → its skew, for the `logged` values [n, d] of the requests `ids` [n] and the features `names` [d].

    `given` (bool [n, d]): which values were logged. A version that does not use a feature logs no value. Only NaN
    explains a logged NaN.
    """
    relative, absolute = TOLERANCE

    def explained(by: Offline) -> np.ndarray:
        close = np.isclose(logged, by.values, rtol=relative, atol=absolute, equal_nan=True)
        return np.asarray(close & by.rows[:, None] & given)

    exact = explained(now)
    old = explained(behind) & ~exact
    unknown = explained(default) & ~exact & ~old
    skewed = given & ~(exact | old | unknown)
    # NaN counts as the largest difference. It is not reported as a number.
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
