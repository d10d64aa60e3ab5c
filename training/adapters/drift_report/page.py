"""Evidently's page, with a distance per column.

By default Evidently chooses the test of a column by the number of rows. For few rows it uses tests with p-values, and
among twenty of them some report drift by chance. This module always uses the distances that Evidently uses above 1,000
rows. A distance has one threshold, whatever the number of rows. Importing Evidently takes 4 to 8 s.

Numeric columns are standardised first, for two reasons. Evidently divides their distance by the standard deviation of
the reference, but by at least 0.001, so it would miss the drift of a feature with small values. It also cannot draw
float32 values that are close to each other but far from zero, such as dates written as 20260105.
"""

import os
import re
import warnings
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

# Evidently reads these variables when it is imported. They stop it from reporting its use.
os.environ["DO_NOT_TRACK"] = os.environ["ITERATIVE_DO_NOT_TRACK"] = "1"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

from training import atomic, web_pages
from training.compat.evidently import each_column_once
from training.contract.errors import StepError
from training.contract.messages import ColumnDrift
from training.domain.drift import DriftReport

#: First Wasserstein distance over the reference's standard deviation; Jensen–Shannon distance for few distinct values.
NUMERIC, DISCRETE = "wasserstein", "jensenshannon"
#: Evidently's default for both: a shift by a tenth of a standard deviation.
THRESHOLD = 0.1
#: With more distinct values than this a column is compared as numeric.
DISCRETE_VALUES = 5
#: So many of the most frequent values of text are compared, and all others as OTHER. With 20 values, 1,000 rows of the
#: same distribution as the reference have a distance of about 0.05.
CATEGORIES, OTHER = 20, "(other)"
#: Standardised values are cut off here, because Evidently cannot draw infinite ones. Values near it have drifted.
FARTHEST = 1e12
#: The data in Evidently's page: two statements of a script, one line each.
_DATA = re.compile(r"^(\s*var (?:additional_graphs_)?metric_\w+ = )(.*)$", re.MULTILINE)
NOTE = (
    f"Columns with more than {DISCRETE_VALUES} distinct values are shown in standard deviations from the mean of the "
    "reference. For a column that is constant in the reference, only the direction of the change is shown. Other "
    "columns are shown unchanged."
)


def write_page(
    reference: pd.DataFrame, current: pd.DataFrame, maximum_share: float, folder: Path, about: dict[str, str]
) -> DriftReport:
    """Compare columns of finite numbers or text: write report.html and report.json to `folder`, which need not exist.

    NaN is a missing number and is left out of the comparison; text is never missing. Each side has some numbers.
    Nothing is sent over the network. The page calls the data set drifted when at least the share `maximum_share` of
    its columns has drifted. `about` (title → text) is stored in the report and shown on the page.

    A numeric column that is constant in `reference` has drifted when `current` has any other value. The page states
    that numeric columns are standardised. Of text, the rare values are compared as one, because many rare values
    differ by chance.
    """
    with warnings.catch_warnings():
        # Warnings about correlations of constant columns, which the page does not show.
        warnings.simplefilter("ignore")
        methods = {name: _method(reference[name], current[name]) for name in reference.columns}
        reference, current = _comparable(reference, current, methods)
        preset = DataDriftPreset(
            columns=list(methods), drift_share=maximum_share, per_column_method=methods, threshold=THRESHOLD
        )
        categories = [name for name in methods if not is_numeric_dtype(reference[name])]
        numbers = [name for name in methods if name not in categories]
        definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
        with each_column_once():
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


def _method(reference: pd.Series, current: pd.Series) -> str:
    if not is_numeric_dtype(reference):
        return DISCRETE
    return NUMERIC if pd.concat([reference, current]).nunique() > DISCRETE_VALUES else DISCRETE


def _comparable(
    reference: pd.DataFrame, current: pd.DataFrame, methods: dict[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables as float64 and text, in the form that Evidently can compare and draw."""
    pairs = {}
    for name, method in methods.items():
        if not is_numeric_dtype(reference[name]):
            pairs[name] = _common(reference[name], current[name])
            continue
        both = [rows[name].to_numpy(dtype=np.float64) for rows in (reference, current)]
        known = [~np.isnan(values) for values in both]
        old, new = (values[rows] for values, rows in zip(both, known, strict=True))
        changed = _standardised(old, new) if method == NUMERIC else _drawable(old, new)
        for values, rows, replaced in zip(both, known, changed, strict=True):
            values[rows] = replaced
        pairs[name] = (both[0], both[1])
    tables = (pd.DataFrame({name: pair[i] for name, pair in pairs.items()}) for i in (0, 1))
    return next(tables), next(tables)


def _common(reference: pd.Series, current: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Both with the most frequent values of the reference; all others are OTHER."""
    kept = list(reference.value_counts().index[:CATEGORIES])
    old, new = (values.where(values.isin(kept), OTHER).to_numpy(dtype=object) for values in (reference, current))
    return old, new


def _standardised(reference: np.ndarray, current: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in standard deviations of the reference from its mean.

    A constant reference has no deviation. Then only the direction of a change in `current` counts. Its unit is chosen
    so that every change, however small or rare, is a distance far above the threshold.
    """
    with np.errstate(over="ignore"):
        if reference.min() == reference.max():
            moved = np.sign(current - reference[0])
            return np.zeros_like(reference), moved / np.abs(moved).mean()
        # A power of two rounds nothing, and keeps the squares of the largest and the smallest numbers in range.
        exponent = int(np.frexp(np.abs(reference).max())[1])
        old, new = (np.ldexp(values, -exponent) for values in (reference, current))
        standardised = ((values - old.mean()) / old.std() for values in (old, new))
        old, new = (np.clip(values, -FARTHEST, FARTHEST) for values in standardised)
    return old, new


def _drawable(reference: np.ndarray, current: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A few distinct values, unchanged unless they are so large that a bin around one would have no width.

    Then they are replaced by their ranks, because the comparison only needs to know which values are equal.
    """
    values = np.unique(np.concatenate([reference, current]))
    if np.abs(values).max() < 2**52:
        return reference, current
    return np.searchsorted(values, reference).astype(float), np.searchsorted(values, current).astype(float)


def _save_page(snapshot: Any, page: Path, about: dict[str, str]) -> None:
    """Evidently writes the data as JSON into a script, and does not keep a string from ending that script."""
    head = escape("; ".join(f"{name}: {text}" for name, text in about.items()))
    body, note = "<body>", f'<p style="font-family: sans-serif; margin: 1em 2em">{head}<br>{NOTE}</p>'
    written, number = _DATA.subn(lambda found: found[1] + web_pages.script_json(found[2]), snapshot.get_html_str(False))
    if number != 2:
        raise StepError("Evidently's page has its data in another place than before", "Correct _DATA.")
    before, _, after = written.partition(body)
    page.write_text(web_pages.with_policy(f"{before}{body}\n{note}{after}"))


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
