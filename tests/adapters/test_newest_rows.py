"""The rows that go online: of each entity the newest."""

from datetime import UTC, datetime

import pyarrow as pa

from training.adapters.features.online_rows import newest_of_each


def test_of_each_entity_the_row_with_the_last_time_is_taken_whatever_the_order_of_the_rows() -> None:
    times = pa.array([datetime(2026, 1, day, tzinfo=UTC) for day in (3, 1, 2, 2, 4)], pa.timestamp("us", "UTC"))
    parts = [pa.table({"key": ["a", "b", "a", "b", "c"], "feature_timestamp": times, "value": [1, 2, 3, 4, 5]})] * 2
    # Two chunks, of which the second one begins in the middle.
    rows = pa.concat_tables([parts[0].slice(0, 2), parts[1].slice(2)])
    assert newest_of_each(rows, "key").select(["key", "value"]).to_pylist() == [
        {"key": "a", "value": 1},
        {"key": "b", "value": 4},
        {"key": "c", "value": 5},
    ]


def test_no_rows_have_no_newest() -> None:
    schema = pa.schema([("key", pa.int64()), ("feature_timestamp", pa.timestamp("us", "UTC"))])
    assert newest_of_each(schema.empty_table(), "key").num_rows == 0
