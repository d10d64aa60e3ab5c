"""Writes files into a landing folder, atomically: `<landing>/<source>/<feed>/<partition>.parquet`."""

import argparse
import sys
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from training import atomic
from training.contract.base import Days
from training.contract.errors import InputError

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


def landing_parser(program: str, description: str, source: str) -> argparse.ArgumentParser:
    """The options of a program that lands the days of a data set as `source`."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("--landing", type=Path, required=True, help="the landing folder")
    parser.add_argument("--source", default=source)
    parser.add_argument("--start", type=date.fromisoformat, help="the first UTC day of events (default: all)")
    parser.add_argument("--end", type=date.fromisoformat, help="the last UTC day of events (default: all)")
    parser.add_argument("--days-per-file", type=positive, default=1)
    return parser


def print_landed(paths: Iterable[Path]) -> int:
    """Print each of `paths` when it has landed, or why one cannot. Returns the exit code."""
    try:
        for path in paths:
            print(path)
    except InputError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def positive(text: str) -> int:
    """Parse a command line argument: a whole number above zero. Raises ValueError for anything else."""
    number = int(text)
    if number < 1:
        raise ValueError(f"{text} is not above zero")
    return number
