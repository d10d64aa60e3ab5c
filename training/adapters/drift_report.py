"""Evidently's drift report: scores per column, a page to look at, the numbers as JSON.

The comparison of a column is fixed here instead of left to Evidently, which goes by the number of rows: with few rows
its tests give p-values, twenty of which find drift by chance. A distance does not depend on the number of rows, and has
one threshold. The choices are those that Evidently makes above 1,000 rows.

Numeric columns are standardised first. Evidently divides their distance by the reference's standard deviation, but by
0.001 at least, so it would miss the drift of a feature on a small scale. And it cannot draw float32 values that lie
close to each other but far from zero, such as dates written as 20260105.
"""

import os
import warnings
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from training import atomic
from training.contract.errors import DataContractError
from training.contract.messages import ColumnDrift

#: First Wasserstein distance over the reference's standard deviation; Jensen–Shannon distance for few distinct values.
NUMERIC, DISCRETE = "wasserstein", "jensenshannon"
#: Evidently's default for both: a shift by a tenth of a standard deviation.
THRESHOLD = 0.1
#: With more distinct values than this a column is compared as numeric.
DISCRETE_VALUES = 5
#: Standardised values end here, for Evidently draws no infinite ones. Whatever comes near it has drifted.
FARTHEST = 1e12
NOTE = (
    f"Columns with more than {DISCRETE_VALUES} distinct values are shown in standard deviations from the mean of the "
    "reference; a column that is constant in the reference, only with the direction in which it has moved. Others are "
    "shown as they are."
)


class DriftReport(NamedTuple):
    columns: dict[str, ColumnDrift]
    html: Path
    json: Path


def write_drift_report(
    reference: pd.DataFrame, current: pd.DataFrame, maximum_share: float, folder: Path, about: dict[str, str]
) -> DriftReport:
    """Compare `current` with `reference` (the same numeric columns) and write report.html and report.json to `folder`.

    `maximum_share` is only what the page calls drift of the data set. `about` is kept in the report and stands at the
    head of the page, which also says that numeric columns are standardised. A numeric column that is constant in
    `reference` has drifted as soon as `current` has another value. Nothing is sent anywhere. Raises DataContractError
    for values that are missing or not finite, which Evidently would leave out.
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
        reference, current = _comparable(reference, current, methods)
        preset = DataDriftPreset(
            columns=list(methods), drift_share=maximum_share, per_column_method=methods, threshold=THRESHOLD
        )
        definition = DataDefinition(numerical_columns=list(methods))
        snapshot = Report([preset], metadata=about).run(
            current_data=Dataset.from_pandas(current, data_definition=definition),
            reference_data=Dataset.from_pandas(reference, data_definition=definition),
        )
        html, json = folder / "report.html", folder / "report.json"
        with atomic.replacing(html) as draft:
            _save_page(snapshot, draft, about)
        with atomic.replacing(json) as draft:
            snapshot.save_json(str(draft))
    return DriftReport(_columns(snapshot.dict()["metrics"]), html, json)


def _check_finite(*tables: pd.DataFrame) -> None:
    bad = {name for rows in tables for name in rows.columns[~np.isfinite(rows.to_numpy()).all(axis=0)]}
    if bad:
        hint = "Features have defined defaults; look at how these are made."
        raise DataContractError(f"Columns with values that are missing or not finite: {', '.join(sorted(bad))}", hint)


def _method(reference: pd.Series, current: pd.Series) -> str:
    return NUMERIC if pd.concat([reference, current]).nunique() > DISCRETE_VALUES else DISCRETE


def _comparable(
    reference: pd.DataFrame, current: pd.DataFrame, methods: dict[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables in float64 as they are handed to Evidently."""
    pairs = {}
    for name, method in methods.items():
        old, new = (rows[name].to_numpy(dtype=np.float64) for rows in (reference, current))
        pairs[name] = _standardised(old, new) if method == NUMERIC else _drawable(old, new)
    old, new = (pd.DataFrame({name: pair[i] for name, pair in pairs.items()}) for i in (0, 1))
    return old, new


def _standardised(reference: np.ndarray, current: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in the reference's standard deviations from its mean.

    A constant reference has no deviation. Of `current` only the direction counts then, in a unit that makes every
    change, however small or rare, a distance far beyond the threshold.
    """
    with np.errstate(over="ignore"):
        if reference.min() == reference.max():
            moved = np.sign(current - reference[0])
            return np.zeros_like(reference), moved / np.abs(moved).mean()
        # By a power of two, which rounds nothing: the squares of the largest and the smallest numbers stay in range.
        exponent = int(np.frexp(np.abs(reference).max())[1])
        old, new = (np.ldexp(values, -exponent) for values in (reference, current))
        standardised = ((values - old.mean()) / old.std() for values in (old, new))
        old, new = (np.clip(values, -FARTHEST, FARTHEST) for values in standardised)
    return old, new


def _drawable(reference: np.ndarray, current: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A few distinct values as they are; numbered in their order when they are so large that a bin around one of them
    would have no width. The comparison asks only which are equal.
    """
    values = np.unique(np.concatenate([reference, current]))
    if np.abs(values).max() < 2**52:
        return reference, current
    return np.searchsorted(values, reference).astype(float), np.searchsorted(values, current).astype(float)


def _save_page(snapshot: Any, page: Path, about: dict[str, str]) -> None:
    snapshot.save_html(str(page))
    head = escape("; ".join(f"{name}: {text}" for name, text in about.items()))
    body, note = "<body>", f'<p style="font-family: sans-serif; margin: 1em 2em">{head}<br>{NOTE}</p>'
    page.write_text(page.read_text().replace(body, f"{body}\n{note}", 1))


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
