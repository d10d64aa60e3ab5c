"""Evidently's drift report: scores per column, a page to look at, the numbers as JSON.

The comparison of a column is fixed here instead of left to Evidently, which goes by the number of rows: with few rows
its tests give p-values, twenty of which find drift by chance. A distance does not depend on the number of rows, and has
one threshold. The choices are those that Evidently makes above 1,000 rows.
"""

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from training.contract.errors import DataContractError
from training.contract.messages import ColumnDrift

#: First Wasserstein distance over the reference's standard deviation; Jensen–Shannon distance for few distinct values.
NUMERIC, DISCRETE = "wasserstein", "jensenshannon"
#: Evidently's default for both: a shift by a tenth of a standard deviation.
THRESHOLD = 0.1
#: With more distinct values than this a column is compared as numeric.
DISCRETE_VALUES = 5


class DriftReport(NamedTuple):
    columns: dict[str, ColumnDrift]
    html: Path
    json: Path


def write_drift_report(
    reference: pd.DataFrame, current: pd.DataFrame, maximum_share: float, folder: Path, about: dict[str, str]
) -> DriftReport:
    """Compare `current` with `reference` (the same numeric columns) and write report.html and report.json to `folder`.

    `maximum_share` is only what the page calls drift of the data set. `about` is kept in the report. Nothing is sent
    anywhere. Raises DataContractError for values that are missing or not finite, which Evidently would leave out.
    """
    _check_finite(reference, current)
    # Importing Evidently takes 4 to 8 s; its telemetry is off before.
    os.environ["DO_NOT_TRACK"] = os.environ["ITERATIVE_DO_NOT_TRACK"] = "1"
    with warnings.catch_warnings():
        # Correlations of constant columns, which the page does not even show.
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        methods = {name: _method(reference[name], current[name]) for name in reference.columns}
        preset = DataDriftPreset(
            columns=list(methods), drift_share=maximum_share, per_column_method=methods, threshold=THRESHOLD
        )
        definition = DataDefinition(numerical_columns=list(methods))
        snapshot = Report([preset], metadata=about).run(
            current_data=Dataset.from_pandas(current[list(methods)], data_definition=definition),
            reference_data=Dataset.from_pandas(reference, data_definition=definition),
        )
        folder.mkdir(parents=True, exist_ok=True)
        html, json = folder / "report.html", folder / "report.json"
        _whole(html, snapshot.save_html)
        _whole(json, snapshot.save_json)
    return DriftReport(_columns(snapshot.dict()["metrics"]), html, json)


def _check_finite(*tables: pd.DataFrame) -> None:
    bad = {name for rows in tables for name in rows.columns[~np.isfinite(rows.to_numpy()).all(axis=0)]}
    if bad:
        hint = "Features have defined defaults; look at how these are made."
        raise DataContractError(f"Columns with values that are missing or not finite: {', '.join(sorted(bad))}", hint)


def _method(reference: pd.Series, current: pd.Series) -> str:
    return NUMERIC if pd.concat([reference, current]).nunique() > DISCRETE_VALUES else DISCRETE


def _columns(metrics: list[dict[str, Any]]) -> dict[str, ColumnDrift]:
    found = {}
    for metric in metrics:
        config = metric["config"]
        if not config["type"].endswith(":ValueDrift"):
            continue
        score, threshold = float(metric["value"]), float(config["threshold"])
        found[config["column"]] = ColumnDrift(
            score=score, threshold=threshold, method=config["method"], drifted=score >= threshold
        )
    return found


def _whole(path: Path, save: Any) -> None:
    """A reader sees the old file or the new one."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        save(str(Path(temporary, path.name)))
        os.replace(Path(temporary, path.name), path)
