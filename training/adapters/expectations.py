"""Great Expectations: validate one partition with the rules of its feed, and write a page of what it found.

The page is ours: Great Expectations' own Data Docs do not escape values, and need scripts and styles of other hosts.

There are two suites. A row that breaks a rule of the row suite is quarantined. A partition that breaks a rule of the
day suite is refused. The `meta` of each expectation holds the text of its rule. The caller has checked before that
all columns are present and have their types.

The rows come in batches, and what is found in them is added up. `RowExaminer` finds it, in this process or in another.
Whether a value is unique in its batch is found here; who calls says which are not unique in all of them.
"""

# Great Expectations reads some settings when it is imported. It has types, but does not mark what it exports.
# ruff: noqa: E402
# mypy: disable-error-code="attr-defined"

import functools
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

# It reports its use to its vendor by default.
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
# At INFO it logs hundreds of lines.
logging.getLogger("great_expectations").setLevel(logging.WARNING)

import numpy as np
import pandas as pd

from training.compat.great_expectations import light_import, quick_configurations

with light_import():
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
    from great_expectations.data_context import AbstractDataContext
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.expectation import Expectation

quick_configurations()

from training import atomic, web_pages
from training.contract.base import Days, midnight
from training.contract.column_types import whole_digits
from training.contract.errors import StepError
from training.contract.model_spec import Column, FeedSpec
from training.contract.names import listed

# This module sets its own level when it is imported.
logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)

_ROWS, _GAP = "rows per day", "days since the day before it with rows"
#: Of the values that break a rule the page shows so many, each up to so many characters.
_EXAMPLES, _CHARACTERS = 20, 100


_UNIQUE = "expect_column_values_to_be_unique"
#: All rows that break a rule, not a sample, because they go to quarantine.
_ALL_ROWS = {"result_format": "COMPLETE", "include_unexpected_rows": False}


@dataclass
class _Found:
    """What one expectation found in the batches so far."""

    kind: str
    columns: str
    rule: str
    broken: int = 0
    of: int = 0
    values: list[str] = field(default_factory=list)

    def add(self, broken: int, of: int, values: Iterable[str]) -> None:
        self.broken, self.of = self.broken + broken, self.of + of
        self.values += list(values)[: _EXAMPLES - len(self.values)]


class Told(NamedTuple):
    """What one expectation found in a batch of rows: how many rows break it, and values of some of them."""

    kind: str
    columns: str
    rule: str
    broken: int
    values: Sequence[str]


class RowFindings(NamedTuple):
    """What was found in a batch of `rows` rows."""

    rows: int
    #: In the order in which a row's reasons name the rules.
    told: Sequence[Told]
    #: Rule → positions in the batch of the rows that break it. Uniqueness is left out: it is of all batches.
    positions: dict[str, np.ndarray]


class RowExaminer:
    """Validates batches of rows. `promised` are the days in which their times must lie."""

    def __init__(self, feed: FeedSpec, promised: Days) -> None:
        self._feed = feed
        self._suite = _Suite(_context(), "rows", row_suite(feed, promised))

    def examine(self, batch: pd.DataFrame) -> RowFindings:
        """`batch`, with a RangeIndex: what `as_validation_frame` makes of the columns in the types of the spec."""
        told, positions = [], {}
        for result in self._suite.validate(batch).results:
            at, nothing = _positions(result), _nothing(result)
            values = [_shortened(value) for value in result.result.get("partial_unexpected_list", ())]
            told.append(Told(nothing.kind, nothing.columns, nothing.rule, len(at), values))
            if nothing.kind != _UNIQUE:
                positions[nothing.rule] = at
        positions |= _exactly_outside(batch, self._feed)
        return RowFindings(len(batch), told, {rule: at for rule, at in positions.items() if len(at)})


class Examination:
    """Adds up what was found in the rows of a partition, and validates its days. Then it writes the page.

    `name` is the title of the page.
    """

    def __init__(self, feed: FeedSpec, name: str) -> None:
        self._feed, self._name = feed, name
        self._on_rows: list[_Found] = []
        self._on_days: list[_Found] = []
        #: The unique columns of which some batch had a value twice.
        self.repeats: set[str] = set()

    @property
    def rules(self) -> list[str]:
        """The rules for rows, in the order in which a row's reasons name them."""
        return [found.rule for found in self._on_rows]

    def add(self, found: RowFindings) -> None:
        """Add what was found in the next batch of rows."""
        self._on_rows = self._on_rows or [_Found(*told[:3]) for told in found.told]
        for told, total in zip(found.told, self._on_rows, strict=True):
            if told.kind == _UNIQUE:
                self.repeats |= {told.columns} if told.broken else set()
                total.add(0, found.rows, ())
            else:
                total.add(told.broken, found.rows, told.values)

    def repeated(self, column: str, rows: int, values: Sequence[object]) -> None:
        """In all batches together `rows` rows have a value in the unique `column` that another has, too."""
        for total in self._on_rows:
            if total.kind == _UNIQUE and total.columns == column:
                total.add(rows, 0, map(_shortened, values))

    def days(self, days: pd.DataFrame) -> list[str]:
        """Sentences about days that break a rule; the partition is refused when there are any.

        `days` has one row per promised day: `day`, `rows`, the bounds `minimum` and `maximum` (NaN: no bound), and
        `gap`, the days from the newest day before it with rows (NaN: no rule).
        """
        result = _suite_of_days(self._feed.maximum_gap_days).validate(days)
        self._on_days = [_nothing(each) for each in result.results]
        for each, total in zip(result.results, self._on_days, strict=True):
            found = each.result
            values = map(_shortened, found.get("partial_unexpected_list", ()))
            total.add(found.get("unexpected_count", 0), len(days), values)
        return [_day_sentence(days.iloc[at], rule, self._feed) for at, rule in _days_out_of_bounds(result)]

    def write(self, site: Path) -> Path:
        """Write the page, and replace the folder `site` by it. Returns where it is."""
        with atomic.replacing(site) as rendered:
            parts = [*_part("Rules for rows", self._on_rows), *_part("Rules for days", self._on_days)]
            rendered.mkdir(exist_ok=True)
            title = f"{self._name}, validated by Great Expectations"
            (rendered / "index.html").write_text(web_pages.page(title, parts))
        return site / "index.html"


