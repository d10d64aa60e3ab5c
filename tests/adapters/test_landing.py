"""Landed files: what is not whole, or not Parquet, or ambiguous is refused by name."""

import random
import re
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.adapters.landing import open_landed
from training.contract.errors import DataContractError
from training.domain.conform import FILE_TYPE

ROWS = pa.table(
    {
        "number": range(500),
        "text": ["x" * (n % 50) for n in range(500)],
        "kind": pa.array(["a", "b"] * 250).dictionary_encode(),
        "list": [[1]] * 500,
        "time": pa.array([datetime(2026, 1, 5)] * 500),
    }
)


def landed(folder: Path, content: bytes) -> pa.Table:
    path = folder / "2026-01-05.parquet"
    path.write_bytes(content)
    with open_landed(str(path), 1 << 30, folder) as found:
        return pa.concat_tables(found.batches())


def parquet(folder: Path, rows: pa.Table = ROWS, **options: object) -> bytes:
    pq.write_table(rows, folder / "rows", **options)
    return (folder / "rows").read_bytes()


@pytest.mark.parametrize(
    "content",
    [b"", b"PAR1", b"PAR1PAR1", b"id,amount\n1,2.5\n", b'{"id": 1}\n', b"\x1f\x8b\x08\x00" + bytes(100), b"PK\x03\x04"],
    ids=["empty", "half a frame", "a frame", "CSV", "JSON", "gzip", "zip"],
)
def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataContractError, match=r"2026-01-05.parquet .* is not a readable Parquet file"):
        landed(tmp_path, content)


def test_a_damaged_file_is_read_or_refused(tmp_path: Path) -> None:
    """Any byte may be wrong; nothing but the one error may come of it."""
    content, chance, refused = parquet(tmp_path, write_page_checksum=True), random.Random(0), 0
    for _ in range(200):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= chance.randrange(1, 256)
        try:
            landed(tmp_path, bytes(damaged))
        except DataContractError:
            refused += 1
    assert refused > 100


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    rows = pa.table([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "b", "a"])
    with pytest.raises(DataContractError, match="several columns with the name a; all its columns: a, b, a"):
        landed(tmp_path, parquet(tmp_path, rows))


def test_int96_says_so(tmp_path: Path) -> None:
    far = pa.table({"time": pa.array([datetime(9999, 12, 31)]), "n": [1]})
    rows = landed(tmp_path, parquet(tmp_path, far, use_deprecated_int96_timestamps=True))
    assert b"without a zone" in rows.schema.field("time").metadata[FILE_TYPE]
    assert rows["time"].to_pylist() == [datetime(9999, 12, 31)]
    assert rows.schema.field("n").metadata is None
    assert landed(tmp_path, parquet(tmp_path, far)).schema.field("time").metadata is None


def test_int96_of_spark_is_in_utc_but_for_its_old_calendar(tmp_path: Path) -> None:
    rows = pa.table({"time": pa.array([datetime(2026, 1, 5, 12)])})
    for keys, marked in ({"version": "3.5.1"}, False), ({"version": "3.5.1", "legacyINT96": ""}, True):
        named = rows.replace_schema_metadata({f"org.apache.spark.{key}": value for key, value in keys.items()})
        found = landed(tmp_path, parquet(tmp_path, named, use_deprecated_int96_timestamps=True))
        assert bool(found.schema.field("time").metadata) is marked
        assert found["time"].to_pylist() == rows["time"].to_pylist()


def test_files_without_rows_or_columns_are_read(tmp_path: Path) -> None:
    assert landed(tmp_path, parquet(tmp_path, ROWS.slice(0, 0))).schema.names == ROWS.column_names
    assert landed(tmp_path, parquet(tmp_path, pa.table({}))).num_columns == 0


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (pa.table({"b": [1.5], "a": [1]}), "its columns have another order"),
        (pa.table({"a": ["x"], "b": [1.5]}), "its a is string, not int64"),
        (pa.table({"a": [1], "c": [1.5]}), "only it has c; it lacks b"),
    ],
)
def test_part_files_of_other_columns_say_in_what_they_differ(tmp_path: Path, second: pa.Table, said: str) -> None:
    for number, rows in enumerate([pa.table({"a": [1], "b": [1.5]}), second]):
        pq.write_table(rows, tmp_path / f"{number}.parquet")
    (tmp_path / "_SUCCESS").touch()
    with (
        pytest.raises(DataContractError, match=f"1.parquet differs from the first part file: {re.escape(said)}"),
        open_landed(str(tmp_path), 10**9, tmp_path) as found,
    ):
        found.rows()
