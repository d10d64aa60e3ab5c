"""Rows of quarantine get the types of the spec back without loss, or stay."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from training.contract.model_spec import Column, FeedSpec
from training.domain.quarantine import quarantine_rows
from training.domain.restored_rows import restored

FEED = FeedSpec(
    time_column="time",
    id_column="id",
    columns={
        "id": Column(type="int64"),
        "small": Column(type="int8", nullable=True),
        "time": Column(type="timestamp"),
        "amount": Column(type="float64", nullable=True),
        "price": Column(type="decimal(6,2)", nullable=True),
        "on": Column(type="date", nullable=True),
        "kind": Column(type="string", nullable=True),
        "flag": Column(type="bool", nullable=True),
    },
)
GOOD: dict[str, Any] = {
    "id": 2**60 + 1,
    "small": -128,
    "time": datetime(2026, 1, 5, 12, 0, 0, 1, tzinfo=UTC),
    "amount": 0.1,
    "price": Decimal("12.30"),
    "on": date(2026, 1, 5),
    "kind": "é\0",
    "flag": False,
}


def back(rows: pa.Table, reason: str = "amount is above 1") -> tuple[pa.Table, list[int]]:
    broken = {at: [reason] for at in range(rows.num_rows)}
    return restored(quarantine_rows(rows, broken, "events", "2026-01-05").to_pylist(), FEED)


def test_values_come_back_as_they_were() -> None:
    rows, others = back(pa.Table.from_pylist([GOOD, {**dict.fromkeys(GOOD), "id": 1, "time": GOOD["time"]}]))
    assert others == []
    found = rows.drop_columns("_delivered").to_pylist()
    assert found == [GOOD, {**dict.fromkeys(GOOD), "id": 1, "time": GOOD["time"]}]
    assert json.loads(rows["_delivered"][0].as_py())["amount"] == 0.1


def test_times_without_a_zone_are_utc_and_zones_keep_the_moment() -> None:
    plain = pa.table({"id": [1], "time": pa.array([datetime(2026, 1, 5, 12)])})
    paris = pa.table({"id": [1], "time": pa.array([GOOD["time"]]).cast(pa.timestamp("ns", "Europe/Paris"))})
    assert back(plain)[0]["time"].to_pylist() == [datetime(2026, 1, 5, 12, tzinfo=UTC)]
    assert back(paris)[0]["time"].to_pylist() == [GOOD["time"]]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", pa.array([0.5])),
        ("id", pa.array([2**63], pa.uint64())),
        ("small", pa.array([128])),
        ("time", pa.array([1_767_614_400_000_000_001]).cast(pa.timestamp("ns", "UTC"))),
        ("time", pa.array([2**60]).cast(pa.timestamp("s", "UTC"))),
        ("amount", pa.array([float("inf")])),
        ("amount", pa.array([2**53 + 1])),
        ("price", pa.array([Decimal("1.234")])),
        ("price", pa.array([Decimal("12345.6")])),
        ("flag", pa.array([1])),
        ("kind", pa.array([5])),
    ],
)
def test_a_value_that_its_type_does_not_hold_stays(column: str, value: pa.Array) -> None:
    rows = pa.Table.from_pylist([GOOD])
    assert back(rows.set_column(rows.column_names.index(column), column, value))[1] == [0]


def test_bytes_that_are_no_text_stay() -> None:
    rows, others = back(pa.Table.from_pylist([GOOD]), "kind is not UTF-8 text")
    assert (rows.num_rows, others) == (0, [0])
