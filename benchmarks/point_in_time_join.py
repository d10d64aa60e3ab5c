"""What it costs to join features to the rows of a training set: ours against Feast's `get_historical_features`.

    make bench-join                      # generates the payments and their features, then forgets them
    make bench-join ARGS='--data DIR'    # keeps them in DIR, and uses those that are there already

Each join runs in a fresh process that has read the payments. Measured is the join alone, with the import of what it
needs: CPU seconds, wall seconds, and the largest resident memory that the process ever had. Both must give the same.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from local.generator import LABEL_DELAY, Generator
from training.adapters.lake import Lake
from training.adapters.tables import Events, covered
from training.contract.base import Days
from training.contract.messages import FeaturesInputs
from training.contract.model_spec import load_model_spec
from training.settings import Settings

SOURCE, MODEL = "card_payments", "card_fraud"
START = date(2026, 1, 5)
CUSTOMERS, TERMINALS = 5_000, 10_000
JOINS = ("ours", "feast")
GOAL_CPU_SECONDS, GOAL_GB = 6.0, 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the lake: made if it is not there")
    parser.add_argument("--days", type=int, default=112, help="days of payments, about 10,000 on each")
    parser.add_argument("--join", choices=JOINS, help=argparse.SUPPRESS)
    parser.add_argument("--values", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.join:
        print(json.dumps(measured(args.join, args.data, args.values)))
        return
    with tempfile.TemporaryDirectory(prefix="perennial-join-") as folder:
        data = args.data or Path(folder)
        if not (data / "lake").exists():
            make_data(data, args.days)
        found = {join: in_a_fresh_process(join, data, Path(folder, f"{join}.npy")) for join in JOINS}
        differ = differing_rows(*(np.load(Path(folder, f"{join}.npy")) for join in JOINS))
    print(report(found, differ))
    sys.exit(1 if differ else 0)


def make_data(home: Path, days: int) -> None:
    """Payments, labels and features of `days` days under `home`, as one version of each table."""
    from training.steps import features

    settings, generator = Settings(home=home), Generator(customers=CUSTOMERS, terminals=TERMINALS)
    lake, dates = Lake(settings.lake, SOURCE), [START + timedelta(days=n) for n in range(days)]
    reported = [day for day in dates if day >= START + LABEL_DELAY]
    for table, parts in (("events", map(generator.events, dates)), ("labels", map(generator.labels, reported))):
        rows = pa.concat_tables(parts)
        rows = rows.append_column("partition", pa.array(["all"] * len(rows)))
        lake.replace(table, rows, "partition = 'all'", ["partition"])
    inputs = FeaturesInputs(
        source=SOURCE,
        days=Days(start=START, end=dates[-1] + timedelta(days=1)),
        table_versions=lake.versions("events", "labels"),
    )
    features.run(inputs, settings)


def measured(join: str, home: Path, values: Path) -> dict[str, float]:
    """The cost of one join in this process. The features go to the file `values`."""
    from testing.feast_join import join_with_feast
    from training.adapters.features import Features

    settings, spec = Settings(home=home), load_model_spec(MODEL)
    lake = Lake(settings.lake, SOURCE)
    versions = lake.versions("events", *spec.source.entities)
    days = covered(lake, spec.source, "events", versions["events"])
    assert days is not None, f"No payments in {settings.lake}"
    rows = Events(lake, spec.source, versions["events"]).within(days)
    cpu, wall = time.process_time(), time.perf_counter()
    if join == "ours":
        made: pd.DataFrame = Features(settings, spec).historical(rows, versions).iloc[:, rows.shape[1] :]
    else:
        made = join_with_feast(settings, spec, rows, versions)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    found = {"rows": len(rows), "cpu_seconds": cpu, "wall_seconds": wall, "peak_gb": peak_gb()}
    order = np.argsort(rows[spec.source.id_column].to_numpy())
    np.save(values, made.to_numpy()[order])
    return found


def peak_gb() -> float:
    """The largest resident memory of this process. getrusage would include that of the process which started it."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / 1e9


def in_a_fresh_process(join: str, data: Path, values: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.point_in_time_join", "--join", join]
    done = subprocess.run(
        [*command, "--data", str(data), "--values", str(values)], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def differing_rows(ours: np.ndarray, feast: np.ndarray) -> int:
    return int((ours != feast).any(axis=1).sum())


def report(found: dict[str, dict[str, float]], differ: int) -> str:
    ours, feast = found["ours"], found["feast"]
    lines = [
        f"{ours['rows']:,.0f} rows; {differ:,} rows differ\n",
        "| | ours | Feast | Feast / ours | goal |",
        "|---|---|---|---|---|",
    ]
    goals = {"cpu_seconds": f"≤ {GOAL_CPU_SECONDS:g}", "wall_seconds": "", "peak_gb": f"≤ {GOAL_GB:g}"}
    for name, goal in goals.items():
        ratio = feast[name] / ours[name]
        lines.append(f"| {name.replace('_', ' ')} | {ours[name]:.2f} | {feast[name]:.2f} | {ratio:.1f} | {goal} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
