"""Great Expectations: validate one partition with the rules of its feed, and write a page of what it found.

The page is ours: Great Expectations' own Data Docs do not escape values, and need scripts and styles of other hosts.

There are two suites. A row that breaks a rule of the row suite is quarantined. A partition that breaks a rule of the
day suite is refused. The `meta` of each expectation holds the text of its rule. The caller has checked before that
all columns are present and have their types.
"""

# Great Expectations reads some settings when it is imported. It has types, but does not mark what it exports.
# ruff: noqa: E402
# mypy: disable-error-code="attr-defined"

import logging
import os
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from html import escape
from pathlib import Path
from typing import Any

# It reports its use to its vendor by default.
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
# At INFO it logs hundreds of lines.
logging.getLogger("great_expectations").setLevel(logging.WARNING)

import great_expectations as gx
import great_expectations.expectations as gxe
import numpy as np
import pandas as pd
from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
from great_expectations.data_context import AbstractDataContext
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.expectation import Expectation

from training import atomic, web_pages
from training.contract.base import Days, midnight
from training.contract.column_types import whole_digits
from training.contract.errors import StepError
from training.contract.model_spec import Column, FeedSpec

# This module sets its own level when it is imported.
logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)

_ROWS, _GAP = "rows per day", "days since the day before it with rows"
#: Of the values that break a rule the page shows so many, each up to so many characters.
_EXAMPLES, _CHARACTERS = 20, 100


@dataclass(frozen=True)
class Findings:
    """What is wrong with a partition.

    `days`: sentences about days that break a rule; the partition is refused when there are any. `rows`: rule →
    positions of the rows that break it; empty when the partition is refused. `page`: the page that says so.
    """

    days: list[str]
    rows: dict[str, np.ndarray]
    page: Path


def examine(rows: pd.DataFrame, days: pd.DataFrame, feed: FeedSpec, promised: Days, name: str, site: Path) -> Findings:
    """Validate a partition's `rows` (with a RangeIndex) and write its page. Replaces the folder `site`.

    `rows` is what `as_validation_frame` makes of the feed's columns in the types of the spec. `days` has one row per
    promised day: `day`, `rows`, the bounds `minimum` and `maximum` (NaN: no bound), and `gap`, the days from the newest
    day before it with rows (NaN: no rule).
    `promised` are the days in which the rows' times must lie. `name` is the title of the page.
    """
    with atomic.replacing(site) as rendered:
        context = _context()
        on_rows = _validate(context, f"{name} rows", rows, row_suite(feed, promised))
        on_days = _validate(context, f"{name} days", days, day_suite(feed))
        parts = [*_found("Rules for rows", on_rows), *_found("Rules for days", on_days)]
        rendered.mkdir(exist_ok=True)
        (rendered / "index.html").write_text(web_pages.page(f"{name}, validated by Great Expectations", parts))
    wrong = [_day_sentence(days.iloc[at], rule, feed) for at, rule in _days_out_of_bounds(on_days)]
    broken = [result for result in on_rows.results if not result.success]
    positions = {_rule(result): _positions(result, rows) for result in broken} | _exactly_outside(rows, feed)
    return Findings(wrong, {} if wrong else {r: at for r, at in positions.items() if len(at)}, site / "index.html")


def _exactly_outside(rows: pd.DataFrame, feed: FeedSpec) -> dict[str, np.ndarray]:
    """Rule → positions of the rows outside its bounds, for bounds of more digits than a float64 has.

    Great Expectations makes floats of bounds.
    """
    found = {}
    for name, column in feed.columns.items():
        low, high = (_comparable(bound, column) for bound in (column.low, column.high))
        if any(isinstance(bound, int) and abs(bound) > 2**53 for bound in (low, high)):
            known = rows[name].dropna()
            outside = np.zeros(len(known), bool)
            outside |= False if low is None else (known < low).to_numpy(bool)
            outside |= False if high is None else (known > high).to_numpy(bool)
            found[_bound_rule(name, column)] = known.index.to_numpy()[outside]
    return found


def missing_rule(column: str) -> str:
    """The rule that a row without a value in `column` breaks."""
    return f"{column} is missing"


def row_suite(feed: FeedSpec, promised: Days) -> list[Expectation]:
    """The rules of the spec's columns, and that each row has a time in the `promised` days."""
    suite: list[Expectation] = []
    for name, column in feed.columns.items():
        suite += _column_expectations(name, column, needed=name == feed.time_column or not column.nullable)
    first, end = midnight(promised.start), midnight(promised.end)
    rule = _meta(f"{feed.time_column} is outside {promised.start if len(promised) == 1 else promised}")
    suite.append(
        gxe.ExpectColumnValuesToBeBetween(
            column=feed.time_column, min_value=first, max_value=end, strict_max=True, meta=rule
        )
    )
    return suite


def day_suite(feed: FeedSpec) -> list[Expectation]:
    """The number of rows per day is within its bounds, and no day is too far ahead of the day before it with rows."""
    within: dict[str, Any] = {"or_equal": True, "ignore_row_if": "either_value_is_missing", "meta": _meta(_ROWS)}
    return [
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="rows", column_B="minimum", **within),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="maximum", column_B="rows", **within),
        gxe.ExpectColumnValuesToBeBetween(column="gap", max_value=feed.maximum_gap_days, meta=_meta(_GAP)),
    ]


