"""Casts that lose nothing are made; a value that does not fit costs its row, a column of another kind the partition."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from training.contract.model_spec import Column, FeedSpec
from training.domain.arrow_types import feed_schema
from training.domain.conform import Conformed, conform

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
MORE = FeedSpec(
    time_column="time",
    id_column="tiny",
    columns={
        "tiny": Column(type="int8", nullable=True),
        "byte": Column(type="uint8", nullable=True),
        "huge": Column(type="uint64", nullable=True),
        "short": Column(type="float32", nullable=True),
        "money": Column(type="decimal(6, 2)", nullable=True),
        "exact": Column(type="decimal(38, 0)", nullable=True),
        "kind": Column(type="category", nullable=True),
        "day": Column(type="date", nullable=True),
        "vector": Column(type="list(float32)", nullable=True),
        "pair": Column(type="list(float64, 2)", nullable=True),
        "time": Column(type="timestamp"),
    },
)
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
NAN, INFINITE = float("nan"), float("inf")


def one(column: str, values: pa.Array, feed: FeedSpec = FEED) -> Conformed:
    return conform(pa.table({column: values}), feed)


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


@pytest.mark.parametrize("nanoseconds", [1_000, 0, -1_000, -(2**63) + 808])
def test_nanoseconds_without_digits_below_the_microsecond(nanoseconds: int) -> None:
    values = pa.array([nanoseconds]).cast(pa.timestamp("ns", "UTC"))
    assert one("time", values).table["time"].cast(pa.int64()).to_pylist() == [nanoseconds // 1000]


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
        ("time", pa.array([1_999, 0]).cast(pa.timestamp("ns")), "time has digits below the microsecond"),
        ("time", pa.array([-1, 0]).cast(pa.timestamp("ns", "UTC")), "time has digits below the microsecond"),
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
    problems = conform(pa.table({" number": [1], "other": [2]}), FEED).problems
    assert problems[0].startswith("column number is missing (the file has ' number': names must be equal")
    assert problems[1] == "the columns of the file are  number, other"
    assert problems[2:] == [f"column {name} is missing" for name in ("amount", "name", "flag", "time")]


def test_names_may_differ_in_capitals_when_only_one_can_be_meant() -> None:
    cast = conform(pa.table({"NUMBER": [1], "Time": [NOON], "time": [NOON]}), FEED)
    assert cast.table.column_names == ["number", "time"]
    assert cast.landed.column_names == ["number", "Time", "time"]


def test_names_that_differ_in_capitals_only_are_ambiguous() -> None:
    problems = conform(pa.table({"NUMBER": [1], "Number": [2]}), FEED).problems
    assert problems[0].startswith("column number is missing (the file has 'NUMBER', 'Number': names must be equal")


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


def decimals(*values: str | None, digits: int = 38, scale: int = 2) -> pa.Array:
    kind = pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale)
    return pa.array([None if each is None else Decimal(each) for each in values], kind)


MIDNIGHTS = [datetime(2026, 1, 5), datetime(1969, 12, 31), None]
DATES = [date(2026, 1, 5), date(1969, 12, 31), None]


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("tiny", pa.array([-128, 127, None], pa.int64()), None),
        ("tiny", pa.array([-128.0, 127.0]), None),
        ("tiny", decimals("-128.00", "127", None), [-128, 127, None]),
        ("tiny", pa.array([127], pa.uint64()), None),
        ("byte", pa.array([0, 255], pa.uint8()), None),
        ("byte", pa.array([0, 255], pa.int16()), None),
        ("huge", pa.array([0, 2**63 - 1], pa.uint64()), None),
        ("huge", decimals("9223372036854775807", digits=70), [2**63 - 1]),
        ("short", pa.array([0.5, None, 2.0**100]), None),
        ("short", pa.array([2**24, -(2**24)]), None),
        ("money", decimals("1.50", "-9999.99", None), None),
        ("money", decimals("1.5000", digits=20, scale=4), None),
        ("money", decimals("9999", digits=4, scale=0), None),
        ("money", decimals("1.50", digits=76, scale=70), None),
        ("money", pa.array([-9999, 9999], pa.int16()), None),
        ("exact", pa.array([2**64 - 1], pa.uint64()), None),
        ("exact", decimals("9" * 38, scale=0), None),
        ("kind", pa.array(["a", "a", None]).dictionary_encode(), None),
        ("day", pa.array(DATES), None),
        ("day", pa.array(DATES, pa.date64()), None),
        *[("day", pa.array(MIDNIGHTS, pa.timestamp(unit)), DATES) for unit in ("s", "ms", "us", "ns")],
        ("day", pa.array(MIDNIGHTS, pa.timestamp("ns", "UTC")), DATES),
        ("day", pa.array([date.min, date.max]), None),
        ("vector", pa.array([[0.5], [], None], pa.large_list(pa.float64())), None),
        ("vector", pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)), None),
        ("vector", pa.array([[1.0], [2.0], [3.0]]).slice(1), None),
        ("pair", pa.array([[0.1, 2], None], pa.list_(pa.float64(), 2)), None),
    ],
)
def test_lossless_casts_of_more_types(column: str, values: pa.Array, expected: list[Any] | None) -> None:
    cast = one(column, values, MORE)
    assert cast.table.schema.field(column) == feed_schema(MORE).field(column)
    assert cast.table[column].to_pylist() == (values.to_pylist() if expected is None else expected)
    assert not any(cast.unfit.values())


@pytest.mark.parametrize(
    ("column", "values", "rule"),
    [
        ("tiny", pa.array([128, 1]), "tiny is too large for int8"),
        ("tiny", pa.array([-129, 1]), "tiny is too small for int8"),
        ("tiny", pa.array([2**64 - 1, 1], pa.uint64()), "tiny is too large for int8"),
        ("tiny", pa.array([-129.0, 1.0]), "tiny is too small for int8"),
        ("tiny", decimals("128", "1"), "tiny is too large for int8"),
        ("tiny", decimals("1.01", "1"), "tiny is not a whole number"),
        ("tiny", decimals("9" * 70, "1", digits=70, scale=0), "tiny is too large for int8"),
        ("byte", pa.array([-1, 1]), "byte is too small for uint8"),
        ("byte", pa.array([256, 1]), "byte is too large for uint8"),
        ("huge", pa.array([2**63, 1], pa.uint64()), "huge is too large for int64, which holds uint64 in the lake"),
        ("short", pa.array([0.1, 1.0]), "short is not exact in float32"),
        ("short", pa.array([1e300, 1.0]), "short is not exact in float32"),
        ("short", pa.array([INFINITE, 1.0]), "short is infinite"),
        ("short", pa.array([2**24 + 1, 1]), "short is too large to be exact in float32"),
        ("money", decimals("1.501", "1", scale=3), "money has more than 2 digits after the point"),
        ("money", decimals("10000", "1"), "money is too large for decimal(6, 2)"),
        ("money", decimals("-10000", "1"), "money is too large for decimal(6, 2)"),
        ("money", pa.array([10000, 1]), "money is too large for decimal(6, 2)"),
        ("day", pa.array([datetime(2026, 1, 5, 0, 0, 0, 1), MIDNIGHTS[0]]), "day has a time of day"),
        ("day", pa.array([2**31 - 1, 0], pa.int32()).cast(pa.date32()), "day is outside the years 1 … 9999"),
        ("day", pa.array([86_400 * 10**7, 0]).cast(pa.timestamp("s")), "day is outside the years 1 … 9999"),
        ("kind", text(b"\xff", b"ok"), "kind is not UTF-8 text"),
        ("vector", pa.array([[0.5, None], [1]]), "vector: an element is missing"),
        ("vector", pa.array([[0.5, NAN], [1]], from_pandas=False), "vector: an element is missing"),
        ("vector", pa.array([[0.5, INFINITE], [1]]), "vector: an element is infinite"),
        ("vector", pa.array([[0.1], [1]]), "vector: an element is not exact in float32"),
        ("pair", pa.array([[0.5], [1, 2]]), "pair does not have 2 elements"),
        ("pair", pa.array([[2**53 + 1, 0], [1, 2]]), "pair: an element is too large to be exact in float64"),
    ],
)
def test_values_that_do_not_fit_into_more_types(column: str, values: pa.Array, rule: str) -> None:
    cast = one(column, values, MORE)
    assert {key: rows for key, rows in cast.unfit[column].items() if rows} == {rule: [0]}
    assert [value is None for value in cast.table[column].to_pylist()] == [True, False]


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        (
            "money",
            pa.array([1.5]),
            "not of type decimal(6, 2): the file has double, for example '1.5' in row 0",
        ),
        ("money", pa.array(["1.50"]), "decimal(6, 2) takes decimals or integers"),
        ("day", pa.array(["2026-01-05"]), "the file has string, for example '2026-01-05' in row 0"),
        ("day", pa.array(MIDNIGHTS, pa.timestamp("us", "Europe/Oslo")), "the file has timestamp[us, tz=Europe/Oslo]"),
        ("kind", pa.array([None, 7]), "the file has int64, for example '7' in row 1; category takes strings"),
        ("vector", pa.array([["a"]]), "the file has list<item: string>"),
        ("vector", pa.array([1.5]), "list(float32) takes lists of floats or integers"),
        ("tiny", pa.array([True]), "int8 takes integers, or floats and decimals that are whole numbers"),
    ],
)
def test_other_kinds_of_more_types_are_refused(column: str, values: pa.Array, said: str) -> None:
    [problem] = [each for each in one(column, values, MORE).problems if each.startswith(f"column {column} is not of")]
    assert said in problem


@pytest.mark.parametrize("chunks", [[], [[]]])
def test_no_rows_of_more_types(chunks: list[Any]) -> None:
    for given in (feed_schema(MORE), pa.schema([(name, pa.null()) for name in MORE.columns])):
        empty = pa.table([pa.chunked_array(chunks, kind) for kind in given.types], schema=given)
        assert conform(empty, MORE).table.equals(feed_schema(MORE).empty_table())
