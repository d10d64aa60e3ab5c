"""The spec that `make new-source` writes from a sample, and what it says about samples that it cannot use."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pytest

from local.land import land
from tests.cases import others_in_ci
from tests.onboarding.samples import FIRST, sales, table, write
from training.contract.errors import InputError
from training.contract.feeds import RowCount
from training.contract.source_spec import SourceSpec, load_source_spec
from training.onboarding.landable import landable
from training.onboarding.new_source import SourceWishes, new_source
from training.onboarding.rules import row_count_rules
from training.onboarding.sample import read_sample, spec_names
from training.settings import Settings
from training.steps.check import find_source_problems


def made(here: Settings, path: Path, **wishes: Any) -> tuple[SourceSpec, str]:
    """The spec of the source `shops` and its text."""
    found = new_source(SourceWishes(**{"name": "shops", "data": path, "labels": "returned", **wishes}), here)
    return load_source_spec("shops", here.feature_repo), found.text


def made_of(here: Settings, tmp_path: Path, columns: dict[str, Any], **wishes: Any) -> tuple[SourceSpec, str]:
    return made(here, write(tmp_path, columns), **wishes)


def with_column(name: str, values: Any) -> dict[str, Any]:
    return {**sales(), name: values}


def rows() -> int:
    return len(sales()["price"])


NOT_UTF8 = pa.Array.from_buffers(pa.string(), 2400, pa.array([b"Caf\xe9"] * 2400, pa.binary()).buffers())


def test_types_keys_ranges_and_categories_are_those_of_the_sample(here: Settings, tmp_path: Path) -> None:
    spec, text = made_of(here, tmp_path, sales())
    events = spec.events
    assert (events.time_column, events.id_column) == ("sold_at", "sale_id")
    assert events.columns["sale_id"].unique
    assert events.columns["channel"].values == ("phone", "till", "web")
    assert events.columns["returned"].values == (0, 1)
    price = events.columns["price"]
    low, high = min(sales()["price"]), max(sales()["price"])
    assert price.minimum == 0 <= low
    assert 1.5 * high < price.maximum < 4 * high
    assert price.type == "float64"
    # Shops come and go: their set is open.
    assert events.columns["shop"].values is None
    assert f"{len(sales()['price']):,} rows of 2025-03-01 … 2025-04-09" in text
    assert spec.labels["returned"].feed == "events"


def test_the_first_features_aggregate_the_events_and_the_labels_of_each_entity(here: Settings, tmp_path: Path) -> None:
    spec, _ = made_of(here, tmp_path, sales())
    assert {"price", "items", "channel", "shop"} <= set(spec.features.event_columns)
    assert not {"sale_id", "sold_at", "returned"} & set(spec.features.event_columns)
    history, outcomes = spec.features.tables["shops_by_shop"], spec.features.tables["shops_by_shop_returned"]
    assert history.entity == outcomes.entity == "shop"
    assert history.windows == ("1d", "7d")
    assert {each.function for each in history.aggregations.values()} == {"count", "mean"}
    assert outcomes.label == "returned"
    assert [each.function for each in outcomes.aggregations.values()] == ["share"]


def test_lines_are_no_wider_than_those_of_the_repository(here: Settings, tmp_path: Path) -> None:
    columns = sales() | {f"a_column_with_a_long_name_{n}": sales()["price"] + n for n in range(30)}
    _, text = made_of(here, tmp_path, columns)
    assert max(map(len, text.splitlines())) <= 120


def test_a_person_names_time_id_and_entities(here: Settings, tmp_path: Path) -> None:
    columns = sales()
    columns["entered_at"] = [at + timedelta(hours=1) for at in columns["sold_at"]]
    columns["number"] = [f"n{each}" for each in columns["sale_id"]]
    spec, _ = made_of(here, tmp_path, columns, time="entered_at", id="number", entities="channel, items")
    assert (spec.events.time_column, spec.events.id_column) == ("entered_at", "number")
    assert set(spec.entities.values()) == {"channel", "items"}


def test_without_entities_there_are_no_tables(here: Settings, tmp_path: Path) -> None:
    spec, _ = made_of(here, tmp_path, sales(), entities="none")
    assert spec.features.tables == {}


def test_labels_in_a_file_of_their_own_give_a_feed_with_its_delay(here: Settings, tmp_path: Path) -> None:
    columns = sales()
    labels = {"sale_id": columns["sale_id"], "returned": columns.pop("returned")}
    labels["known_at"] = [at + timedelta(days=3) for at in columns["sold_at"]]
    path = write(tmp_path, labels, "labels.parquet")
    spec, text = made_of(here, tmp_path, columns, labels=str(path))
    assert spec.labels["returned"].feed == "labels"
    assert spec.labels["returned"].delay_days == 3
    assert spec.feeds["labels"].time_column == "known_at"
    assert "returned" not in spec.events.columns
    assert "within 3 days" in text


def test_reports_of_positives_only_make_silence_negative(here: Settings, tmp_path: Path) -> None:
    columns = sales()
    positive = columns.pop("returned") == 1
    labels = {"sale_id": columns["sale_id"][positive], "returned": np.ones(positive.sum(), np.int64)}
    labels["known_at"] = [
        at + timedelta(days=2) for at, is_in in zip(columns["sold_at"], positive, strict=True) if is_in
    ]
    spec, _ = made_of(here, tmp_path, columns, labels=str(write(tmp_path, labels, "labels.parquet")))
    assert spec.labels["returned"].unlabelled_after_delay == "negative"


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    others_in_ci(
        [
            ("amount", pa.array([Decimal("1.10"), Decimal("25.05")] * 1200, pa.decimal128(9, 2)), "decimal(9, 2)"),
            ("amount", pa.array([1, 200] * 1200, pa.uint8()), "uint8"),
            ("amount", pa.array([1, 2**40] * 1200, pa.uint64()), "uint64"),
            ("amount", pa.array([1.5, 2.5] * 1200, pa.float32()), "float32"),
            ("amount", pa.array([True, False] * 1200), "bool"),
            ("amount", pa.array([date(2025, 1, 1), date(2025, 1, 2)] * 1200), "date"),
            ("amount", pa.array([[1.0, 2.0], [3.0, 4.0]] * 1200), "list(float64, 2)"),
            ("amount", pa.array([[1.0], []] * 1200, pa.list_(pa.float32())), "list(float32)"),
            ("amount", pa.array(["a", "b"] * 1200).dictionary_encode(), "string"),
            (
                "amount",
                pa.array([datetime(2025, 1, 1, tzinfo=UTC)] * 2400, pa.timestamp("ns", "Europe/Berlin")),
                "timestamp",
            ),
            ("amount", pa.array(["2025-01-01 10:00", "2025-01-02"] * 1200), "timestamp"),
        ],
        every=3,
    ),
)
def test_each_type_of_a_file_has_its_type_in_a_spec(
    here: Settings, tmp_path: Path, name: str, values: pa.Array, expected: str
) -> None:
    spec, _ = made_of(here, tmp_path, with_column(name, values))
    assert spec.events.columns[name].type == expected


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (pa.nulls(2400), "has no values"),
        (pa.array([None] * 2400, pa.float64()), "has no values"),
        (pa.array([{"a": 1}] * 2400), "struct"),
        (pa.array([["a"]] * 2400), "list"),
        (pa.array([b"x"] * 2400), "binary"),
        (pa.array([2**63, 1] * 1200, pa.uint64()), "2⁶³"),
        (pa.array([float("inf"), 1.0] * 1200), "infinite"),
        (pa.array(["x" * 1001, "y"] * 1200), "1,001 characters"),
    ],
)
def test_a_column_that_no_spec_can_have_is_left_out_with_the_reason(
    here: Settings, tmp_path: Path, values: pa.Array, said: str
) -> None:
    spec, text = made_of(here, tmp_path, with_column("odd", values))
    assert "odd" not in spec.events.columns
    assert "# Left out: odd " in text
    assert said in text


TINY, HUGE = 5e-324, 1.7e308
#: Ranges that floats can hardly express, or not.
RANGES = {
    "whole numbers that are one float": pa.array([2**60, 2**60 + 1] * 1200),
    "all whole numbers": pa.array([2**63 - 1, -(2**63)] * 1200),
    "unsigned": pa.array([2**63 - 1, 2**63 - 2] * 1200, pa.uint64()),
    "all floats": pa.array([HUGE, -HUGE] * 1200),
    "all floats of 32 bits": pa.array([3.4e38, -3.4e38] * 1200, pa.float32()),
    "the smallest floats": pa.array([TINY, -TINY] * 1200),
    "the smallest floats of 32 bits": pa.array([1e-45, 0.0] * 1200, pa.float32()),
    "two zeros": pa.array([0.0, -0.0] * 1200),
    "neighbours": pa.array([1.0, np.nextafter(1, 2)] * 1200),
    "far from zero": pa.array(np.tile([5_412_345.25, 5_412_345.75], 1200)),
    "small": pa.array(np.tile([1e-5, 3e-5], 1200)),
    "large": pa.array(np.tile([1e20, 3e20], 1200)),
    "digits after the point only": pa.array([Decimal("1E-38"), Decimal(0)] * 1200, pa.decimal128(38, 38)),
    "decimals of all digits": pa.array([Decimal("9.99"), Decimal("-9.98")] * 1200, pa.decimal128(3, 2)),
    "decimals that are one float": pa.array([Decimal(10**37 + 1), Decimal(10**37 + 2)] * 1200, pa.decimal128(38, 0)),
    "years that Python does not have": pa.array([10**18, -(10**17)] * 1200).cast(pa.timestamp("us")),
    "days that Python does not have": pa.array([2**30, 0] * 1200, pa.int32()).cast(pa.date32()),
}


@pytest.mark.parametrize("name", others_in_ci(RANGES, every=4))
def test_no_range_of_values_is_too_odd_and_none_breaks_its_own_rules(here: Settings, tmp_path: Path, name: str) -> None:
    values = RANGES[name]
    spec, _ = made_of(here, tmp_path, with_column("odd", values))
    column = spec.events.columns["odd"]
    if column.kind in ("int", "float", "decimal"):
        assert all(column.within(value) for value in values.unique().to_pylist())


def test_a_time_that_is_far_from_the_others_is_a_long_gap(here: Settings, tmp_path: Path) -> None:
    columns = sales()
    columns["sold_at"][-1] = datetime(2060, 1, 1)
    spec, _ = made_of(here, tmp_path, columns)
    assert spec.events.maximum_gap_days > 10_000


def test_a_column_with_one_value_is_no_feature(here: Settings, tmp_path: Path) -> None:
    spec, text = made_of(here, tmp_path, with_column("country", ["CH"] * rows()))
    assert "country" in spec.events.columns
    assert "country" not in spec.features.event_columns
    assert "- country: one value" in text


def test_a_text_with_thousands_of_values_is_no_feature(here: Settings, tmp_path: Path) -> None:
    spec, _ = made_of(here, tmp_path, with_column("note", [f"note {n // 2}" for n in range(rows())]))
    assert "note" in spec.events.columns
    assert "note" not in spec.features.event_columns


def test_a_column_that_is_known_only_with_the_label_is_no_feature(here: Settings, tmp_path: Path) -> None:
    columns = sales()
    gone = np.arange(rows()) % 10 == 0
    columns["refund"] = pa.array(columns["refund"], mask=gone)
    columns["paid_out"] = pa.array(columns["price"], mask=gone)
    columns["copy"] = np.round(np.asarray(sales()["refund"]) * 2, 1)
    columns["clerk"] = pa.array([f"clerk {n % 50}" for n in range(rows())], mask=gone)
    spec, text = made_of(here, tmp_path, columns, labels="refund")
    assert not {"paid_out", "copy", "clerk"} & set(spec.features.event_columns)
    # A request that does not know its entity gets no features of it.
    assert set(spec.entities.values()) == {"shop"}
    assert "- paid_out, clerk: missing where refund is, so perhaps known only later" in text
    assert "- copy: correlation 1.00 with refund, so perhaps known only later" in text


def test_a_comment_has_large_ratios_as_whole_numbers() -> None:
    _, comment = row_count_rules({date(2025, 3, 1): 0, date(2025, 3, 2): 1, date(2025, 3, 3): 451})
    assert comment == "0 to 451 rows a day, 902 to 902 times the days before"


@pytest.mark.parametrize(
    ("kept", "incomplete"),
    [
        (lambda at: datetime(2025, 3, 1, 22) <= at, ["2025-03-01"]),
        (lambda at: at < datetime(2025, 4, 9, 3), ["2025-04-09"]),
        (lambda at: datetime(2025, 3, 1, 22) <= at < datetime(2025, 4, 9, 3), ["2025-03-01", "2025-04-09"]),
        # Few rows, but all day: a day as quiet as this may come again.
        (lambda at: at.date() != FIRST.date() or at.minute < 8, []),
    ],
)
def test_days_of_which_the_sample_lacks_a_part_make_no_rule_and_do_not_land(
    here: Settings, tmp_path: Path, kept: Callable[[datetime], bool], incomplete: list[str]
) -> None:
    columns = table(sales())
    rows = [n for n, at in enumerate(columns["sold_at"].to_pylist()) if kept(at)]
    path = write(tmp_path, columns.take(rows))
    spec, text = made(here, path)
    assert re.findall(r"lacks a part of (\S+):", text) == incomplete
    assert (spec.events.row_count == RowCount()) == bool(incomplete)
    samples = {"events": read_sample(path)}
    landed = [file.stem for file in land(tmp_path / "landing", spec, samples, days_per_file=100)]
    assert ("2025-03-01" in incomplete) == landed[0].startswith("2025-03-02")
    assert ("2025-04-09" in incomplete) == (landed[-1] == "2025-04-08")
    asked = list(land(tmp_path / "asked", spec, samples, FIRST.date(), date(2025, 4, 9), 100))
    assert asked[0].stem.startswith("2025-03-01")
    assert asked[-1].stem == "2025-04-09"


def test_a_part_of_a_date_may_have_all_of_its_values(here: Settings, tmp_path: Path) -> None:
    columns = sales()
    columns["month"] = [at.month for at in columns["sold_at"]]
    columns["year"] = [2025 + (at > FIRST + timedelta(days=20)) for at in columns["sold_at"]]
    spec, _ = made_of(here, tmp_path, columns)
    assert (spec.events.columns["month"].minimum, spec.events.columns["month"].maximum) == (1, 12)


def test_a_counter_has_no_maximum_and_is_no_feature(here: Settings, tmp_path: Path) -> None:
    spec, _ = made_of(here, tmp_path, with_column("meter", np.arange(rows()) * 3 + 5.5))
    assert spec.events.columns["meter"].maximum is None
    assert "meter" not in spec.features.event_columns


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["Total Amount", "Größe", "价格", "1st", "a-b", "a.b"],
            ["Total_Amount", "Grosse", "column_3", "column_1st", "a_b", "a_b_2"],
        ),
        (["partition", "Day", "event_timestamp"], ["partition_value", "Day_value", "event_timestamp_value"]),
        (["a b", "a_b", "A_B"], ["a_b_2", "a_b", "A_B_3"]),
        (["Straße", "Łódź", "Œuvre", "dæk"], ["Strasse", "Lodz", "OEuvre", "daek"]),
        (["_x", "", "select", "order"], ["x", "column_2", "select", "order"]),
        (["x" * 70, "x" * 71], ["x" * 63, "x" * 58 + "_2"]),
    ],
)
def test_names_become_names_that_a_spec_can_have(names: list[str], expected: list[str]) -> None:
    assert spec_names(names) == expected


def test_unusual_names_are_declared_and_landed_under_a_name_of_the_spec(here: Settings, tmp_path: Path) -> None:
    columns = sales()
    odd = {"Total Price €": "price", "order": "items", "partition": "channel", "2nd shop": "shop"}
    renamed = {next((new for new, old in odd.items() if old == name), name): each for name, each in columns.items()}
    path = write(tmp_path, renamed)
    spec, text = made(here, path)
    assert {"Total_Price", "order", "partition_value", "column_2nd_shop"} <= set(spec.events.columns)
    assert '"Total Price €" in the sample' in text
    assert landable(read_sample(path), spec.events).column_names == list(spec.events.columns)


def test_a_sample_without_an_id_gets_one_that_a_longer_file_gives_as_well(here: Settings, tmp_path: Path) -> None:
    columns = sales()
    del columns["sale_id"]
    path = write(tmp_path, columns)
    spec, text = made(here, path)
    assert spec.id_column == "event_id"
    assert "made by `make land`" in text
    ids = landable(read_sample(path), spec.events)["event_id"].to_pylist()
    assert ids[:2] == ["2025-03-01-000001", "2025-03-01-000002"]
    assert len(set(ids)) == len(ids)
    shorter = write(tmp_path, {name: values[:500] for name, values in columns.items()}, "shorter.parquet")
    assert landable(read_sample(shorter), spec.events)["event_id"].to_pylist() == ids[:500]


def test_an_id_with_repeated_values_is_named_and_not_taken(here: Settings, tmp_path: Path) -> None:
    columns = sales()
    columns["sale_id"][5] = columns["sale_id"][6]
    spec, text = made_of(here, tmp_path, columns)
    assert spec.id_column == "event_id"
    # A comment may go on in the next line.
    assert "sale_id (1 repeated or missing values)" in " ".join(text.replace("#", "").split())


def test_dates_and_texts_and_seconds_are_times(here: Settings, tmp_path: Path) -> None:
    columns = sales()
    columns["sold_at"] = [f"{at:%Y-%m-%dT%H:%M:%S}Z" for at in columns["sold_at"]]
    path = write(tmp_path, columns)
    spec, text = made(here, path)
    assert spec.events.time_column == "sold_at"
    assert "string in the sample" in text
    assert landable(read_sample(path), spec.events).schema.field("sold_at").type == pa.timestamp("us", "UTC")


def test_seconds_since_1970_are_a_time_when_a_person_says_so(here: Settings, tmp_path: Path) -> None:
    columns = sales()
    columns["sold_at"] = [int(at.replace(tzinfo=UTC).timestamp() * 1000) for at in columns["sold_at"]]
    path = write(tmp_path, columns)
    spec, _ = made(here, path, time="sold_at")
    times = landable(read_sample(path), spec.events)["sold_at"].to_pylist()
    assert times[0].date() == FIRST.date()


def test_digits_below_the_microsecond_are_cut_off(here: Settings, tmp_path: Path) -> None:
    columns = sales()
    nanoseconds = [int(at.replace(tzinfo=UTC).timestamp()) * 10**9 + 1 for at in columns["sold_at"]]
    columns["sold_at"] = pa.array(nanoseconds).cast(pa.timestamp("ns", "America/New_York"))
    path = write(tmp_path, columns)
    spec, _ = made(here, path)
    assert landable(read_sample(path), spec.events)["sold_at"][0].value % 1_000_000 == 0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.arange(2400) % 2 == 0, {"type": "bool"}),
        (np.arange(2400) % 2 * 1.0, {"type": "int64", "values": (0, 1)}),
        (np.arange(2400) % 5, {"type": "int64", "values": (0, 1, 2, 3, 4)}),
        (np.arange(2400) % 30, {"type": "int64", "values": None}),
        (np.where(np.arange(2400) % 2, "yes", "no"), {"type": "string", "values": ("no", "yes")}),
        (pa.array([None, 0, 1, 1] * 600), {"type": "int64", "values": (0, 1), "nullable": True}),
        (pa.array([Decimal("1.5"), Decimal("2.5")] * 1200, pa.decimal128(4, 1)), {"type": "decimal(4, 1)"}),
    ],
)
def test_a_label_has_the_rules_that_its_values_suggest(
    here: Settings, tmp_path: Path, values: Any, expected: dict[str, Any]
) -> None:
    spec, _ = made_of(here, tmp_path, with_column("outcome", values), labels="outcome")
    column = spec.events.columns["outcome"]
    assert {name: getattr(column, name) for name in expected} == expected


def test_a_text_label_becomes_0_and_1(here: Settings, tmp_path: Path) -> None:
    columns = with_column("outcome", np.where(sales()["returned"], "Yes", "No"))
    path = write(tmp_path, columns)
    spec, text = made(here, path, labels="outcome", positive="Yes")
    assert spec.events.columns["outcome"].values == (0, 1)
    assert "1 where the sample has 'Yes'" in text
    landed = landable(read_sample(path), spec.events, positive="Yes")
    assert landed["outcome"].to_pylist() == sales()["returned"].tolist()
    with pytest.raises(InputError, match="POSITIVE"):
        landable(read_sample(path), spec.events)


def test_one_of_several_labels_becomes_0_and_1(here: Settings, tmp_path: Path) -> None:
    columns = with_column("outcome", np.where(sales()["returned"], "Yes", "No"))
    spec, _ = made_of(here, tmp_path, columns, labels="outcome,refund", positive="Yes")
    assert spec.events.columns["outcome"].values == (0, 1)
    assert spec.events.columns["refund"].type == "float64"


def test_whole_floats_with_missing_values_are_an_entity_of_integers(here: Settings, tmp_path: Path) -> None:
    numbers = pa.array(np.arange(rows()) % 30 + 1.0, mask=np.arange(rows()) % 40 == 0)
    spec, _ = made_of(here, tmp_path, with_column("customer_id", numbers))
    column = spec.events.columns["customer_id"]
    assert (column.type, column.nullable, column.maximum) == ("int64", True, None)
    assert "customer_id" in spec.entities.values()
    assert "customer_id" not in spec.features.event_columns


def test_an_empty_field_of_a_csv_file_is_missing(here: Settings, tmp_path: Path) -> None:
    columns = table(with_column("note", [None, "a", "b"] * 800))
    csv.write_csv(columns, tmp_path / "sample.csv")
    spec, _ = made(here, tmp_path / "sample.csv")
    assert spec.events.columns["note"].nullable


def test_later_rows_of_a_large_csv_file_decide_about_types_and_fields_may_have_several_lines(
    here: Settings, tmp_path: Path
) -> None:
    columns = sales() | {"note": ["one\n, two"] * rows(), "late": [1] * (rows() - 1) + ["1.5"]}
    columns["filler"] = ["x" * 900] * rows()
    lines = [",".join(columns)]
    lines += [",".join(f'"{value}"' for value in row) for row in zip(*columns.values(), strict=True)]
    (tmp_path / "sample.csv").write_text("\n".join(lines))
    spec, _ = made(here, tmp_path / "sample.csv")
    assert spec.events.columns["late"].type == "float64"
    assert read_sample(tmp_path / "sample.csv").table["note"][rows() - 1].as_py() == "one\n, two"


def test_digits_in_a_csv_file_that_are_a_name_stay_text(here: Settings, tmp_path: Path) -> None:
    columns = sales() | {"zip": [f"{n % 90:05d}" for n in range(rows())], "price": np.arange(rows()) % 90}
    columns["sale_id"] = [str(10**19 + n) for n in range(rows())]
    csv.write_csv(table(columns), tmp_path / "sample.csv")
    spec, _ = made(here, tmp_path / "sample.csv")
    types = {name: spec.events.columns[name].type for name in ("sale_id", "zip", "price")}
    assert types == {"sale_id": "string", "zip": "string", "price": "int64"}
    assert spec.id_column == "sale_id"


def test_quiet_days_and_gaps_of_the_sample_are_allowed(here: Settings, tmp_path: Path) -> None:
    columns = table(sales())
    at = columns["sold_at"].to_pylist()
    kept = [n for n, each in enumerate(at) if each.weekday() < 5 and not 10 <= (each - FIRST).days < 22]
    spec, _ = made(here, write(tmp_path, columns.take(kept)))
    assert spec.events.row_count.minimum == 0
    assert spec.events.row_count.minimum_ratio == 0
    assert spec.events.maximum_gap_days > 12


def test_csv_and_folders_are_read(here: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    columns = table(sales())
    csv.write_csv(columns.slice(0, 1000), folder / "a.csv")
    csv.write_csv(columns.slice(1000), folder / "b.csv")
    spec, text = made(here, folder)
    assert f"{rows():,} rows" in text
    assert spec.events.columns["sold_at"].type == "timestamp"


def test_nothing_is_overwritten(here: Settings, tmp_path: Path) -> None:
    _, text = made_of(here, tmp_path, sales())
    with pytest.raises(InputError, match="exists already"):
        made_of(here, tmp_path, sales(), id="new")
    assert (here.feature_repo / "shops.yaml").read_text() == text


def empty() -> dict[str, Any]:
    return {name: values[:0] for name, values in sales().items()}


def without(*names: str) -> dict[str, Any]:
    return {name: values for name, values in sales().items() if name not in names}


@pytest.mark.parametrize(
    ("columns", "wishes", "said"),
    [
        (without("sold_at"), {}, "no column with a time in every row"),
        (with_column("sold_at", [None, FIRST] * 1200), {}, r"Columns with a time in some rows: sold_at \(1,200 rows"),
        (with_column("sold_at", ["03/04/2025 10:00"] * 2400), {"time": "sold_at"}, "not a time or text in ISO 8601"),
        (with_column("sold_at", [None, FIRST] * 1200), {"time": "sold_at"}, "missing in 1,200 of 2,400 rows"),
        (with_column("sold_at", [datetime(1960, 1, 1)] * 2400), {}, "year 1960"),
        (sales(), {"time": "price"}, "not a time"),
        (sales(), {"time": "when"}, "no column 'when'"),
        (sales(), {"labels": "wrong"}, "no column 'wrong'"),
        (sales(), {"labels": ""}, "No label is named"),
        (sales(), {"labels": "sold_at"}, "time of the event, not a label"),
        (with_column("won", [1] * 2400), {"labels": "won"}, "1 in all 2,400 rows"),
        (with_column("won", pa.nulls(2400)), {"labels": "won"}, "has no values"),
        (with_column("won", [f"w{n}" for n in range(2400)]), {"labels": "won"}, "too many to be classes"),
        (sales(), {"labels": "rating", "positive": "bad"}, "POSITIVE is 'bad', but the label rating has"),
        (sales(), {"labels": "rating,returned", "positive": "Bad"}, "No label has the value 'Bad': rating has"),
        (sales(), {"id": "shop"}, "repeated values, most often"),
        (sales(), {"id": "price"}, "an id is an integer or text"),
        (sales(), {"entities": "price"}, "an entity is an integer or text"),
        (with_column("sold_at", pa.array([2**63] * 2400, pa.uint64())), {"time": "sold_at"}, "not a time"),
        (with_column("note", NOT_UTF8), {}, "is not UTF-8: the text of note"),
        (sales(), {"entities": "returned"}, "a label, so it has no history"),
        (empty(), {}, "has no rows"),
        (sales(), {"name": "My Source"}, "not a name for a source"),
        (sales(), {"name": "flights"}, "exists already"),
        (without("sale_id"), {"labels": "labels.parquet"}, "the labels refer to one"),
    ],
)
def test_a_sample_that_cannot_be_used_has_one_clear_error(
    here: Settings, tmp_path: Path, columns: dict[str, Any], wishes: dict[str, Any], said: str
) -> None:
    before = sorted(here.feature_repo.iterdir())
    with pytest.raises(InputError, match=said) as error:
        made_of(here, tmp_path, columns, **wishes)
    assert error.value.hint
    assert sorted(here.feature_repo.iterdir()) == before


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"number": [1]}, "no column sale_id"),
        ({"sale_id": [10_000], "returned": [1]}, "known with the event belong into the file of the events"),
        ({"sale_id": ["10000"], "at": [FIRST], "returned": [1]}, "Give the id the same type"),
        ({"sale_id": [1], "at": [FIRST], "returned": [1]}, "No sale_id of"),
        ({"sale_id": [10_000], "at": [FIRST]}, "no column that could be a label"),
        ({"sale_id": [10_000] * 2, "at": [FIRST] * 2, "state": ["open"] * 2}, "no column that could be a label"),
        ({"sale_id": [10_000, None], "at": [FIRST] * 2, "returned": [1, 0]}, "sale_id is missing in 1 rows"),
    ],
)
def test_a_file_of_labels_that_cannot_be_used_has_one_clear_error(
    here: Settings, tmp_path: Path, labels: dict[str, Any], said: str
) -> None:
    path = write(tmp_path, labels, "labels.parquet")
    with pytest.raises(InputError) as error:
        made_of(here, tmp_path, sales(), labels=str(path))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("sample.parquet", b"no parquet", "cannot be read as Parquet"),
        ("sample.csv", b"", "cannot be read as CSV"),
        ("sample.csv", b"time,y,time\n2026-01-01,1,2026-01-01\n", "several columns with the name time"),
        ("sample.json", b"{}", "does not end in"),
        ("sample.csv", "id,größe\n1,2\n".encode("latin1"), "not UTF-8: the names of its columns"),
        ("sample.csv", "id,ort\n1,Köln\n".encode("latin1"), "not UTF-8: the text of ort"),
        ("sample.csv", b"id;x\n1;2\n", "';' seems to separate its fields"),
        ("sample.csv", b"id;x\n1;2,5\n", "cannot be read as CSV"),
        ("sample.csv", "id,x\n1,2\n".encode("utf-16"), "is UTF-16"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    here: Settings, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        made(here, tmp_path / name)
    with pytest.raises(InputError, match="There is no file"):
        made(here, tmp_path / "other.parquet")


def test_names_with_line_breaks_and_control_characters_stay_within_their_comments(
    here: Settings, tmp_path: Path
) -> None:
    odd = {"x\ny: [": "price", "a\x07\x85b\u2028c": "items"}
    renamed = {name: values for name, values in sales().items() if name not in odd.values()}
    spec, text = made_of(here, tmp_path, renamed | {name: sales()[of] for name, of in odd.items()})
    assert {"x_y", "a_bc"} <= set(spec.events.columns)
    assert '"x y: [" in the sample' in text
    assert '"a b c" in the sample' in text


@pytest.mark.parametrize(
    ("label", "written"), others_in_ci([("order", '"order"'), ("refunded", "refunded"), ("end", '"end"')])
)
def test_a_label_that_is_a_word_of_sql_is_quoted_in_conditions(
    here: Settings, tmp_path: Path, label: str, written: str
) -> None:
    columns = sales()
    columns[label] = columns.pop("returned")
    spec, _ = made_of(here, tmp_path, columns, labels=label)
    conditions = [
        each.condition for table in spec.features.tables.values() for each in table.aggregations.values() if table.label
    ]
    assert conditions == [f"{written} = 1"]
    assert [problem for problem in find_source_problems("shops", here) if problem.sure] == []
