"""What it costs to run the SQL that is generated from declared aggregations, against the same tables written by hand.

    make bench-features                   # ARGS='--days 112' for more days of payments

Each query runs in a fresh process over the payments and labels of the generator, in Parquet files: as in the features
step, for the last 31 days with their history. Measured is the query alone: CPU seconds, wall seconds, and by how much
the largest resident memory of the process grew. Both must yield the same rows.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from training.contract.base import Days
from training.contract.source_spec import load_source_spec
from training.domain.feature_sql import declared_queries
from training.settings import ROOT

START = date(2026, 1, 5)
CUSTOMERS, TERMINALS = 5_000, 10_000
SOURCE = "card_payments"
KINDS = ("by_hand", "generated")
GOAL_RATIO = 1.1
BY_HAND = ROOT / "tests" / "feature_repo" / "by_hand" / "card_payments.sql"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=76, help="days of payments, about 10,000 on each")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--query", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.query:
        kind, table, folder = args.query
        print(json.dumps(measured(kind, table, Path(folder), args.days)))
        return
    with tempfile.TemporaryDirectory(prefix="perennial-features-") as folder:
        make_data(Path(folder), args.days)
        ratios = list[float]()
        for table in load_source_spec(SOURCE).entities:
            found = {kind: list[dict[str, float]]() for kind in KINDS}
            for _ in range(args.runs):
                for kind in KINDS:
                    found[kind].append(fresh(kind, table, folder, args.days))
            same = pq.read_table(f"{folder}/by_hand.parquet") == pq.read_table(f"{folder}/generated.parquet")
            # The least of several runs: other programs only add to it.
            least = {kind: {name: min(run[name] for run in runs) for name in runs[0]} for kind, runs in found.items()}
            for kind, one in least.items():
                print(f"{table} {kind}: " + ", ".join(f"{value:,.2f} {name}" for name, value in one.items()))
            ratio = {name: least["generated"][name] / least["by_hand"][name] for name in ("CPU s", "MB")}
            ratios += ratio.values()
            print(
                f"{table}: {ratio['CPU s']:.2f} × CPU, {ratio['MB']:.2f} × memory, {'same' if same else 'OTHER'} rows"
            )
            if not same:
                sys.exit(1)
    print(f"goal: at most {GOAL_RATIO} ×; {'met' if max(ratios) <= GOAL_RATIO else 'missed'}")


def make_data(folder: Path, days: int) -> None:
    """Payments of `days` days, and the labels that were reported in them."""
    from local.generator import LABEL_DELAY, Generator

    generator, dates = Generator(customers=CUSTOMERS, terminals=TERMINALS), [START + timedelta(n) for n in range(days)]
    pq.write_table(pa.concat_tables(map(generator.events, dates)), folder / "events.parquet")
    reported = [day for day in dates if day >= START + LABEL_DELAY]
    pq.write_table(pa.concat_tables(map(generator.labels, reported)), folder / "labels.parquet")


def fresh(kind: str, table: str, folder: str, days: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.feature_sql", "--days", str(days), "--query", kind, table, folder]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measured(kind: str, table: str, folder: Path, days: int) -> dict[str, float]:
    from training.adapters.feature_engines.duckdb import DuckDb

    relations = {feed: ds.dataset(folder / f"{feed}.parquet") for feed in ("events", "labels")}
    if kind == "generated":
        query = declared_queries(load_source_spec(SOURCE))[table]
    else:
        parts = BY_HAND.read_text().split("-- table: ")
        [query] = [part.removeprefix(table) for part in parts if part.startswith(table)]
    wanted = Days.ending(START + timedelta(days=days), 31)
    query = f'SELECT * FROM ({query}\n) ORDER BY day, "{load_source_spec(SOURCE).entities[table]}"'
    memory, cpu, wall = peak(), time.process_time(), time.perf_counter()
    rows = DuckDb().execute(query, {"start": wanted.start, "end": wanted.end}, relations)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    found = {"CPU s": cpu, "wall s": wall, "MB": peak() - memory, "rows": rows.num_rows}
    pq.write_table(rows, folder / f"{kind}.parquet")
    return found


def peak() -> float:
    """The largest resident memory of this process so far, in MB. getrusage would include its parent."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
