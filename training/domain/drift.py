"""Whether the data has drifted from the data that the champion was trained on."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from training.contract.base import Days
from training.contract.feature_definitions import FeatureColumn
from training.contract.messages import ColumnDrift, Shift

#: The names of columns with the champion's outputs begin with it; no feature's name does. They are compared like
#: features (prediction drift).
OUTPUT = "_"
#: So many values represent those of the holdout.
REPRESENTATIVES = 1000


class DriftReport(NamedTuple):
    """The results of a drift test per column, and the files that it wrote."""

    columns: dict[str, ColumnDrift]
    html: Path
    json: Path


class DriftTest(Protocol):
    """A member of the registry DRIFT_TESTS."""

    def __call__(
        self, reference: pd.DataFrame, current: pd.DataFrame, maximum_share: float, folder: Path, about: dict[str, str]
    ) -> DriftReport:
        """Compare `current` with `reference`, which have the same columns: finite numbers, or text.

        NaN is a missing number and is left out of the comparison; text is never missing. Each side has some numbers.
        Write a page and its numbers as JSON to `folder`, which may not exist yet; nothing is sent over the network.
        The page calls the data set drifted when at least the share `maximum_share` of its columns has drifted. `about`
        (title → text) is stored in the report and shown on the page.
        """
        ...


def with_false_discovery_control(shifts: Mapping[str, Shift], chance: float) -> dict[str, Shift]:
    """The shifts with p-values that count how many columns were tested, and with the chance of error of this look.

    When nothing has changed, some column drifts with at most this chance; when some have, of those that are called
    drifted so many on average have not. Source: Benjamini & Hochberg, Controlling the False Discovery Rate, Journal of
    the Royal Statistical Society B 57, 1995. It holds for columns that are independent or rise and fall together.
    """
    if not shifts:
        return {}
    adjusted = false_discovery_control([shift.p_value for shift in shifts.values()], method="bh")
    return {
        name: shift.model_copy(update={"adjusted_p_value": float(p_value), "chance": chance})
        for (name, shift), p_value in zip(shifts.items(), adjusted, strict=True)
    }


def current_window(as_of: date, window_days: int) -> Days:
    """The days whose events are compared: the last `window_days` before `as_of`."""
    return Days.ending(as_of, window_days)


def sample(rows: pd.DataFrame, maximum: int, seed: int) -> pd.DataFrame:
    """At most `maximum` of the rows, in their order; the same rows for the same input and seed."""
    return rows if len(rows) <= maximum else rows.sample(maximum, random_state=seed).sort_index()


def has_drifted(columns: Mapping[str, ColumnDrift], maximum_share: float) -> tuple[bool, float]:
    """Whether the model's data drifted, and the share of its features (without the outputs) that did.

    The data drifted when that share reaches `maximum_share`. This is Evidently's rule of dataset drift; its own default
    is 0.5 (docs.evidentlyai.com, "Data drift"). It also drifted when an output did. While labels are late, a shift of
    the predictions is the best sign of a shift in performance (same source, "Prediction drift"), and one important
    feature can cause it while the share stays low.
    """
    features = [column.drifted for name, column in columns.items() if not name.startswith(OUTPUT)]
    share = sum(features) / len(features) if features else 0.0
    outputs = [column.drifted for name, column in columns.items() if name.startswith(OUTPUT)]
    return (bool(features) and share >= maximum_share) or any(outputs), share


def representatives(outputs: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    """Name → at most REPRESENTATIVES of the values in ascending order: quantiles, or texts in proportion."""
    return {
        name: spread(np.sort(values), min(len(values), REPRESENTATIVES)).tolist() for name, values in outputs.items()
    }


def spread(values: np.ndarray, rows: int) -> np.ndarray:
    """`rows` of the values, at even distances: some of them, or each about equally often."""
    return values[((np.arange(rows) + 0.5) * len(values) / max(rows, 1)).astype(int)]


def compared(features: pd.DataFrame, columns: Sequence[FeatureColumn]) -> pd.DataFrame:
    """The `columns` of features as they are compared: numbers as models get them, texts as they are.

    A dataset has columns of events as they were delivered, such as decimals, which would be compared as texts.
    """
    numbers = {column.name: np.float32 for column in columns if column.categories is None}
    return features[[column.name for column in columns]].astype(numbers)


def with_outputs(features: pd.DataFrame, outputs: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """`features` with a column for each of the outputs, which may have another number of rows."""
    columns = {f"{OUTPUT}{name}": spread(values, len(features)) for name, values in outputs.items()}
    return features.reset_index(drop=True).assign(**columns)
