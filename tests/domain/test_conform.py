"""Casts that lose nothing are made; a column that would lose something is left alone."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from training.contract.model_spec import Column, FeedSpec
from training.domain.conform import conform, feed_schema

FEED = FeedSpec(
    time_column="time",
    columns={
        "number": Column(type="int64", nullable=True),
        "amount": Column(type="float64"),
        "name": Column(type="string"),
        "flag": Column(type="bool"),
        "time": Column(type="timestamp"),
    },
)
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("number", pa.array([1, None], pa.int8())),
        ("number", pa.array([1.0, None], pa.float64())),
        ("number", pa.array([None, None], pa.null())),
        ("amount", pa.array([1, 2], pa.int32())),
        ("amount", pa.array([1.5, 2.0], pa.float32())),
        ("name", pa.array(["a", "b"], pa.large_string())),
        ("name", pa.array(["a", "a"]).dictionary_encode()),
        ("time", pa.array([NOON, NOON], pa.timestamp("ns", tz="America/New_York"))),
    ],
)
def test_lossless_casts(column: str, values: pa.Array) -> None:
    cast = conform(pa.table({column: values}), FEED)
    assert cast.schema.field(column) == feed_schema(FEED).field(column)
    assert cast[column].to_pylist() == values.to_pylist()


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("number", pa.array([1.5])),
        ("number", pa.array([2**64 - 1], pa.uint64())),
        ("number", pa.array(["1"])),
        ("number", pa.array([True])),
        ("amount", pa.array([2**53 + 1])),
        ("amount", pa.array(["1.5"])),
        ("flag", pa.array([1])),
        ("name", pa.array([1])),
        ("time", pa.array([NOON.replace(tzinfo=None)])),
        ("time", pa.array([1], pa.timestamp("ns", tz="UTC"))),
        ("time", pa.array(["2026-01-05T12:00:00Z"])),
    ],
)
def test_what_would_lose_something_is_left_alone(column: str, values: pa.Array) -> None:
    assert conform(pa.table({column: values}), FEED)[column].type == values.type


def test_only_the_feeds_columns_stay_in_its_order() -> None:
    table = pa.table({"extra": [1], "time": [NOON], "number": [1]})
    assert conform(table, FEED).column_names == ["number", "time"]