def _nothing(result: ExpectationValidationResult) -> _Found:
    assert result.expectation_config is not None
    kwargs = result.expectation_config.kwargs
    columns = [str(value) for name, value in kwargs.items() if name in ("column", "column_A", "column_B")]
    return _Found(result.expectation_config.type, ", ".join(columns), _rule(result))


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


def unique_rule(column: str) -> str:
    """The rule that the rows with one value in `column` break, but for a first one whose copies the others are."""
    return f"{column} is not unique"


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


def day_suite(maximum_gap_days: int) -> list[Expectation]:
    """The number of rows per day is within its bounds, and no day is too far ahead of the day before it with rows."""
    within: dict[str, Any] = {"or_equal": True, "ignore_row_if": "either_value_is_missing", "meta": _meta(_ROWS)}
    return [
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="rows", column_B="minimum", **within),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="maximum", column_B="rows", **within),
        gxe.ExpectColumnValuesToBeBetween(column="gap", max_value=maximum_gap_days, meta=_meta(_GAP)),
    ]


def _column_expectations(name: str, column: Column, needed: bool) -> list[Expectation]:
    suite: list[Expectation] = []
    if needed:
        suite.append(gxe.ExpectColumnValuesToNotBeNull(column=name, meta=_meta(missing_rule(name))))
    if column.unique:
        suite.append(gxe.ExpectColumnValuesToBeUnique(column=name, meta=_meta(unique_rule(name))))
    if column.low is not None or column.high is not None:
        rule = _meta(_bound_rule(name, column))
        low, high = (_comparable(bound, column) for bound in (column.low, column.high))
        suite.append(gxe.ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high, meta=rule))
    if column.allowed is not None:
        rule = _meta(f"{name} is none of {listed(column.values or ())}")
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


class _Suite:
    """A suite that validates one DataFrame after the other."""

    def __init__(self, context: AbstractDataContext, name: str, suite: list[Expectation]) -> None:
        self._data = context.data_sources.add_pandas(name).add_dataframe_asset(name)
        self._definition = self._data.add_batch_definition_whole_dataframe(name)
        # Not one of the context's suites: those are kept as JSON, which nobody reads here.
        self._suite = gx.ExpectationSuite(name=name, expectations=suite)

    def validate(self, frame: pd.DataFrame) -> ExpectationSuiteValidationResult:
        # Not through a checkpoint: it would keep the results of all batches.
        batch = self._definition.get_batch({"dataframe": frame})
        found = batch.validate(self._suite, result_format=_ALL_ROWS)
        assert isinstance(found, ExpectationSuiteValidationResult)
        return found


@functools.lru_cache(maxsize=8)
def _suite_of_days(maximum_gap_days: int) -> _Suite:
    """Made once in a process: a run validates many partitions, and making the suite takes as long as using it."""
    return _Suite(_context(), "days", day_suite(maximum_gap_days))


def _part(title: str, found: list[_Found]) -> list[str]:
    """The part of the page about one suite. Broken rules come first."""
    head = ["Holds", "Expectation", "Column", "Broken when", "Broken by", "Values"]
    return [
        f"<h2>{escape(title)}</h2>",
        web_pages.table(head, map(_cells, sorted(found, key=lambda each: not each.broken))),
    ]


def _cells(found: _Found) -> list[str]:
    broken = f"{found.broken:,} of {found.of:,}"
    texts = [found.kind, _shortened(found.columns), _shortened(found.rule), broken, "; ".join(found.values)]
    return ["no" if found.broken else "yes", *texts]


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}…"


def _rule(result: ExpectationValidationResult) -> str:
    assert result.expectation_config is not None
    return str((result.expectation_config.meta or {})["rule"])


def _positions(result: ExpectationValidationResult) -> np.ndarray:
    if "unexpected_index_list" not in result.result:
        raise StepError(f"Great Expectations could not check the rule {_rule(result)!r}: {result.exception_info}")
    return np.asarray(result.result["unexpected_index_list"] or [], dtype=np.int64)


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