def _column_expectations(name: str, column: Column, needed: bool) -> list[Expectation]:
    suite: list[Expectation] = []
    if needed:
        suite.append(gxe.ExpectColumnValuesToNotBeNull(column=name, meta=_meta(missing_rule(name))))
    if column.unique:
        suite.append(gxe.ExpectColumnValuesToBeUnique(column=name, meta=_meta(f"{name} is not unique")))
    if column.low is not None or column.high is not None:
        rule = _meta(_bound_rule(name, column))
        low, high = (_comparable(bound, column) for bound in (column.low, column.high))
        suite.append(gxe.ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high, meta=rule))
    if column.allowed is not None:
        rule = _meta(f"{name} is none of {', '.join(map(str, column.values or ()))}")
        allowed = [_comparable(value, column) for value in column.allowed]
        suite.append(gxe.ExpectColumnValuesToBeInSet(column=name, value_set=allowed, meta=rule))
    return suite


def _comparable(value: Any, column: Column) -> Any:
    """`value` of the spec as the frame of `as_validation_frame` has values of `column`."""
    return whole_digits(value, column.parsed.scale) if isinstance(value, Decimal) else value


def _bound_rule(name: str, column: Column) -> str:
    low, high = column.minimum, column.maximum
    if low is None or high is None:
        return f"{name} is above {_written(high)}" if low is None else f"{name} is below {_written(low)}"
    return f"{name} is outside {_written(low)} … {_written(high)}"


def _written(bound: float | str | None) -> str:
    return f"{bound:g}" if isinstance(bound, int | float) else str(bound)


def _meta(rule: str) -> dict[str, str]:
    return {"rule": rule}


def _context() -> AbstractDataContext:
    """A context in memory, without a site for Data Docs."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    # The default site would leave 4 MB in the system's temporary folder after every run.
    context.delete_data_docs_site("local_site")
    return context


def _validate(
    context: AbstractDataContext, name: str, frame: pd.DataFrame, suite: list[Expectation]
) -> ExpectationSuiteValidationResult:
    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    definition = gx.ValidationDefinition(
        name=name,
        data=asset.add_batch_definition_whole_dataframe(name),
        suite=context.suites.add(gx.ExpectationSuite(name=name, expectations=suite)),
    )
    checkpoint = gx.Checkpoint(
        name=name,
        validation_definitions=[context.validation_definitions.add(definition)],
        # All rows that break a rule, not a sample, because they go to quarantine.
        result_format={"result_format": "COMPLETE", "include_unexpected_rows": False},
    )
    outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": frame})
    result: ExpectationSuiteValidationResult = next(iter(outcome.run_results.values()))
    return result


def _found(title: str, result: ExpectationSuiteValidationResult) -> list[str]:
    """The part of the page about one suite. Broken rules come first."""
    head = ["Holds", "Expectation", "Column", "Broken when", "Broken by", "Values"]
    results = sorted(result.results, key=lambda each: bool(each.success))
    return [f"<h2>{escape(title)}</h2>", web_pages.table(head, map(_cells, results))]


def _cells(result: ExpectationValidationResult) -> list[str]:
    config, found = result.expectation_config, result.result
    assert config is not None
    columns = [str(value) for name, value in config.kwargs.items() if name in ("column", "column_A", "column_B")]
    values = [_shortened(value) for value in found.get("partial_unexpected_list", [])[:_EXAMPLES]]
    broken = f"{found.get('unexpected_count', 0):,} of {found.get('element_count', 0):,}"
    holds = "yes" if result.success else "no"
    return [holds, config.type, _shortened(", ".join(columns)), _shortened(_rule(result)), broken, "; ".join(values)]


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}…"


def _rule(result: ExpectationValidationResult) -> str:
    assert result.expectation_config is not None
    return str((result.expectation_config.meta or {})["rule"])


def _positions(result: ExpectationValidationResult, rows: pd.DataFrame) -> np.ndarray:
    if "unexpected_index_list" not in result.result:
        raise StepError(f"Great Expectations could not check the rule {_rule(result)!r}: {result.exception_info}")
    found = np.asarray(result.result["unexpected_index_list"] or [], dtype=np.int64)
    assert result.expectation_config is not None
    if result.expectation_config.type == "expect_column_values_to_be_unique":
        column = result.expectation_config.kwargs["column"]
        return found[~np.isin(found, _kept_copies(rows.iloc[found], column))]
    return found


def _kept_copies(repeated: pd.DataFrame, column: str) -> np.ndarray:
    """Positions of rows to keep: the first of the rows with one value in `column` that are equal in all columns."""
    distinct = repeated.drop_duplicates()
    return np.asarray(distinct.index[~distinct.duplicated(column, keep=False)])


def _days_out_of_bounds(result: ExpectationSuiteValidationResult) -> list[tuple[int, str]]:
    """The positions of the days that break a rule, each with the rule."""
    broken = [r for r in result.results if not r.success]
    return sorted({(int(at), _rule(r)) for r in broken for at in r.result["unexpected_index_list"]})


def _day_sentence(day: pd.Series, rule: str, feed: FeedSpec) -> str:
    if rule == _GAP:
        newest = date.fromisoformat(day["day"]) - timedelta(days=int(day["gap"]))
        after = f"{day['gap']:,.0f} days after {newest}, the newest day before it with rows"
        return f"{day['day']} is {after}: maximum_gap_days is {feed.maximum_gap_days}"
    least = f"{day['minimum']:,.1f}".removesuffix(".0")
    if pd.isna(day["maximum"]):
        return f"{day['day']}: {day['rows']:,} rows, expected at least {least}"
    most = f"{day['maximum']:,.1f}".removesuffix(".0")
    return f"{day['day']}: {day['rows']:,} rows, expected {least} to {most}"
