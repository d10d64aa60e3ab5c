"""What many small commits cost the table of predictions, and what merging its files brings.

    python -m benchmarks.small_files --commits 1845 --days 30

Appends predictions in small commits, as replicas do, reads a month of scores, merges the files and reads again.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from training.adapters.lake import PREDICTIONS, Lake
from training.contract.base import midnight
from training.contract.model_spec import load_model_spec
from training.domain.predictions import event_type, prediction_schema

FIRST = date(2026, 1, 5)


def rows(schema: pa.Schema, day: date, count: int, number: int) -> pa.Table:
    """Predictions of one day, with the columns that a scan reads."""
    columns = {
        "prediction_id": pa.array([f"{number}-{at}" for at in range(count)]),
        "predicted_at": pa.array([midnight(day)] * count, schema.field("predicted_at").type),
        "day": pa.array([day] * count, pa.date32()),
        "model_version": pa.array([1] * count),
        "role": pa.array(["champion"] * count),
        "outputs": pa.array([[("score", 0.5)]] * count, schema.field("outputs").type),
    }
    return pa.table({each.name: columns.get(each.name, pa.nulls(count, each.type)) for each in schema}).cast(schema)


def filled(folder: str, commits: int, days: int, count: int) -> Lake:
    """A lake whose predictions came in so many commits of `count` rows over so many days."""
    schema = prediction_schema(event_type(load_model_spec("card_fraud")))
    lake = Lake(folder, "card_payments", "card_fraud")
    for number in range(commits):
        day = FIRST + timedelta(days=number * days // commits)
        lake.append_once(PREDICTIONS, rows(schema, day, count, number), ["day"], "replica", number)
    return lake


def scan(lake: Lake, days: int) -> tuple[float, int]:
    """Seconds to open the table and read the scores of a month, and the rows."""
    began = time.perf_counter()
    wanted = (ds.field("day") >= FIRST) & (ds.field("day") < FIRST + timedelta(days=days))
    found = lake.scan(PREDICTIONS).to_table(["model_version", "outputs"], filter=wanted).num_rows
    return time.perf_counter() - began, found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.small_files")
    parser.add_argument("--commits", type=int, default=1845)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rows", type=int, default=50, help="of a commit")
    wanted = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        lake = filled(folder, wanted.commits, wanted.days, wanted.rows)
        _print(lake, wanted.days, f"{wanted.commits} commits")
        began = time.process_time()
        merged = lake.compact(PREDICTIONS, "day", FIRST + timedelta(days=wanted.days))
        _print(lake, wanted.days, f"{merged} files merged in {time.process_time() - began:.1f} CPU s")
    return 0


def _print(lake: Lake, days: int, what: str) -> None:
    files = len(list(lake.scan(PREDICTIONS).get_fragments()))
    seconds, found = min(scan(lake, days) for _ in range(3))
    size = sum(path.stat().st_size for path in Path(lake.uri(PREDICTIONS), "_delta_log").iterdir())
    print(f"{what}: {files} files, log {size / 1e6:.1f} MB, {found:,} rows of {days} days read in {seconds:.2f} s")


if __name__ == "__main__":
    sys.exit(main())
