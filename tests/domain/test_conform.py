"""Casts that lose nothing are made; a value that does not fit costs its row, a column of another kind the partition."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from training.contract.model_spec import Column, FeedSpec
from training.domain.conform import Conformed, conform, feed_schema

FEED = FeedSpec(
    time_column="time",
    id_column="number",
    columns={
        "number": Column(type="int64", nullable=True),
        "amount": Column(type="float64"),
        "name": Column(type="string"),
        "flag": Column(type="bool"),
        "time": Column(type="timestamp"),
    },
)
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
NAN, INFINITE = float("nan"), float("inf")


def one(column: str, values: pa.Array) -> Conformed:
    return conform(pa.table({column: values}), FEED)


def text(*values: bytes) -> pa.Array:
    """Strings as a careless writer leaves them: any bytes."""
    raw = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(values), raw.buffers())


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("number", pa.array([1, None], pa.int8())),
        ("number", pa.array([1.0, -0.0, None], pa.float64())),
        ("number", pa.array([2**24], pa.float32())),
        ("number", pa.array([2**63 - 1], pa.uint64())),
        ("number", pa.array([-(2**63), 2**63 - 1])),
        ("number", pa.array([1, 1]).dictionary_encode()),
        ("number", pa.array([None, None], pa.null())),
        ("amount", pa.array([1, 2], pa.int32())),
        ("amount", pa.array([2**53, -(2**53)])),
        ("amount", pa.array([1.5, 2.0], pa.float32())),
        ("amount", pa.array([1.5, -0.0], pa.float16())),
        ("name", pa.array(["a", "b"], pa.large_string())),
        ("name", pa.array(["a", None], pa.string_view())),
        ("name", pa.array(["a", "a"]).dictionary_encode()),
        ("name", pa.array(["x" * 1_000_000, "\x00", "€"])),
        ("flag", pa.array([True, None]).dictionary_encode()),
        ("time", pa.array([NOON, NOON], pa.timestamp("ns", tz="America/New_York"))),
        ("time", pa.array([NOON, None], pa.timestamp("s", tz="+05:30"))),
        ("time", pa.array([datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)])),
    ],
)
def test_lossless_casts(column: str, values: pa.Array) -> None:
    cast = one(column, values)
    assert cast.table.schema.field(column) == feed_schema(FEED).field(column)
    assert cast.table[column].to_pylist() == values.to_pylist()
    assert not any(cast.unfit.values())


def test_times_without_a_zone_are_utc() -> None:
    assert one("time", pa.array([NOON.replace(tzinfo=None)])).table["time"].to_pylist() == [NOON]


def test_a_zone_that_nobody_knows_does_not_change_the_moment() -> None:
    values = pa.array([NOON], pa.timestamp("us", "UTC")).cast(pa.timestamp("us", "Mars/Phobos"))
    assert one("time", values).table["time"].to_pylist() == [NOON]


@pytest.mark.parametrize(("nanoseconds", "microseconds"), [(1_999, 1), (-1, -1), (-1_500, -2), (-(2**63), None)])
def test_digits_below_the_microsecond_are_cut_off(nanoseconds: int, microseconds: int | None) -> None:
    cast = one("time", pa.array([nanoseconds]).cast(pa.timestamp("ns", "UTC"))).table["time"].cast(pa.int64())
    assert cast.to_pylist() == [nanoseconds // 1000 if microseconds is None else microseconds]


@pytest.mark.parametrize(
    ("column", "values", "rule"),
    [
        ("number", pa.array([1.5, 1.0]), "number is not a whole number"),
        ("number", pa.array([INFINITE, 1.0]), "number is infinite"),
        ("number", pa.array([2.0**60, 1.0]), "number is too large to be exact in double"),
        ("number", pa.array([2.0**25, 1.0], pa.float32()), "number is too large to be exact in float"),
        ("number", pa.array([2**64 - 1, 1], pa.uint64()), "number is too large for int64"),
        ("amount", pa.array([-INFINITE, 1.0]), "amount is infinite"),
        ("amount", pa.array([2**53 + 1, 1]), "amount is too large to be exact in float64"),
        ("amount", pa.array([-(2**53) - 1, 1]), "amount is too large to be exact in float64"),
        ("amount", pa.array([2**64 - 1, 1], pa.uint64()), "amount is too large to be exact in float64"),
        ("name", text(b"Caf\xe9", b"ok"), "name is not UTF-8 text"),
        ("name", pa.DictionaryArray.from_arrays([0, 1], text(b"\xff", b"ok")), "name is not UTF-8 text"),
        ("time", pa.array([17 * 10**17, 0]).cast(pa.timestamp("us")), "time is outside the years 1 … 9999"),
        ("time", pa.array([-(2**63), 0]).cast(pa.timestamp("s", "UTC")), "time is outside the years 1 … 9999"),
    ],
)
def test_a_value_that_its_type_cannot_hold_is_null_and_named(column: str, values: pa.Array, rule: str) -> None:
    cast = one(column, values)
    assert {key: rows for key, rows in cast.unfit[column].items() if rows} == {rule: [0]}
    assert [value is None for value in cast.table[column].to_pylist()] == [True, False]


@pytest.mark.parametrize("column", ["number", "amount"])
def test_nan_is_null(column: str) -> None:
    cast = one(column, pa.array([NAN, 1.0, None], from_pandas=False))
    assert cast.table[column].to_pylist() == [None, 1.0, None]
    assert not any(cast.unfit.values())


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("number", pa.array(["1"]), "the file has string"),
        ("number", pa.array([True]), "the file has bool"),
        ("number", pa.array([[1]]), "the file has list<item: int64>"),
        ("amount", pa.array(["1.5"]), "float64 takes floats or integers"),
        ("amount", pa.array([Decimal("1.50")], pa.decimal128(18, 2)), "the file has decimal128(18, 2)"),
        ("amount", pa.array([{"value": 1.5}]), "the file has struct<value: double>"),
        ("flag", pa.array([1]), "the file has int64"),
        ("name", pa.array([1]), "the file has int64"),
        ("name", pa.array([b"a"]), "the file has binary"),
        ("name", pa.array([1, 1]).dictionary_encode(), "the file has dictionary<values=int64"),
        ("name", pa.array([b"0" * 16], pa.uuid()), "the file has extension<arrow.uuid>"),
        ("time", pa.array(["2026-01-05T12:00:00Z"]), "timestamp takes timestamps (one without a zone is UTC)"),
        ("time", pa.array([date(2026, 1, 5)]), "the file has date32[day]"),
        ("time", pa.array([1], pa.time64("us")), "the file has time64[us]"),
        ("time", pa.array([1], pa.duration("us")), "the file has duration[us]"),
    ],
)
def test_a_column_of_another_kind_is_named_with_the_type_that_the_file_has(
    column: str, values: pa.Array, said: str
) -> None:
    cast = one(column, values)
    [problem] = [problem for problem in cast.problems if problem.startswith(f"column {column} is not of type")]
    assert said in problem
    assert column not in cast.table.column_names


def test_a_missing_column_is_named_with_those_that_the_file_has() -> None:
    problems = conform(pa.table({"NUMBER": [1], "other": [2]}), FEED).problems
    assert problems[0] == "the columns of the file are NUMBER, other"
    assert (
        problems[1]
        == "column number is missing (the file has 'NUMBER': names must be equal, also in upper and lower case)"
    )
    assert problems[2:] == [f"column {name} is missing" for name in ("amount", "name", "flag", "time")]


@pytest.mark.parametrize("rows", [pa.table({}), pa.table({"number": []}).slice(0, 0)])
def test_files_without_columns_or_rows(rows: pa.Table) -> None:
    assert "column time is missing" in conform(rows, FEED).problems


@pytest.mark.parametrize("chunks", [[], [[]]])
def test_no_rows_of_any_type(chunks: list[Any]) -> None:
    types = {"number": pa.float64(), "amount": pa.int64(), "name": pa.string(), "flag": pa.null()}
    for unit in ("s", "ms", "us", "ns"):
        schema = pa.schema({**types, "time": pa.timestamp(unit)})
        empty = pa.table([pa.chunked_array(chunks, kind) for kind in schema.types], schema=schema)
        assert conform(empty, FEED).table.equals(feed_schema(FEED).empty_table())


def test_only_the_feeds_columns_stay_in_its_order() -> None:
    table = pa.table({"extra": [1], "time": [NOON], "number": [1]})
    assert conform(table, FEED).table.column_names == ["number", "time"]
