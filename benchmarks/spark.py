"""How the time of features and of the point-in-time join grows with the number of events, on Spark and on DuckDB.

    python -m benchmarks.spark --millions 2 8 --cores 2

Each engine works in a process of its own, on the same lake: 60 days, one partition of 10 days each, as many entities as
a source of this size has (one customer and two terminals for each 180 events). CPU seconds of Spark include its server.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from testing.spark_server import lacking, spark_server
from training.adapters.lake import Lake
from training.contract.base import Days
from training.contract.messages import FeaturesInputs
from training.domain.feature_engine import LakeRows, TimedRows
from training.settings import Settings

SOURCE, START, DAYS, PER_PARTITION = "card_payments", date(2026, 1, 1), 60, 10
TIME = pa.timestamp("us", tz="UTC")
#: Events that are joined to their features: a training set, which fits one machine.
JOINED = 1_000_000


def write_lake(settings: Settings, events: int) -> None:
    """Events and labels of DAYS days, partition by partition."""
    lake, random, entities = Lake(settings.lake, SOURCE), np.random.default_rng(0), max(events // 180, 10)
    each = events * PER_PARTITION // DAYS
    for n, first in enumerate(range(0, DAYS, PER_PARTITION)):
        ids = pa.array(np.arange(n * each, (n + 1) * each))
        begin = np.datetime64(START + timedelta(days=first), "us")
        times = begin + np.sort(random.integers(0, PER_PARTITION * 86_400_000_000, each)).astype("m8[us]")
        name = f"{START + timedelta(days=first)}_{START + timedelta(days=first + PER_PARTITION - 1)}"
        partition = pa.array([name]).take(pa.array(np.zeros(each, np.int64)))
        rows = {
            "transaction_id": ids,
            "event_time": pa.array(times).cast(TIME),
            "customer_id": random.integers(0, entities, each),
            "terminal_id": random.integers(0, 2 * entities, each),
            "amount": random.integers(1, 50_000, each) / 100,
            "partition": partition,
        }
        labels = {
            "transaction_id": ids,
            "is_fraud": (random.random(each) < 0.01).astype(np.int64),
            "reported_at": pa.array(times + np.timedelta64(7, "D")).cast(TIME),
            "partition": partition,
        }
        for table, columns in (("events", rows), ("labels", labels)):
            lake.replace(table, pa.table(columns), f"partition = '{name}'", ["partition"])


def measure(home: Path, engine: str, url: str) -> dict[str, float]:
    """Seconds: all days of features, three days again, and the join."""
    from training.contract.registries import FEATURE_ENGINES
    from training.steps import features

    settings = Settings(home=home, engine=engine, engine_url=url)
    lake, found = Lake(settings.lake, SOURCE), dict[str, float]()
    versions = lake.versions("events", "labels")
    for name, days in (("all days", DAYS + 1), ("3 days", 3)):
        begun = time.perf_counter()
        end = START + timedelta(days=DAYS + 1)
        wanted = Days(start=end - timedelta(days=days), end=end)
        features.run(FeaturesInputs(source=SOURCE, days=wanted, table_versions=versions), settings)
        found[name] = time.perf_counter() - begun
    chosen = FEATURE_ENGINES.find(engine)(url)
    events = lake.scan("events").head(JOINED, columns=["customer_id", "event_time"])
    rows = LakeRows(lake.uri("customer_features"), lake.scan("customer_features"), "day", START, end)
    columns = ["customer_count_1d", "customer_count_30d", "customer_mean_30d"]
    timed = TimedRows(rows, {"customer_id": "customer_id"}, "feature_timestamp", columns, ttl=timedelta(days=7))
    begun = time.perf_counter()
    joined = chosen.newest(events, "event_time", timed)
    found["join"] = time.perf_counter() - begun
    found["joined rows"] = len(joined) - joined[columns[0]].null_count
    found["peak GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


def in_own_process(home: Path, engine: str, url: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.spark", "--measure", str(home), engine, url]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, nargs="+", default=[2, 8])
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--memory", default="4g", help="of Spark's process")
    parser.add_argument("--engines", nargs="+", default=["duckdb", "spark"])
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(Path(given.measure[0]), *given.measure[1:])))
        return
    if "spark" in given.engines and (reason := lacking()):
        sys.exit(f"Spark {reason}")
    print(
        f"{'events':>8} {'engine':>8} {'all days':>9} {'3 days':>8} {'join':>8} {'CPU s':>8} {'step GB':>8}   {now()}"
    )
    for millions in given.millions:
        with tempfile.TemporaryDirectory(prefix="perennial-bench-spark-") as folder:
            homes = {engine: Path(folder, engine) for engine in given.engines}
            for home in homes.values():
                write_lake(Settings(home=home), int(millions * 1e6))
            for engine, home in homes.items():
                before = cpu_seconds()
                if engine == "spark":
                    with spark_server(given.cores, given.memory) as url:
                        found = in_own_process(home, engine, url)
                else:
                    found = in_own_process(home, engine, "")
                used = cpu_seconds() - before
                times = f"{found['all days']:9.1f} {found['3 days']:8.1f} {found['join']:8.1f}"
                print(f"{millions:7g}M {engine:>8} {times} {used:8.1f} {found['peak GB']:8.2f}", flush=True)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


if __name__ == "__main__":
    main()
