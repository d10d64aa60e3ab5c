"""Window sums on a grid beside the table's one SELECT, where test_feature_sql.py has no such data."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.cases import others_in_ci
from training.adapters.feature_query import FeatureQueries
from training.contract.base import Days
from training.contract.columns import Column
from training.contract.feature_tables import FeatureTable
from training.contract.source_spec import load_source_spec
from training.domain.feature_grid_sql import grid_queries, table_queries
from training.domain.feature_sql import LabelFeed, feature_sql

START = date(2026, 3, 1)
DAYS = Days(start=START, end=START + timedelta(days=20))
COLUMNS = {
    "id": Column(type="int64"),
    "at": Column(type="timestamp"),
    "key": Column(type="string", nullable=True),
    "price": Column(type="decimal(20, 2)", nullable=True),
    "size": Column(type="int64"),
}
LABEL = LabelFeed("reports", "bad", "event", "id", "told", 3, Column(type="int64", nullable=True))
KEYS = ["Zürich", "Łódź", "東京", "a b", "", "Ångström", None]


def queries(table: FeatureTable, label: LabelFeed | None, on_grid: bool = True, as_sql: bool = False) -> FeatureQueries:
    grid = table_queries(table, COLUMNS, "at", label)
    grids = {"t": grid} if on_grid else {}
    generated = {"t": grid.select if as_sql else feature_sql(table, COLUMNS, "at", label)}
    hourly = ["t"] if table.every == "1h" else []
    made = FeatureQueries(Path("none.sql"), {"t": "key"}, generated=generated, grids=grids, hourly=hourly)
    made.may_be_null = {"t": [feature.name for feature in table.features()]}
    return made


def table_of(aggregations: dict[str, Any], every: str = "1d", label: str | None = None) -> FeatureTable:
    fields = {"entity": "key", "ttl_days": 7, "every": every, "windows": ["1d", "2d", "9d"], "label": label}
    return FeatureTable.model_validate({**fields, "aggregations": aggregations})


def rows(seed: int, size: int = 1) -> dict[str, pa.Table]:
    """Events, some of them twice, in no order, before, in and after DAYS; reports that are late, repeated or early."""
    random, first = np.random.default_rng(seed), datetime(2026, 2, 15, tzinfo=UTC)
    times = [first + timedelta(seconds=int(each)) for each in random.integers(0, 40 * 86_400, 400)]
    events = [
        {
            "id": i,
            "at": at,
            "key": KEYS[random.integers(0, len(KEYS))],
            "price": None if random.random() < 0.2 else Decimal(int(random.integers(-9999, 9999))) / 100,
            "size": int(random.integers(-5, 9)) * size,
        }
        for i, at in enumerate(times)
    ]
    events += events[:50]
    random.shuffle(events)  # type: ignore[arg-type]
    reports = [
        {"event": i, "bad": [0, 1, None][random.integers(0, 3)], "told": times[i] + timedelta(hours=int(hours))}
        for i in random.integers(0, 400, 500)
        for hours in random.integers(-48, 400, 1)
    ]
    whole, time = pa.int64(), pa.timestamp("us", tz="UTC")
    kinds = {"id": whole, "at": time, "key": pa.string(), "price": pa.decimal128(20, 2), "size": whole}
    return {
        "events": pa.Table.from_pylist(events, pa.schema(list(kinds.items()))),
        "reports": pa.Table.from_pylist(reports, pa.schema([("event", whole), ("bad", whole), ("told", time)])),
    }


SUMS = {
    "n": {"function": "count"},
    "sum": {"function": "sum", "column": "price", "default": None},
    "mean": {"function": "mean", "column": "price", "condition": "size > 0", "default": -1},
    "sizes": {"function": "sum", "column": "size"},
    "large": {"function": "share", "condition": "price > 10"},
    "std": {"function": "std", "column": "size"},
}


@pytest.mark.parametrize("seed", others_in_ci(range(3)))
@pytest.mark.parametrize(
    ("every", "label"), others_in_ci([("1h", LABEL), ("1d", None), ("1d", LABEL), ("1h", None)], first=2)
)
def test_unicode_keys_repeated_events_and_reports_before_their_event(
    every: str, label: LabelFeed | None, seed: int
) -> None:
    table = table_of(SUMS, every, "bad" if label else None)
    data = rows(seed)
    expected = queries(table, label, on_grid=False).run("t", DAYS, data)
    found = queries(table, label).run("t", DAYS, data)
    assert found.equals(expected)
    assert len(found) > 100
    assert queries(table, label, on_grid=False, as_sql=True).run("t", DAYS, data).equals(expected)


@pytest.mark.parametrize("label", others_in_ci([LABEL, None]))
def test_a_few_days_have_the_rows_that_they_have_among_others(label: LabelFeed | None) -> None:
    table, data = table_of(SUMS, label="bad" if label else None), rows(5)
    made = queries(table, label, on_grid=False, as_sql=True)
    whole = made.run("t", DAYS, data)
    for first, days in ((0, 1), (4, 3), (19, 1)):
        few = Days(start=START + timedelta(days=first), end=START + timedelta(days=first + days))
        inside = (pc.field("day") >= few.start) & (pc.field("day") < few.end)
        assert made.run("t", few, data).equals(whole.filter(inside).combine_chunks())


def test_one_report_for_each_event_needs_no_order_of_reports() -> None:
    table, data = table_of(SUMS, label="bad"), rows(7)
    reports = data["reports"].group_by("event").aggregate([("bad", "max"), ("told", "max")])
    data["reports"] = reports.rename_columns(["event", "bad", "told"])
    on_grid = table_queries(table, COLUMNS, "at", LABEL)
    assert "OVER" not in on_grid.parts_of(data)
    assert queries(table, LABEL).run("t", DAYS, data).equals(queries(table, LABEL, False).run("t", DAYS, data))


def test_numbers_too_large_for_64_bits_are_summed_by_the_select(caplog: pytest.LogCaptureFixture) -> None:
    table, data = table_of({"sizes": SUMS["sizes"]}), rows(1, size=2**59)
    caplog.set_level("INFO", "perennial")
    found = queries(table, None).run("t", DAYS, data)
    assert "64 bits are too few" in caplog.text
    assert found.equals(queries(table, None, on_grid=False).run("t", DAYS, data))


def test_days_without_events_have_no_rows() -> None:
    table, data = table_of(SUMS), rows(1)
    data["events"] = data["events"].slice(0, 0)
    found = queries(table, None).run("t", DAYS, data)
    assert found.num_rows == 0
    assert found.schema == queries(table, None, on_grid=False).run("t", DAYS, data).schema


def test_the_tables_of_our_sources_are_computed_on_a_grid() -> None:
    for name in ("card_payments", "flights"):
        source = load_source_spec(name)
        assert grid_queries(source).keys() == source.entities.keys()
