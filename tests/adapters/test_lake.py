"""The lake: replacing, appending once, and writers that meet."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable, write_deltalake

from tests.cases import others_in_ci
from training.adapters.lake import Lake
from training.contract.errors import ConfigError, DataContractError, InputError, TransientError


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "card_payments", "card_fraud")


def rows(partition: str, *values: int) -> pa.Table:
    times = [datetime(2026, 1, 5, hour, tzinfo=UTC) for hour in range(len(values))]
    schema = pa.schema([("value", pa.int64()), ("time", pa.timestamp("us", tz="UTC")), ("partition", pa.string())])
    return pa.table({"value": values, "time": times, "partition": [partition] * len(values)}, schema=schema)


def replace(lake: Lake, partition: str, *values: int) -> int:
    return lake.replace("t", rows(partition, *values), f"partition = '{partition}'", ["partition"])


def values(lake: Lake, version: int | None = None) -> list[int]:
    return sorted(lake.scan("t", version).to_table()["value"].to_pylist())


def test_a_table_that_is_not_there_has_no_version_and_cannot_be_read(lake: Lake) -> None:
    assert lake.version("t") is None
    assert lake.versions("t") == {}
    assert lake.applied("t", "a") is None
    assert lake.spans("t", "time") == []
    with pytest.raises(InputError, match="Cannot read table 't'"):
        lake.scan("t")


def test_replacing_touches_what_matches_alone(lake: Lake) -> None:
    replace(lake, "a", 1, 2)
    replace(lake, "b", 3)
    replace(lake, "a", 4)
    assert values(lake) == [3, 4]
    replace(lake, "a")
    assert values(lake) == [3]


def aged(folder: Path, days: int) -> None:
    """Make all files of a table, and what its log says of when rows were removed, look `days` days older."""
    then = time.time() - days * 86_400
    for path in folder.rglob("*"):
        if path.suffix == ".json":
            removed = r'("deletionTimestamp":)(\d+)'
            older = re.sub(removed, lambda found: f"{found[1]}{int(found[2]) - days * 86_400_000}", path.read_text())
            path.write_text(older)
        if path.is_file():
            os.utime(path, (then, then))


def test_a_checkpoint_deletes_no_old_version_of_a_table_that_model_versions_pin(lake: Lake) -> None:
    """Delta's default deletes the log's entries from 30 days before a checkpoint, and so the versions from before."""
    replace(lake, "a", 1)
    replace(lake, "a", 2)
    table = DeltaTable(lake.uri("t"))
    table.alter.set_table_properties({"delta.checkpointInterval": "3"})
    for value in range(3, 6):
        replace(lake, "a", value)
    aged(Path(lake.uri("t")), 40)
    for value in range(6, 12):
        replace(lake, "a", value)
    assert list(Path(lake.uri("t"), "_delta_log").glob("*.checkpoint.parquet"))
    assert values(lake, 1) == [1]
    assert values(lake, 2) == [2]
    assert values(lake) == [11]


def test_vacuum_spares_the_versions_to_keep_and_what_is_young(lake: Lake) -> None:
    old = [replace(lake, "a", value) for value in range(5)]
    replace(lake, "b", 100)
    aged(Path(lake.uri("t")), 40)
    young = replace(lake, "a", 50)
    newest = replace(lake, "a", 60)

    planned = lake.vacuum("t", 30 * 24, {old[1], old[3], 10_000}, dry_run=True)
    assert values(lake, old[0]) == [0]
    deleted = lake.vacuum("t", 30 * 24, {old[1], old[3], 10_000})

    assert sorted(deleted) == sorted(planned)
    assert len(deleted) == 2
    assert values(lake, old[1]) == [1]
    assert values(lake, old[3]) == [3]
    assert values(lake, young) == [50, 100]
    assert values(lake, newest) == values(lake) == [60, 100]
    for gone in (old[0], old[2]):
        with pytest.raises(DataContractError, match="is missing"):
            values(lake, gone)
    replace(lake, "a", 70)
    assert values(lake) == [70, 100]


def test_vacuum_of_no_table_does_nothing(lake: Lake) -> None:
    assert lake.vacuum("t", 30 * 24, {1}) == []


@pytest.mark.parametrize("name", ["at once", "100%", "ü", "a#b?c", "a+b"])
def test_a_lake_may_lie_in_any_folder_and_a_partition_have_any_name(tmp_path: Path, name: str) -> None:
    """delta-rs writes both percent-encoded, and the files of the newest commit are flushed and checked by us."""
    lake = Lake(str(tmp_path / name / "lake"), "card_payments", "card_fraud")
    replace(lake, name, 1, 2)
    replace(lake, "b", 3)
    assert values(lake) == [1, 2, 3]
    assert (tmp_path / name / "lake" / "card_payments" / "t" / "_delta_log").is_dir()


def test_a_version_stays_readable_and_an_unknown_one_is_bad_input(lake: Lake) -> None:
    old = replace(lake, "a", 1)
    new = replace(lake, "a", 2)
    assert (values(lake, old), values(lake, new)) == ([1], [2])
    assert lake.versions("t", "other") == {"t": new}
    with pytest.raises(InputError, match="version 99"):
        lake.scan("t", 99)


def test_a_version_that_was_scanned_is_opened_once(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = replace(lake, "a", 1), replace(lake, "a", 2)
    opened: list[int | None] = []
    load = lake.load
    monkeypatch.setattr(lake, "load", lambda table, version=None: opened.append(version) or load(table, version))
    assert [values(lake, version) for version in (new, new, old, old, None)] == [[2], [2], [1], [1], [2]]
    assert opened == [new, old, None]
    replace(lake, "a", 3)
    assert values(lake) == [3], "the newest version is another one now"


def test_a_batch_is_appended_once(lake: Lake) -> None:
    first = lake.append_once("t", rows("a", 1), ["partition"], "replica-1", 1)
    assert lake.append_once("t", rows("a", 1), ["partition"], "replica-1", 1) is None
    assert lake.append_once("t", rows("a", 9), ["partition"], "replica-1", 0) is None
    assert lake.append_once("t", rows("a", 2), ["partition"], "replica-2", 1) is not None
    assert lake.append_once("t", rows("a", 3), ["partition"], "replica-1", 2) is not None
    assert values(lake) == [1, 2, 3]
    assert first is not None
    assert lake.applied("t", "replica-1") == 2


def test_an_appended_batch_may_bring_a_column(lake: Lake) -> None:
    lake.append_once("t", rows("a", 1), ["partition"], "replica", 1)
    more = rows("a", 2).append_column("slot", pa.array(["champion"]))
    lake.append_once("t", more, ["partition"], "replica", 2)
    lake.append_once("t", rows("a", 3), ["partition"], "replica", 3)
    found = lake.scan("t").to_table()
    assert sorted(zip(found["value"].to_pylist(), found["slot"].to_pylist(), strict=True)) == [
        (1, None),
        (2, "champion"),
        (3, None),
    ]


def test_spans_tell_what_partitions_hold(lake: Lake) -> None:
    replace(lake, "a", 1, 2, 3)
    replace(lake, "b", 4)
    spans = {span.partition: span for span in lake.spans("t", "time")}
    assert (spans["a"].rows, spans["b"].rows) == (3, 1)
    assert spans["a"].earliest == datetime(2026, 1, 5, 0, tzinfo=UTC)
    assert spans["a"].newest == datetime(2026, 1, 5, 2, tzinfo=UTC)
    replace(lake, "a")
    assert [span.partition for span in lake.spans("t", "time")] == ["b"]


def test_dates_can_be_the_partition(lake: Lake) -> None:
    table = pa.table({"value": [1, 2], "day": [date(2026, 1, 5), date(2026, 1, 6)]})
    lake.replace("features", table, "day >= '2026-01-05' AND day < '2026-01-07'", ["day"])
    late = table.slice(1).set_column(0, "value", pa.array([5]))
    lake.replace("features", late, "day >= '2026-01-06' AND day < '2026-01-07'", ["day"])
    assert sorted(lake.scan("features").to_table()["value"].to_pylist()) == [1, 5]


def at_once(writers: list[Callable[[], object]]) -> int:
    """Run all at the same time; those told to retry run again afterwards. Returns how many those were."""
    retries: list[Callable[[], object]] = []
    start = threading.Barrier(len(writers))

    def write(writer: Callable[[], object]) -> None:
        start.wait()
        try:
            writer()
        except TransientError:
            retries.append(writer)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for writer in retries:
        writer()
    return len(retries)


@pytest.mark.parametrize("new", [True, False], ids=["new table", "table is there"])
def test_writers_of_different_partitions_lose_nothing(lake: Lake, new: bool) -> None:
    if not new:
        replace(lake, "0", -1)
    at_once([lambda n=n: replace(lake, str(n), n) for n in range(6)])
    assert values(lake) == list(range(6))


@pytest.mark.parametrize("round_", others_in_ci(range(5)))
def test_writers_of_one_partition_never_double_it(lake: Lake, round_: int) -> None:
    """On a table that is not there yet, too: the first commits race with its creation."""
    at_once([lambda: replace(lake, "a", 1, 2)] * 4)
    assert values(lake) == [1, 2]


def test_one_batch_appended_at_once_by_two_is_there_once(lake: Lake) -> None:
    replace(lake, "a", 0)
    for number in range(1, 6):
        batch = rows("a", number)
        at_once([lambda batch=batch, n=number: lake.append_once("t", batch, ["partition"], "replica", n)] * 3)
    assert values(lake) == [0, 1, 2, 3, 4, 5]


def test_an_overwritten_table_has_the_new_columns_and_keeps_its_earlier_versions(lake: Lake) -> None:
    first = replace(lake, "2026-01-05", 1, 2)
    renamed = pa.table({"partition": ["2026-01-06"], "amount": pa.array([0.5])})
    version = lake.overwrite("t", renamed, ["partition"], {"definition": 7})
    assert lake.scan("t", version).to_table().select(["partition", "amount"]).to_pylist() == renamed.to_pylist()
    assert lake.applied("t", "definition") == 7
    assert lake.scan("t", first).to_table().num_rows == 2


# --- schemas that change ---


def numbers(column: str, values: list, kind: pa.DataType, partition: str = "b") -> pa.Table:
    return pa.table({column: pa.array(values, kind), "partition": [partition] * len(values)})


def put(lake: Lake, rows: pa.Table) -> int:
    return lake.replace("t", rows, f"partition = '{rows['partition'][0]}'", ["partition"])


def test_a_new_column_is_null_in_old_rows_and_a_gone_one_in_new_rows(lake: Lake) -> None:
    put(lake, numbers("old", [1], pa.int64(), "a"))
    put(lake, numbers("new", ["x"], pa.string(), "b"))
    found = lake.scan("t").to_table().select(["partition", "old", "new"]).to_pylist()
    assert sorted(found, key=lambda row: row["partition"]) == [
        {"partition": "a", "old": 1, "new": None},
        {"partition": "b", "old": None, "new": "x"},
    ]


STRUCT = pa.struct([("x", pa.int64())])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ((pa.int64(), [1]), (pa.float64(), [30.57]), "column v is int64 in the table and double in the new rows"),
        ((pa.float64(), [1.5]), (pa.int64(), [2]), "column v is double in the table and int64 in the new rows"),
        ((pa.int64(), [1]), (pa.bool_(), [True]), "column v is int64 in the table and bool"),
        ((pa.string(), ["1"]), (pa.float64(), [1.5]), "column v is string in the table and double"),
        ((pa.int64(), [1]), (pa.string(), ["x"]), "column v is int64 in the table and string"),
        ((pa.int64(), [1]), (pa.uint64(), [2**64 - 1]), "column v is int64 in the table and uint64"),
        ((pa.timestamp("us", "UTC"), [0]), (pa.timestamp("us"), [0]), "timestamp[us, tz=UTC] in the table"),
        ((STRUCT, [{"x": 1}]), (pa.struct([("x", pa.float64())]), [{"x": 1.5}]), "column v.x is int64 in the table"),
    ],
)
def test_a_write_of_another_type_is_refused_with_both_named(lake: Lake, old: tuple, new: tuple, said: str) -> None:
    put(lake, numbers("v", old[1], old[0], "a"))
    version = lake.version("t")
    with pytest.raises(ConfigError, match="card_payments/t cannot take these rows") as refusal:
        put(lake, numbers("v", new[1], new[0]))
    assert said in str(refusal.value)
    with pytest.raises(ConfigError, match="cannot take these rows"):
        lake.append_once("t", numbers("v", new[1], new[0]), ["partition"], "replica", 1)
    assert lake.version("t") == version


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_the_same_values_in_another_encoding_are_taken(lake: Lake, kind: pa.DataType) -> None:
    put(lake, numbers("v", ["x"], pa.string(), "a"))
    put(lake, pa.table({"v": pa.array(["y"]).cast(kind), "partition": ["b"]}))
    put(lake, pa.table({"v": pa.nulls(1), "partition": ["c"]}))
    assert set(lake.scan("t").to_table()["v"].to_pylist()) == {"x", "y", None}


def test_structs_gain_and_lose_fields(lake: Lake) -> None:
    put(lake, numbers("event", [{"x": 1, "y": "q"}], pa.struct([("x", pa.int64()), ("y", pa.string())]), "a"))
    put(lake, numbers("event", [{"z": 1.5, "x": 2}], pa.struct([("z", pa.float64()), ("x", pa.int64())]), "b"))
    found = {row["partition"]: row["event"] for row in lake.scan("t").to_table().to_pylist()}
    assert found == {"a": {"x": 1, "y": "q", "z": None}, "b": {"x": 2, "y": None, "z": 1.5}}


def test_names_that_differ_in_capitals_alone_are_refused(lake: Lake) -> None:
    put(lake, numbers("amount", [1], pa.int64(), "a"))
    with pytest.raises(ConfigError, match="the columns amount and Amount differ only in upper and lower case"):
        put(lake, numbers("Amount", [1], pa.int64()))
    twice = pa.table([pa.array([1]), pa.array([2]), pa.array(["b"])], names=["v", "v", "partition"])
    for table in ("t", "not there yet"):
        with pytest.raises(ConfigError, match="there are two columns v"):
            lake.check(table, twice.schema)
        with pytest.raises(ConfigError, match="there are two columns v"):
            lake.replace(table, twice, "partition = 'b'", ["partition"])


FLOATS = pa.schema([("v", pa.float64()), ("partition", pa.string())])


def test_whole_numbers_become_floats_in_one_commit_that_keeps_rows_and_transactions(lake: Lake) -> None:
    lake.replace("t", numbers("v", [1, None], pa.int64(), "a"), "partition = 'a'", ["partition"], {"ingest/a": 7})
    before = put(lake, numbers("v", [2**53], pa.int64(), "b"))
    lake.check("t", FLOATS)
    assert lake.version("t") == before
    lake.widen("t", FLOATS)
    lake.widen("t", FLOATS)
    assert lake.version("t") == before + 1
    table = lake.scan("t").to_table()
    assert table.schema.field("v").type == pa.float64()
    assert set(table["v"].to_pylist()) == {1.0, None, float(2**53)}
    assert lake.applied("t", "ingest/a") == 7
    assert lake.scan("t", before).to_table().schema.field("v").type == pa.int64()
    put(lake, numbers("v", [30.57], pa.float64(), "c"))
    assert 30.57 in lake.scan("t").to_table()["v"].to_pylist()


def test_whole_numbers_that_no_float_holds_are_not_widened(lake: Lake) -> None:
    put(lake, numbers("v", [2**53 + 1], pa.int64()))
    with pytest.raises(ConfigError, match="1 whole numbers of v are too large for float64"):
        lake.check("t", FLOATS)


def test_widening_while_another_writes_loses_nothing(lake: Lake) -> None:
    put(lake, numbers("v", [0], pa.int64(), "a"))

    def write(partition: str) -> None:
        lake.widen("t", FLOATS)
        put(lake, numbers("v", [1.5], pa.float64(), partition))

    at_once([lambda name=name: write(name) for name in "bcd"])
    assert sorted(lake.scan("t").to_table()["v"].to_pylist()) == [0.0, 1.5, 1.5, 1.5]


def test_columns_that_are_not_there_yet_can_be_read_as_null(lake: Lake) -> None:
    version = put(lake, numbers("v", [1], pa.int64(), "a"))
    wanted = pa.schema([("v", pa.int64()), ("channel", pa.string())])
    assert lake.scan("t", version, wanted).to_table(["v", "channel"]).to_pylist() == [{"v": 1, "channel": None}]


# --- statistics ---


def wide(columns: int, partition: str) -> pa.Table:
    """The time comes last, and two of the columns before it are structs, whose fields count, too."""
    struct = pa.array([{f"f{n}": n for n in range(20)}] * 2)
    table = pa.table({f"v{n}": struct if n < 2 else pa.array([n, n]) for n in range(columns - 1)})
    times = [datetime(2026, 1, 5, hour, tzinfo=UTC) for hour in (3, 9)]
    table = table.append_column("time", pa.array(times, pa.timestamp("us", "UTC")))
    return table.append_column("partition", pa.array([partition] * 2))


SPAN = (2, datetime(2026, 1, 5, 3, tzinfo=UTC), datetime(2026, 1, 5, 9, tzinfo=UTC))


@pytest.mark.parametrize("columns", others_in_ci([45, 20, 300]))
def test_spans_of_a_wide_table(lake: Lake, columns: int) -> None:
    put(lake, wide(columns, "a"))
    put(lake, wide(columns, "b"))
    assert sorted(lake.spans("t", "time")) == [("a", *SPAN), ("b", *SPAN)]


def test_spans_of_a_table_that_keeps_statistics_of_its_first_32_columns(lake: Lake) -> None:
    """As all tables did that were made before the property was set."""
    rows = wide(45, "a")
    write_deltalake(lake.uri("t"), rows, partition_by=["partition"])
    assert lake.spans("t", "time") == [("a", *SPAN)]
    put(lake, wide(45, "b"))
    assert sorted(lake.spans("t", "time")) == [("a", *SPAN), ("b", *SPAN)]


def test_rows_without_a_time_have_no_span(lake: Lake) -> None:
    put(lake, wide(3, "a").set_column(2, "time", pa.nulls(2, pa.timestamp("us", "UTC"))))
    assert lake.spans("t", "time") == []


def test_a_time_column_that_no_row_has_is_a_matter_of_the_spec(lake: Lake) -> None:
    replace(lake, "a", 1)
    with pytest.raises(ConfigError, match="none has the time column 'booked_at'"):
        lake.spans("t", "booked_at")


def test_filters_know_that_a_column_is_null_in_files_from_before_it(lake: Lake) -> None:
    def put(partition: str, **columns: list[int | None]) -> None:
        arrays = {name: pa.array(values, pa.int64()) for name, values in columns.items()}
        table = pa.table({**arrays, "partition": [partition] * len(columns["id"])})
        lake.replace("t", table, f"partition = '{partition}'", ["partition"])

    put("a", id=[1, 2], old=[0, 1])
    put("b", id=[3, 4], new=[0, 1])
    put("c", id=[5], old=[None], new=[None])
    held = lake.scan("t")
    with duckdb.connect() as connection:
        connection.register("t", held)
        for filter_, sql, found in (
            (ds.field("new").is_valid(), "new IS NOT NULL", [3, 4]),
            (ds.field("new").is_null(), "new IS NULL", [1, 2, 5]),
            (ds.field("new") > 0, "new > 0", [4]),
            (ds.field("old").is_valid(), "old IS NOT NULL", [1, 2]),
            (ds.field("old").is_null() & (ds.field("partition") == "b"), "old IS NULL AND partition = 'b'", [3, 4]),
        ):
            assert sorted(held.to_table(filter=filter_)["id"].to_pylist()) == found, sql
            rows = connection.execute(f"SELECT id FROM t WHERE {sql} ORDER BY id").fetchall()
            assert rows == [(id_,) for id_ in found], sql


def test_a_scan_leaves_out_files_in_which_no_row_is_wanted(lake: Lake) -> None:
    """But for floats, of which a scan looks into every file."""
    for day, values, names in ((5, [1, 2], ["x", "y"]), (6, [3, 4], ["z", "z"])):
        columns = {"value": pa.array(values, pa.int64()), "name": names, "share": [0.5, 0.25]}
        columns["time"] = pa.array([datetime(2026, 1, day, 12, tzinfo=UTC)] * 2, pa.timestamp("us", "UTC"))
        columns["nothing"] = pa.nulls(2, pa.int64())
        put(lake, pa.table({**columns, "partition": ["ab"[day - 5]] * 2}))
    for wanted, partitions in (
        (ds.field("value") > 2, "b"),
        (ds.field("value") <= 2, "a"),
        (ds.field("value").is_null(), ""),
        (ds.field("name") == "y", "a"),
        (ds.field("time") >= datetime(2026, 1, 6, tzinfo=UTC), "b"),
        (ds.field("nothing").is_valid(), ""),
        (ds.field("share") > 5, "ab"),
    ):
        opened = {fragment.path.split("/")[0] for fragment in lake.scan("t").get_fragments(wanted)}
        assert opened == {f"partition={each}" for each in partitions}, wanted


@pytest.mark.parametrize(
    "values",
    [
        pa.array([datetime(2026, 1, 6, 12, 0, 0, 123_456, tzinfo=UTC)], pa.timestamp("us", "UTC")),
        pa.array([datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)], pa.timestamp("us", "UTC")),
        pa.array([datetime(2026, 1, 6, 12, 0, 0, 999_999)], pa.timestamp("us")),
        pa.array([date(1969, 12, 31)]),
        pa.array(["é" * 200]),
        pa.array(["\U0010ffff" * 100]),
        pa.array([""]),
        pa.array([2**63 - 1]),
        pa.array([-(2**63)]),
        pa.array([2**53 + 1]),
        pa.array([False]),
        pa.array([Decimal("12345678901234567890.123456789")]),
        pa.array([0.1 + 0.2]),
        pa.array([float("nan")]),
        pa.array([b"\x00\xff"]),
    ],
    ids=lambda values: str(values.type),
)
def test_a_scan_finds_what_a_file_has_at_the_ends_of_its_range(lake: Lake, values: pa.Array) -> None:
    """Its log has times cut to milliseconds, long texts cut, and decimals as floats."""
    put(lake, pa.table({"value": values, "partition": ["a"]}))
    found = lake.scan("t").to_table(filter=ds.field("value") == values[0])
    assert found.num_rows == pc.sum(pc.equal(values, values)).as_py()
    assert lake.scan("t").to_table(filter=ds.field("value") >= values[0])["value"].to_pylist() == (
        values.to_pylist() if found.num_rows else []
    )


def test_a_partition_from_before_the_time_column_has_no_span(lake: Lake) -> None:
    old = rows("a", 1, 2)
    put(lake, old.drop_columns("time"))
    replace(lake, "b", 3)
    assert [(span.partition, span.rows) for span in lake.spans("t", "time")] == [("b", 1)]


# --- replacing a partition batch by batch, and merging files ---


def in_batches(lake: Lake, partition: str, *batches: list[int]) -> int:
    tables = (rows(partition, *values).drop_columns("partition") for values in batches)
    return lake.replace_partition("t", rows(partition).schema, tables, {"partition": partition}, {f"in/{partition}": 1})


def test_a_partition_is_replaced_batch_by_batch_as_at_once(lake: Lake) -> None:
    in_batches(lake, "a", [1, 2], [3])
    in_batches(lake, "b", [4])
    version = in_batches(lake, "a", [5], [6, 7])
    assert version == lake.version("t")
    assert values(lake) == [4, 5, 6, 7]
    assert lake.applied("t", "in/a") == 1
    spans = {span.partition: (span.rows, span.earliest.hour, span.newest.hour) for span in lake.spans("t", "time")}
    assert spans == {"a": (3, 0, 1), "b": (1, 0, 0)}
    assert lake.scan("t").to_table(filter=ds.field("value") > 6)["value"].to_pylist() == [7]
    in_batches(lake, "a")
    assert values(lake) == [4]
    wide = rows("b", 8).append_column("new", pa.array([1.5]))
    lake.replace_partition("t", wide.schema, [wide.drop_columns("partition")], {"partition": "b"}, {"in/b": 2})
    assert lake.scan("t").to_table(["value", "new"]).to_pylist() == [{"value": 8, "new": 1.5}]


def test_an_error_among_the_batches_commits_nothing(lake: Lake) -> None:
    in_batches(lake, "a", [1])

    def torn() -> Iterator[pa.Table]:
        yield rows("a", 2).drop_columns("partition")
        raise DataContractError("the file is damaged", hint="Deliver it again.")

    with pytest.raises(DataContractError, match="damaged"):
        lake.replace_partition("t", rows("a").schema, torn(), {"partition": "a"}, {"in/a": 2})
    assert (values(lake), lake.applied("t", "in/a")) == ([1], 1)


def test_of_two_writers_of_a_partition_one_fails(lake: Lake) -> None:
    in_batches(lake, "a", [1])

    def overtaken() -> Iterator[pa.Table]:
        yield rows("a", 2).drop_columns("partition")
        in_batches(lake, "a", [3])

    with pytest.raises(TransientError, match="Another writer changed"):
        lake.replace_partition("t", rows("a").schema, overtaken(), {"partition": "a"}, {"in/a": 1})
    assert values(lake) == [3]


def on_day(day: int, *numbers: int) -> pa.Table:
    days = pa.array([date(2026, 1, day)] * len(numbers), pa.date32())
    return pa.table({"value": pa.array(numbers, pa.int64()), "day": days})


def data_files(lake: Lake) -> list[str]:
    return sorted(pa.table(DeltaTable(lake.uri("t")).get_add_actions(flatten=True))["path"].to_pylist())


def test_small_files_of_closed_days_are_merged_and_nothing_else_changes(lake: Lake) -> None:
    for number in range(9):
        lake.append_once("t", on_day(5 + number % 3, number), ["day"], "replica", number)
    before = lake.version("t")
    assert len(data_files(lake)) == 9
    assert lake.compact("t", "day", date(2026, 1, 7)) == 6
    assert [sum(f"2026-01-0{day}" in path for path in data_files(lake)) for day in (5, 6, 7)] == [1, 1, 3]
    assert values(lake) == values(lake, before) == list(range(9))
    assert lake.applied("t", "replica") == 8
    assert lake.append_once("t", on_day(5, 8), ["day"], "replica", 8) is None
    assert Path(lake.uri("t"), "_delta_log", "_last_checkpoint").exists()
    assert lake.compact("t", "day", date(2026, 1, 7)) == 0
    assert lake.compact("nothing", "day", date(2026, 1, 7)) == 0


def test_rows_that_are_appended_while_files_are_merged_are_kept(lake: Lake) -> None:
    for number in range(15):
        lake.append_once("t", on_day(5, number), ["day"], "replica", number)

    def append() -> None:
        for number in range(15, 25):
            lake.append_once("t", on_day(5 + number % 2, number), ["day"], "replica", number)

    writer = threading.Thread(target=append)
    writer.start()
    merged = sum(lake.compact("t", "day", date(2026, 1, 7)) for _ in range(3))
    writer.join()
    assert merged >= 15
    assert values(lake) == list(range(25))


def test_a_scan_of_some_days_opens_the_files_of_these_days_alone(lake: Lake) -> None:
    for number in range(9):
        lake.append_once("t", on_day(5 + number % 3, number), ["day"], "replica", number)
    wanted = (ds.field("day") >= date(2026, 1, 6)) & (ds.field("day") < date(2026, 1, 7))
    opened = [fragment.path for fragment in lake.scan("t").get_fragments(wanted)]
    assert len(opened) == 3
    assert all("2026-01-06" in path for path in opened)
