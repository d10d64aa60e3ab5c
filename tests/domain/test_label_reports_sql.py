"""The SQL of label reports beside the functions of labels.py, on random reports."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from training.adapters.feature_engines.duckdb import DuckDb
from training.contract.source_spec import LabelColumn
from training.domain.label_reports_sql import reports_sql
from training.domain.labels import implied_reports, one_per_report

TIME, START = pa.timestamp("us", tz="UTC"), datetime(2026, 1, 1, tzinfo=UTC)
UNTIL = date(2026, 1, 20)


def label(column: str, nullable: bool = False) -> LabelColumn:
    return LabelColumn(column, "outcomes", "event id", "told", 3, "negative", nullable)


def feeds(seed: int) -> tuple[pa.Table, pa.Table]:
    """Reports of one event and time in several partitions, with equal labels, nulls and NaN; events without any."""
    random = np.random.default_rng(seed)

    def some(values: list[Any], n: int = 600) -> list[Any]:
        return [values[i] for i in random.integers(0, len(values), n)]

    hours = [START + timedelta(hours=6 * n) for n in range(60)]
    reports = {
        "event id": pa.array(some([*range(60), None]), pa.int64()),
        "late": pa.array(some([True, False, None]), pa.bool_()),
        "cost": pa.array(some([float("nan"), None, -1.0, 2.5]), pa.float64()),
        "told": pa.array(some(hours), TIME),
        "partition": pa.array(some(["a", "b", "ä"]), pa.string()),
    }
    events = {"event id": pa.array(range(90), pa.int64()), "at": pa.array(some(hours, 90), TIME)}
    return pa.table(reports), pa.table(events)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("nullable", [False, True])
@pytest.mark.parametrize("silent", [False, True])
def test_both_make_the_same_reports(silent: bool, nullable: bool, seed: int) -> None:
    labels = [label("late", nullable=nullable), label("cost")]
    reports, events = feeds(seed)
    mask = pa.compute.is_valid(reports["event id"])
    if not nullable:
        said = pa.compute.or_(pa.compute.is_valid(reports["late"]), pa.compute.is_valid(reports["cost"]))
        mask = pa.compute.and_(mask, said)
    wanted = one_per_report(reports.filter(mask), labels)
    if silent:
        until = datetime(UNTIL.year, UNTIL.month, UNTIL.day, tzinfo=UTC)
        implied = implied_reports(events, "at", wanted, labels, until)
        assert 20 < len(implied) < 80
        wanted = pa.concat_tables([wanted, implied])
    sql = reports_sql("said", reports.schema, labels, "asked" if silent else None, "at", UNTIL)
    found = DuckDb().execute(sql, {}, {"said": reports, "asked": events})
    assert found.schema.types == reports.schema.types
    order = [("event id", "ascending"), ("told", "ascending")]
    assert found.sort_by(order).to_pandas().equals(wanted.sort_by(order).to_pandas())
