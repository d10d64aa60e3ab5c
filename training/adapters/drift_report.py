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
    """Compare `current` with `reference` (the same numeric columns). Write a page and its numbers to `folder`.

    The page calls the data set drifted when at least the share `maximum_share` of its columns has drifted. `about` is
    stored in the report and shown at the top of the page. `test` is a member of the registry DRIFT_TESTS. Raises
    DataContractError for values that are missing or not finite, and ConfigError for an unknown test.
    """
    bad = {name for rows in (reference, current) for name in rows.columns[~np.isfinite(rows.to_numpy()).all(axis=0)]}
    if bad:
        hint = "Every feature has a default value. Check the SQL or the function that computes these features."
        raise DataContractError(f"Columns with values that are missing or not finite: {', '.join(sorted(bad))}", hint)
    return DRIFT_TESTS.find(test)(reference, current, maximum_share, folder, about)
