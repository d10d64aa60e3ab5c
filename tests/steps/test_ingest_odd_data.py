"""Ingest of odd values and of specs that change: every row is kept or in quarantine, or the partition is refused."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from tests.cases import others_in_ci
from tests.steps.ingest_helpers import FIRST, GENERATOR, SOURCE, Deliveries, day
from training.adapters.lake import EVENTS, QUARANTINE
from training.contract.errors import ConfigError, DataContractError, StepError
from training.contract.messages import IngestInputs
from training.settings import Settings
from training.steps.ingest import run


@pytest.fixture
def deliveries(settings: Settings) -> Deliveries:
    return Deliveries(settings)


def put(rows: pa.Table, column: str, values: Any) -> pa.Table:
    return rows.set_column(rows.column_names.index(column), column, values)


def microseconds(rows: pa.Table) -> list[int]:
    return rows["event_time"].cast(pa.int64()).to_pylist()


def times(values: list[int], unit: str = "us", zone: str | None = "UTC") -> pa.Array:
    return pa.array(values, pa.int64()).cast(pa.timestamp(unit, zone))


def text(*values: bytes) -> pa.Array:
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


EVENTS_OF_A_DAY = GENERATOR.events(FIRST)
COUNT = EVENTS_OF_A_DAY.num_rows


# --- odd values ---


def year_56000(rows: pa.Table) -> pa.Table:
    found = microseconds(rows)
    return put(rows, "event_time", times([found[0] * 1000, *found[1:]]))


def year_0(rows: pa.Table) -> pa.Table:
    return put(rows, "event_time", times([-62_135_596_800_000_001, *microseconds(rows)[1:]]))


def nan_id(rows: pa.Table) -> pa.Table:
    return put(rows, "customer_id", pa.array([float("nan"), *map(float, rows["customer_id"].to_pylist()[1:])]))


def fraction(rows: pa.Table) -> pa.Table:
    return put(rows, "customer_id", pa.array([0.5, *map(float, rows["customer_id"].to_pylist()[1:])]))


def huge_id(rows: pa.Table) -> pa.Table:
    return put(rows, "transaction_id", pa.array([2**64 - 1, *rows["transaction_id"].to_pylist()[1:]], pa.uint64()))


def infinite(rows: pa.Table) -> pa.Table:
    return put(rows, "amount", pa.array([float("inf"), *rows["amount"].to_pylist()[1:]]))


@pytest.mark.parametrize(
    ("spoil", "rule"),
    others_in_ci(
        [
            (year_56000, "event_time is outside the years 1 … 9999"),
            (huge_id, "transaction_id is too large for int64"),
            (year_0, "event_time is outside the years 1 … 9999"),
            (nan_id, "customer_id is missing"),
            (fraction, "customer_id is not a whole number"),
            (infinite, "amount is infinite"),
        ],
    ),
)
def test_one_odd_value_costs_one_row(deliveries: Deliveries, spoil: Callable[[pa.Table], pa.Table], rule: str) -> None:
    result = deliveries.deliver(spoil(EVENTS_OF_A_DAY), "2026-01-05")
    assert (result.rows_kept, result.quarantine_reasons) == (COUNT - 1, {rule: 1})
    [row] = deliveries.rows(QUARANTINE)
    assert json.loads(row["row"]).keys() == set(EVENTS_OF_A_DAY.column_names)


def test_odd_values_of_columns_without_bounds_and_of_columns_that_may_be_null(deliveries: Deliveries) -> None:
    columns = {"note": {"type": "string", "nullable": True}, "score": {"type": "float64", "nullable": True}}
    deliveries.respec(lambda feeds: feeds["events"]["columns"].update(columns))
    rows = EVENTS_OF_A_DAY.append_column("note", text(b"Caf\xe9", *[b"ok"] * (COUNT - 1)))
    scores = pa.array([1.0, float("nan"), float("-inf"), *[2.0] * (COUNT - 3)], from_pandas=False)
    result = deliveries.deliver(rows.append_column("score", scores), "2026-01-05")
    assert result.quarantine_reasons == {"note is not UTF-8 text": 1, "score is infinite": 1}
    assert "Caf\\\\xe9" in "".join(row["row"] for row in deliveries.rows(QUARANTINE))
    kept = deliveries.lake.scan(EVENTS).to_table()["score"]
    assert (kept.null_count, set(kept.drop_null().to_pylist())) == (1, {2.0})


@pytest.mark.parametrize(
    ("unit", "zone", "scale"),
    others_in_ci([("us", None, 1), ("ns", "+05:30", 1000), ("ns", "UTC", 1000), ("us", "Mars/Phobos", 1)]),
)
def test_times_in_any_unit_and_zone_mean_the_same_moment(
    deliveries: Deliveries, unit: str, zone: str | None, scale: int
) -> None:
    """One without a zone is UTC, as in a request for a prediction."""
    found = [value * scale for value in microseconds(EVENTS_OF_A_DAY)]
    result = deliveries.deliver(put(EVENTS_OF_A_DAY, "event_time", times(found, unit, zone)), "2026-01-05")
    assert result.rows_kept == COUNT
    kept = deliveries.lake.scan(EVENTS).to_table().sort_by("transaction_id")
    assert kept["event_time"].to_pylist() == EVENTS_OF_A_DAY["event_time"].to_pylist()


@pytest.mark.parametrize("note", others_in_ci([text(*[b"Caf\xe9"] * COUNT), times([17 * 10**17] * COUNT, zone=None)]))
def test_columns_that_the_spec_does_not_name_may_hold_anything(deliveries: Deliveries, note: pa.Array) -> None:
    result = deliveries.deliver(infinite(EVENTS_OF_A_DAY).append_column("note", note), "2026-01-05")
    assert (result.rows_kept, result.rows_quarantined) == (COUNT - 1, 1)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda rows: rows.rename_columns({"amount": "Amount"}).append_column("AMOUNT", rows["amount"]), "'AMOUNT'"),
        (
            lambda rows: put(rows, "event_time", times([v * 1000 + 1 for v in microseconds(rows)], "ns")),
            "event_time has digits below the microsecond: 227, first in row 0 ('2026-01-05 ",
        ),
        (
            lambda rows: put(rows, "amount", pa.array([Decimal("1.50")] * COUNT, pa.decimal128(18, 2))),
            "amount is not of type float64: the file has decimal128(18, 2)",
        ),
        (lambda rows: put(rows, "event_time", rows["event_time"].cast(pa.date32())), "the file has date32[day]"),
    ],
)
def test_a_refusal_names_what_the_file_has(
    deliveries: Deliveries, spoil: Callable[[pa.Table], pa.Table], said: str
) -> None:
    with pytest.raises(DataContractError) as refusal:
        deliveries.deliver(spoil(EVENTS_OF_A_DAY), "2026-01-05")
    assert said in str(refusal.value)
    assert deliveries.lake.versions(EVENTS, QUARANTINE) == {}


def test_int96_is_refused_for_its_missing_zone(deliveries: Deliveries) -> None:
    inputs = deliveries.land(EVENTS_OF_A_DAY, "2026-01-05")
    pq.write_table(EVENTS_OF_A_DAY, inputs.uri, use_deprecated_int96_timestamps=True)
    with pytest.raises(DataContractError, match="INT96, a deprecated timestamp without a zone"):
        run(inputs, deliveries.settings)


# --- any table ---

ANY_INTEGER = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
NOON = int(datetime(2026, 1, 5, 12, tzinfo=UTC).timestamp())
SMALL = st.integers(-(2**31), 2**31 - 1)
ZONES = st.sampled_from([None, "UTC", "Mars/Phobos", "America/New_York", "+05:30"])


def column_of(kind: pa.DataType, values: st.SearchStrategy, rows: int) -> st.SearchStrategy[pa.Array]:
    some = st.lists(st.none() | values, min_size=rows, max_size=rows)
    return some.map(lambda found: pa.array(found, kind, from_pandas=False))


def any_column(rows: int) -> st.SearchStrategy[pa.Array]:
    whole = column_of(pa.int64(), ANY_INTEGER, rows)
    near = [column_of(pa.int64(), st.integers(NOON * scale - 5, NOON * scale + 5), rows) for scale in (1, 10**6, 10**9)]
    units = ("s", "us", "ns")
    stamps = [
        st.tuples(source, ZONES).map(lambda each, unit=unit: each[0].cast(pa.timestamp(unit, each[1])))
        for unit, at_noon in zip(units, near, strict=True)
        for source in (whole, at_noon)
    ]
    raw = st.lists(st.binary(max_size=5), min_size=rows, max_size=rows)
    return st.one_of(
        whole,
        column_of(pa.uint64(), st.integers(0, 2**64 - 1), rows),
        column_of(pa.float64(), st.floats() | st.integers(0, 9).map(float), rows),
        column_of(pa.float32(), st.floats(width=32), rows),
        column_of(pa.string(), st.text(max_size=5), rows),
        column_of(pa.large_string(), st.text(max_size=5), rows),
        column_of(pa.bool_(), st.booleans(), rows),
        column_of(pa.decimal128(18, 2), st.decimals(-9, 9, places=2), rows),
        column_of(pa.list_(pa.int64()), st.lists(ANY_INTEGER, max_size=2), rows),
        column_of(pa.struct([("a", pa.float64())]), st.fixed_dictionaries({"a": st.floats()}), rows),
        column_of(pa.int32(), SMALL, rows).map(lambda found: found.cast(pa.date32())),
        column_of(pa.string(), st.text(max_size=2), rows).map(lambda found: found.dictionary_encode()),
        whole.map(lambda found: found.cast(pa.duration("us"))),
        raw.map(lambda found: text(*found)),
        raw.map(lambda found: pa.array(found, pa.binary())),
        st.just(pa.nulls(rows)),
        *stamps,
    )


@st.composite
def any_table(draw: st.DrawFn) -> pa.Table:
    """The columns of the feed, each of its own type or of any other, and one more."""
    rows = draw(st.integers(0, 5))
    good = EVENTS_OF_A_DAY.slice(0, rows)
    columns = {name: draw(st.just(good[name]) | any_column(rows)) for name in good.column_names}
    return pa.table({**columns, "extra": draw(any_column(rows))})


@pytest.fixture(scope="module")
def tolerant(tmp_path_factory: pytest.TempPathFactory) -> Deliveries:
    """A feed that refuses no partition for the number of its rows, good or bad."""
    deliveries = Deliveries(Settings(home=tmp_path_factory.mktemp("tolerant")))
    rules = {"row_count": {"minimum": 0, "minimum_ratio": 0}, "maximum_quarantined": 1}
    deliveries.respec(lambda feeds: feeds["events"].update(rules))
    return deliveries


@pytest.mark.long
@limits(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(rows=any_table())
def test_any_table_is_taken_row_by_row_or_refused_in_words(tolerant: Deliveries, rows: pa.Table) -> None:
    path = Path(tolerant.settings.home, "any.parquet")
    try:
        pq.write_table(rows, path)
    except pa.ArrowException:
        assume(False)  # Parquet does not hold it.
    try:
        result = run(
            IngestInputs(source=SOURCE, feed="events", partition="2026-01-05", uri=str(path)), tolerant.settings
        )
    except StepError:
        return
    assert result.rows_kept + result.rows_quarantined == rows.num_rows
    assert tolerant.lake.scan(EVENTS).count_rows() == result.rows_kept
    assert len([json.loads(row["row"]) for row in tolerant.rows(QUARANTINE)]) == result.rows_quarantined


# --- a spec that changes ---


def columns_of(deliveries: Deliveries) -> Callable[..., None]:
    def change(**columns: dict | None) -> None:
        def put_in(feeds: dict) -> None:
            for name, column in columns.items():
                if column is None:
                    del feeds["events"]["columns"][name]
                else:
                    feeds["events"]["columns"][name] = column

        deliveries.respec(put_in)

    return change


def stored(deliveries: Deliveries, number: int, column: str) -> list:
    rows = deliveries.lake.scan(EVENTS).to_table(filter=pc.field("partition") == str(day(number)))
    return rows.sort_by("transaction_id")[column].to_pylist()


#: A rule that no partition breaks.
ANY_COUNT = {"minimum": 0, "minimum_ratio": 0}
WHOLE = put(EVENTS_OF_A_DAY, "amount", pc.floor(EVENTS_OF_A_DAY["amount"]).cast(pa.int64()))


def test_a_column_added_renamed_and_taken_out(deliveries: Deliveries) -> None:
    change = columns_of(deliveries)
    deliveries.events(0)
    change(channel={"type": "string"})
    rows = GENERATOR.events(day(1))
    deliveries.deliver(rows.append_column("channel", pa.array(["web"] * len(rows))), str(day(1)))
    change(channel=None, amount=None, value={"type": "float64"})
    rows = GENERATOR.events(day(2)).rename_columns({"amount": "value"})
    deliveries.deliver(rows, str(day(2)))
    assert [set(stored(deliveries, n, "channel")) for n in range(3)] == [{None}, {"web"}, {None}]
    assert set(stored(deliveries, 0, "value")) == {None}
    assert set(stored(deliveries, 2, "amount")) == {None}
    assert stored(deliveries, 2, "value") == rows["value"].to_pylist()


def test_whole_numbers_widen_to_floats_and_the_rows_in_the_lake_stay(deliveries: Deliveries) -> None:
    change = columns_of(deliveries)
    change(amount={"type": "int64"})
    deliveries.deliver(WHOLE, str(day(0)))
    change(amount={"type": "float64"})
    rows = GENERATOR.events(day(1))
    deliveries.deliver(rows, str(day(1)))
    assert stored(deliveries, 1, "amount") == rows["amount"].to_pylist()
    assert stored(deliveries, 0, "amount") == WHOLE["amount"].to_pylist()
    assert deliveries.deliver(rows, str(day(1))).outcome == "unchanged"
    assert deliveries.deliver(WHOLE, str(day(0))).outcome == "replaced"


def test_a_refused_partition_widens_nothing(deliveries: Deliveries) -> None:
    change = columns_of(deliveries)
    change(amount={"type": "int64"})
    deliveries.deliver(WHOLE, str(day(0)))
    change(amount={"type": "float64"})
    before = deliveries.lake.versions(EVENTS, QUARANTINE)
    with pytest.raises(DataContractError, match="0 rows"):
        deliveries.deliver(GENERATOR.events(day(1)).slice(0, 0), str(day(1)))
    assert deliveries.lake.versions(EVENTS, QUARANTINE) == before


@pytest.mark.parametrize(
    ("column", "kind", "values"),
    others_in_ci(
        [
            ("amount", {"type": "int64"}, pc.floor(EVENTS_OF_A_DAY["amount"])),
            ("customer_id", {"type": "string"}, EVENTS_OF_A_DAY["customer_id"].cast(pa.string())),
            ("amount", {"type": "string"}, EVENTS_OF_A_DAY["amount"].cast(pa.string())),
            ("amount", {"type": "bool"}, pa.array([True] * COUNT)),
            ("amount", {"type": "timestamp"}, EVENTS_OF_A_DAY["event_time"]),
        ],
    ),
)
def test_any_other_change_of_a_type_is_refused_before_anything_is_written(
    deliveries: Deliveries, column: str, kind: dict, values: Any
) -> None:
    deliveries.deliver(EVENTS_OF_A_DAY, str(day(0)))
    columns_of(deliveries)(**{column: kind})
    before = deliveries.lake.versions(EVENTS, QUARANTINE)
    rows = put(EVENTS_OF_A_DAY, "terminal_id", pa.array([-1] * 2 + [1] * (COUNT - 2)))
    with pytest.raises(ConfigError, match=rf"events cannot take these rows: column {column} is .* in the table and .*"):
        deliveries.deliver(put(rows, column, values), str(day(0)))
    assert deliveries.lake.versions(EVENTS, QUARANTINE) == before


def test_names_equal_but_for_capitals_and_our_own_are_refused(deliveries: Deliveries) -> None:
    for name in ("Amount", "partition"):
        columns_of(deliveries)(**{name: {"type": "float64"}})
        with pytest.raises(ConfigError, match=name):
            deliveries.deliver(EVENTS_OF_A_DAY.append_column(name, pa.array([1.0] * COUNT)), "2026-01-05")
        columns_of(deliveries)(**{name: None})
    assert deliveries.lake.versions(EVENTS, QUARANTINE) == {}


@pytest.mark.ci
def test_another_time_column_needs_the_rows_again(deliveries: Deliveries) -> None:
    deliveries.events(0)

    def rename(feeds: dict) -> None:
        feeds["events"]["columns"]["booked_at"] = feeds["events"]["columns"].pop("event_time")
        feeds["events"]["time_column"] = "booked_at"

    deliveries.respec(rename)
    rows = GENERATOR.events(day(1)).rename_columns({"event_time": "booked_at"})
    with pytest.raises(ConfigError, match="none has the time column 'booked_at'"):
        deliveries.deliver(rows, str(day(1)))


@pytest.mark.ci
def test_a_column_that_may_no_longer_be_null_counts_for_new_rows(deliveries: Deliveries) -> None:
    change = columns_of(deliveries)
    change(amount={"type": "float64", "nullable": True})
    deliveries.deliver(put(EVENTS_OF_A_DAY, "amount", pa.nulls(COUNT)), str(day(0)))
    change(amount={"type": "float64"})
    deliveries.events(1)
    rows = put(EVENTS_OF_A_DAY, "amount", pa.array([None, *[1.0] * (COUNT - 1)]))
    assert deliveries.deliver(rows, str(day(0))).quarantine_reasons == {"amount is missing": 1}


def test_a_column_that_may_be_null_from_now_on(deliveries: Deliveries) -> None:
    rows = put(EVENTS_OF_A_DAY, "amount", pa.array([None, *[1.0] * (COUNT - 1)]))
    assert deliveries.deliver(rows, str(day(0))).quarantine_reasons == {"amount is missing": 1}
    columns_of(deliveries)(amount={"type": "float64", "nullable": True})
    again = deliveries.deliver(rows, str(day(0)))
    assert (again.outcome, again.rows_kept, again.quarantine_reasons) == ("replaced", COUNT, {})


@pytest.mark.parametrize(
    ("column", "rule"),
    others_in_ci(
        [
            ("amount", {"type": "float64", "minimum": 1e9}),
            ("amount", {"type": "float64", "maximum": -1}),
            ("customer_id", {"type": "int64", "values": [-1]}),
            ("terminal_id", {"type": "int64", "unique": True}),
        ],
    ),
)
def test_changed_rules_are_for_later_deliveries(deliveries: Deliveries, column: str, rule: dict) -> None:
    deliveries.respec(lambda feeds: feeds["events"].update(maximum_quarantined=1, row_count=ANY_COUNT))
    columns_of(deliveries)(**{column: {"type": rule["type"]}})
    assert deliveries.events(0).rows_quarantined == 0
    before = stored(deliveries, 0, column)
    columns_of(deliveries)(**{column: rule})
    deliveries.respec(lambda feeds: feeds["events"].update(maximum_quarantined=1, row_count=ANY_COUNT))
    assert deliveries.events(1).rows_quarantined > 0
    assert stored(deliveries, 0, column) == before
    # Delivered again, its rows are validated by the new rules.
    again = deliveries.events(0)
    assert (again.outcome, again.rows_quarantined > 0) == ("replaced", True)


@pytest.mark.parametrize(
    ("rule", "rows"),
    others_in_ci(
        [
            ({"row_count": {"minimum": 10 * COUNT}}, EVENTS_OF_A_DAY),
            ({"maximum_quarantined": 0}, put(EVENTS_OF_A_DAY, "terminal_id", pa.array([-1] + [1] * (COUNT - 1)))),
        ],
    ),
)
def test_changed_rules_of_partitions_are_for_later_deliveries(
    deliveries: Deliveries, rule: dict, rows: pa.Table
) -> None:
    deliveries.deliver(rows, str(day(0)))
    before = deliveries.lake.versions(EVENTS)
    deliveries.respec(lambda feeds: feeds["events"].update(rule))
    with pytest.raises(DataContractError):
        deliveries.deliver(rows, str(day(0)))
    assert deliveries.lake.versions(EVENTS) == before


@pytest.mark.long
@pytest.mark.parametrize("columns", [45, 300])
def test_wide_feeds_whose_time_comes_last(deliveries: Deliveries, columns: int) -> None:
    more = {f"v{n}": {"type": "float64"} for n in range(columns - 5)}

    def widen(feeds: dict) -> None:
        time = feeds["events"]["columns"].pop("event_time")
        feeds["events"]["columns"].update({**more, "event_time": time})

    deliveries.respec(widen)
    rows = pa.table(
        {
            **dict(zip(EVENTS_OF_A_DAY.column_names, EVENTS_OF_A_DAY.columns, strict=True)),
            **{name: pa.array([0.5] * COUNT) for name in more},
        }
    )
    first = deliveries.deliver(rows, "2026-01-05")
    assert first.rows_kept == COUNT
    assert deliveries.deliver(rows, "2026-01-05") == first.model_copy(update={"outcome": "unchanged"})
