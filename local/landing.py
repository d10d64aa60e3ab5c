"""Writes files into a landing folder, atomically: `<landing>/<source>/<feed>/<partition>.parquet`."""

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from training import atomic
from training.contract.base import Days

_TIME = pa.timestamp("us", tz="UTC")
#: The columns of the feeds of the source card_payments.
EVENTS_SCHEMA = pa.schema(
    [
        ("transaction_id", pa.int64()),
        ("event_time", _TIME),
        ("customer_id", pa.int64()),
        ("terminal_id", pa.int64()),
        ("amount", pa.float64()),
    ]
)
LABELS_SCHEMA = pa.schema([("transaction_id", pa.int64()), ("is_fraud", pa.int64()), ("reported_at", _TIME)])


def land_table(rows: pa.Table, landing: Path, source: str, feed: str, days: Days) -> Path:
    """Write `rows` as the partition named after `days`. A watcher sees the complete file or none."""
    last = days.end - timedelta(days=1)
    name = f"{days.start}" if last == days.start else f"{days.start}_{last}"
    path = landing / source / feed / f"{name}.parquet"
    with atomic.replacing(path) as draft:
        pq.write_table(rows, draft)
    return path


def split(days: Days, per_file: int) -> list[Days]:
    """Split `days` into spans of `per_file` days; the last may be shorter."""
    starts = range(0, len(days), per_file)
    return [
        Days(start=days.start + timedelta(days=at), end=min(days.start + timedelta(days=at + per_file), days.end))
        for at in starts
    ]


def positive(text: str) -> int:
    """Parse a command line argument: a whole number above zero. Raises ValueError for anything else."""
    number = int(text)
    if number < 1:
        raise ValueError(f"{text} is not above zero")
    return number
