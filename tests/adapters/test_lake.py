"""The lake: replacing, appending once, and writers that meet."""

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from training.adapters.lake import Lake
from training.contract.errors import InputError, TransientError


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), "card_fraud")


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


def test_a_version_stays_readable_and_an_unknown_one_is_bad_input(lake: Lake) -> None:
    old = replace(lake, "a", 1)
    new = replace(lake, "a", 2)
    assert (values(lake, old), values(lake, new)) == ([1], [2])
    assert lake.versions("t", "other") == {"t": new}
    with pytest.raises(InputError, match="version 99"):
        lake.scan("t", 99)


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


@pytest.mark.parametrize("round_", range(5))
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
