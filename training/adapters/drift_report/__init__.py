"""Evidently's report on two tables of features: the page to look at."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from training.adapters.drift_report.page import write_page
from training.contract.errors import DataContractError
from training.contract.messages import ColumnDrift
from training.domain.drift import DriftReport

#: The category of missing text, and what the column of missing numbers is called after its column.
MISSING = "(missing)"


def write_drift_report(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    maximum_share: float,
    folder: Path,
    about: dict[str, str],
) -> DriftReport:
    """Compare `current` with `reference`: the same columns, numbers or text. Write a page and its numbers to `folder`.

    Missing text is a category of its own. Whether a number is missing is a column of its own on the page, and the
    column has drifted when either has. The page calls the data set drifted when at least the share `maximum_share` of
    its columns has drifted. `about` is stored in the report and shown at the top of the page. Raises DataContractError
    for infinite numbers.
    """
    old, new = pd.DataFrame(index=reference.index), pd.DataFrame(index=current.index)
    infinite = []
    for name in reference.columns:
        pair = (reference[name], current[name])
        if not all(map(is_numeric_dtype, pair)):
            old[name], new[name] = (values.astype(object).where(values.notna(), MISSING).astype(str) for values in pair)
            continue
        numbers = [values.astype(np.float64) for values in pair]
        if any(np.isinf(values).any() for values in numbers):
            infinite.append(name)
        if all(values.notna().any() for values in numbers):
            old[name], new[name] = numbers
        if any(values.isna().any() for values in numbers):
            old[_missing(name)], new[_missing(name)] = (values.isna().astype(float) for values in numbers)
    if infinite:
        hint = "Check the SQL or the function that computes these features."
        raise DataContractError(f"Columns with infinite values: {', '.join(sorted(infinite))}", hint)
    report = write_page(old, new, maximum_share, folder, about)
    columns = {name: _worst(report.columns, name) for name in reference.columns}
    return report._replace(columns=columns)


def _missing(name: str) -> str:
    return f"{name} {MISSING}"


def _worst(columns: Mapping[str, ColumnDrift], name: str) -> ColumnDrift:
    """The result of column `name`, or of its missing values where they have drifted further."""
    found = [columns[each] for each in (name, _missing(name)) if each in columns]
    return max(found, key=lambda column: column.score / column.threshold)
