"""The suite that a feed's spec means, run by Great Expectations."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from testing.html_attacks import ATTACKS, assert_safe
from tests.cases import others_in_ci
from training.adapters.expectations import Examination, RowExaminer
from training.contract.base import Days
from training.contract.model_spec import Column, FeedSpec

FEED = FeedSpec(
    time_column="time",
    id_column="id",
    columns={
        "id": Column(type="int64", unique=True, minimum=0),
        "kind": Column(type="string", values=("in", "out")),
        "flag": Column(type="bool", nullable=True),
        "amount": Column(type="float64", nullable=True, maximum=10),
        "time": Column(type="timestamp"),
    },
)
PROMISED = Days(start=date(2026, 1, 5), end=date(2026, 1, 7))
TYPES = {"id": "Int64", "kind": "string", "flag": "boolean", "amount": "float64", "time": "datetime64[us, UTC]"}


def good(count: int = 4) -> pd.DataFrame:
    times = [datetime(2026, 1, 5 + n % 2, 12, tzinfo=UTC) for n in range(count)]
    columns: dict[str, Any] = {"id": range(count), "kind": "in", "flag": True, "amount": 1.5, "time": times}
    return pd.DataFrame(columns).astype(TYPES)


def days(*rows: tuple[str, int, float, float], gap: float = np.nan) -> pd.DataFrame:
    frame = pd.DataFrame(rows or [("2026-01-05", 4, 1.0, np.nan)], columns=["day", "rows", "minimum", "maximum"])
    return frame.assign(gap=[gap] + [np.nan] * (len(frame) - 1))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "data_docs" / "events-2026-01-05"


class Findings(NamedTuple):
    days: list[str]
    rows: dict[str, Any]
    page: Path
    repeats: set[str]


def examine(
    frame: pd.DataFrame, counts: pd.DataFrame, feed: FeedSpec, name: str, site: Path, batch: int = 1000
) -> Findings:
    examiner, examination, rows = RowExaminer(feed, PROMISED), Examination(feed, name), dict[str, Any]()
    for first in range(0, len(frame), batch):
        part = frame.iloc[first : first + batch].reset_index(drop=True)
        findings = examiner.examine(part)
        examination.add(findings)
        for rule, found in findings.positions.items():
            rows[rule] = np.concatenate([rows.get(rule, np.empty(0, int)), first + found])
    return Findings(examination.days(counts), rows, examination.write(site), examination.repeats)


def check(frame: pd.DataFrame, site: Path, counts: pd.DataFrame | None = None, batch: int = 1000) -> Findings:
    return examine(frame, days() if counts is None else counts, FEED, "events 2026-01-05", site, batch)


def broken(findings: Findings) -> dict[str, list[int]]:
    return {rule: rows.tolist() for rule, rows in findings.rows.items()}


def test_good_rows_break_nothing(site: Path) -> None:
    findings = check(good(), site)
    assert (findings.days, findings.rows) == ([], {})


@pytest.mark.parametrize("batch", others_in_ci([1000, 3, 1], first=2))
def test_each_row_level_rule_names_its_rows(site: Path, batch: int) -> None:
    frame = good(8)
    frame.loc[0, "id"] = -1
    frame.loc[1, "kind"] = "sideways"
    frame.loc[2, "kind"] = None
    frame.loc[3, ["flag", "amount"]] = None
    frame.loc[4, "amount"] = np.inf
    frame.loc[5, "time"] = datetime(2026, 1, 7, tzinfo=UTC)
    findings = check(frame, site, batch=batch)
    assert findings.days == []
    assert broken(findings) == {
        "id is below 0": [0],
        "kind is none of in, out": [1],
        "kind is missing": [2],
        "amount is above 10": [4],
        "time is outside 2026-01-05 … 2026-01-06": [5],
    }
    assert "1 of 8" in findings.page.read_text()


def test_a_value_twice_in_a_batch_is_told(site: Path) -> None:
    frame = good(5)
    assert check(frame, site).repeats == set()
    frame.loc[3] = frame.loc[1]
    assert check(frame, site).repeats == {"id"}
    assert check(frame, site, batch=2).repeats == set()


def test_whole_numbers_beyond_float_precision_are_told_apart(site: Path) -> None:
    frame = good(3)
    frame["id"] = pd.array([2**60, 2**60 + 1, 2**60 + 2], "Int64")
    assert broken(check(frame, site)) == {}


def test_a_row_without_a_time_is_broken_even_where_the_column_may_be_null(site: Path) -> None:
    frame = good()
    frame.loc[2, "time"] = None
    columns = {**FEED.columns, "time": Column(type="timestamp", nullable=True)}
    feed = FEED.model_copy(update={"columns": columns})
    findings = examine(frame, days(), feed, "events 2026-01-05", site)
    assert broken(findings) == {"time is missing": [2]}


def test_days_with_too_few_or_too_many_rows_are_named_with_their_bounds(site: Path) -> None:
    counts = days(("2026-01-05", 4, 1.0, np.nan), ("2026-01-06", 1, 2.4, 9.0), ("2026-01-07", 12, 2.4, 9.0))
    assert check(good(), site, counts).days == [
        "2026-01-06: 1 rows, expected 2.4 to 9",
        "2026-01-07: 12 rows, expected 2.4 to 9",
    ]


@pytest.mark.parametrize("gap", others_in_ci([7, 1, -400]))
def test_a_day_near_or_before_the_newest_is_no_gap(site: Path, gap: int) -> None:
    assert check(good(), site, days(gap=gap)).days == []


def test_a_day_far_ahead_is_named_with_its_gap_and_its_bounds(site: Path) -> None:
    counts = days(("2026-01-05", 1, 2.4, 9.0), ("2026-01-06", 4, 2.4, 9.0), gap=1032)
    found = check(good(), site, counts)
    assert found.days == [
        "2026-01-05 is 1,032 days after 2023-03-10, the newest day before it with rows: maximum_gap_days is 7",
        "2026-01-05: 1 rows, expected 2.4 to 9",
    ]
    assert "1032" in (site / "index.html").read_text()


def test_the_page_shows_the_rules_that_failed(site: Path) -> None:
    frame = good()
    frame.loc[0, "amount"] = 99.5
    first = check(frame, site)
    assert "99.5" in first.page.read_text()
    assert [path.name for path in site.iterdir()] == ["index.html"]
    again = check(good(), site)
    assert "99.5" not in again.page.read_text()


@pytest.mark.parametrize("value", others_in_ci(ATTACKS))
def test_values_of_data_cannot_become_markup(site: Path, value: str) -> None:
    frame = good()
    frame.loc[0, "kind"] = value
    columns = FEED.columns | {value: Column(type="string", values=(value,))}
    feed = FEED.model_construct(**dict(FEED) | {"columns": columns})
    page = examine(frame.assign(**{value: "other"}), days(), feed, value[:200], site).page
    assert_safe(page.read_text())
    assert len(page.read_text()) < 100_000


def test_great_expectations_makes_the_fields_of_an_expectation_once() -> None:
    """A private part of Great Expectations, which training/compat replaces."""
    from pydantic.v1 import BaseModel

    from training.adapters import expectations as quick  # It has called `quick_configurations`.

    rule = quick.gxe.ExpectColumnValuesToBeBetween(column="amount", min_value=0, meta={"rule": "at least 0"})
    whole = BaseModel.dict(rule, exclude_defaults=True)
    assert rule.configuration.kwargs == {name: value for name, value in whole.items() if name != "meta"}
    assert (rule.configuration.type, rule.configuration.meta) == ("expect_column_values_to_be_between", whole["meta"])
    made = rule.dict(exclude_defaults=True)
    assert made["meta"] is rule.dict(exclude_defaults=True)["meta"], "it is made again"
    made.clear()
    assert rule.dict(exclude_defaults=True) == whole
    rule.min_value = 5
    assert rule.configuration.kwargs["min_value"] == 5
    assert rule.dict() == BaseModel.dict(rule)


def test_great_expectations_writes_no_context_in_memory() -> None:
    """A private part of Great Expectations, which training/compat replaces."""
    from training.adapters import expectations as quick  # It has called `quick_configurations`.

    context = quick.gx.get_context(mode="ephemeral")
    context.data_sources.add_pandas("rows")
    assert context.variables.store.list_keys() == []
