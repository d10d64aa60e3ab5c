"""Compare two tables of features with the drift test that a spec names."""

from pathlib import Path

import numpy as np
import pandas as pd

from training.contract.errors import DataContractError
from training.contract.registries import DRIFT_TESTS
from training.domain.drift import DriftReport


def write_drift_report(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    maximum_share: float,
    folder: Path,
    about: dict[str, str],
    test: str = "distance",
) -> DriftReport:
    """Compare `current` with `reference` (the same numeric columns) and write a page and its numbers to `folder`.

    `maximum_share` is the share of drifted columns from which the page calls the data set drifted. `about` is kept in
    the report and shown at the head of the page. `test` is a member of the registry DRIFT_TESTS. Raises
    DataContractError for values that are missing or not finite, ConfigError for an unknown test.
    """
    bad = {name for rows in (reference, current) for name in rows.columns[~np.isfinite(rows.to_numpy()).all(axis=0)]}
    if bad:
        hint = "Features have defined defaults; look at how these are made."
        raise DataContractError(f"Columns with values that are missing or not finite: {', '.join(sorted(bad))}", hint)
    return DRIFT_TESTS.find(test)(reference, current, maximum_share, folder, about)
