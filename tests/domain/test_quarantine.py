"""Rows in quarantine can be read, whatever they hold."""

import json
from typing import Any

import pyarrow as pa
import pytest

from training.domain.quarantine import quarantine_rows, released

FAR_AS_TEXT = "1700000000000000000 (timestamp[us])"
FAR = pa.array([17 * 10**17]).cast(pa.timestamp("us"))
RAW = pa.Array.from_buffers(pa.string(), 1, pa.array([b"Caf\xe9"], pa.binary()).buffers())


@pytest.mark.parametrize(
    ("values", "written"),
    [
        (RAW, "Caf\\xe9"),
        (pa.DictionaryArray.from_arrays([0], RAW), "Caf\\xe9"),
        (pa.ListArray.from_arrays([0, 1], RAW), ["Caf\\xe9"]),
        (pa.array(["long enough to need a buffer"], pa.string_view()), "long enough to need a buffer"),
        (pa.array([b"\xff\x00"]), "\\xff\x00"),
        (FAR, FAR_AS_TEXT),
        (
            pa.StructArray.from_arrays([RAW, FAR], ["s", "t"]),
            {"s": "Caf\\xe9", "t": FAR_AS_TEXT},
        ),
        (pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), [["a", 1], ["a", 2]]),
        (pa.array([7]).cast(pa.timestamp("us", "Mars/Phobos")), "7 (timestamp[us, tz=Mars/Phobos])"),
        (pa.array([2**30], pa.int32()).cast(pa.date32()), "1073741824 (date32[day])"),
        (pa.array([2**62], pa.duration("s")), "4611686018427387904 (duration[s])"),
        (pa.array([float("nan")], from_pandas=False), "nan"),
        (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
        (pa.array([[("key", None)]], pa.map_(pa.string(), pa.int64())), [{"key": "key", "value": None}]),
        (pa.nulls(1), None),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_any_value_is_written(values: pa.Array, written: Any) -> None:
    rows = quarantine_rows(pa.table({"good": [1], "odd": values}), {0: ["a", "b"]}, "events", "2026-01-05")
    assert rows["reason"].to_pylist() == ["a; b"]
    assert json.loads(rows["row"][0].as_py()) == {"good": 1, "odd": written}


def test_a_row_that_gave_way_in_a_column_that_is_no_longer_unique_is_released() -> None:
    row = {"partition": "b", "reason": "old_id is in partition a already", "row": '{"old_id": 1}'}
    assert released([row], "a", {"old_id": {1}}) == {}
    assert released([row], "a", {"new_id": {1}}) == {"b": 1}
