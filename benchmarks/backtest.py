"""What a backtest takes: six months of the flights of 2013, all policies, 26 trainings of a boosted tree.

    make bench-backtest       # ARGS='--weeks 8' for a short one, ARGS='--folder DIR' to keep the lake

Lands the flights of the year, computes their features, and replays `flight_delay` with LightGBM from 1 June on, with a
process for each of two cores. Prints how often each thing was computed, and the seconds that it took on the clock and
of the CPUs, worker processes included. The goal is 10 minutes for 26 weeks on two cores.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

from local.flights import DAYS, land
from testing.pipeline import Pipeline
from training.adapters.lake import Lake
from training.contract.messages import BacktestInputs, BacktestResult
from training.settings import Settings
from training.steps import backtest

SOURCE, MODEL, ESTIMATOR = "flights", "flight_delay", "lightgbm"
FROM = date(2013, 6, 1)
#: Of one backtest on the clock, for so many weeks.
GOAL_SECONDS, GOAL_WEEKS = 600, 26
PROCESSES = 2


def prepare(folder: Path) -> Settings:
    """A lake with the flights of the year and their features, unless `folder` has it."""
    settings = Settings(home=folder, tracking_uri=f"sqlite:///{folder}/mlflow.db", git_sha="benchmark")
    if "events" not in Lake(settings.lake, SOURCE, MODEL).versions("events"):
        Pipeline(settings).ingest(SOURCE, land(Path(settings.landing), SOURCE, days_per_file=len(DAYS)))
    return settings


def cpu_seconds() -> float:
    """Of this process, and of those that it has started and that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def computed(settings: Settings) -> Counter[str]:
    """What lies in the folders of the backtests, by kind."""
    files = Path(settings.work, MODEL, "backtests").glob("*/*/*.*")
    return Counter(path.parent.name for path in files if path.suffix in (".json", ".parquet"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weeks", type=int, default=GOAL_WEEKS)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--folder", type=Path, help="where the lake is, or will be")
    args = parser.parse_args()
    logging.basicConfig(level="WARNING", format="%(message)s", stream=sys.stderr)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    with tempfile.TemporaryDirectory(prefix="perennial-") as temporary:
        settings = prepare(args.folder or Path(temporary))
        before, began, used = computed(settings), time.monotonic(), cpu_seconds()
        end = FROM + timedelta(days=7 * args.weeks + 1)
        result: BacktestResult = backtest.run(
            BacktestInputs(model=MODEL, start=FROM, end=end, estimators=[ESTIMATOR], processes=args.processes),
            settings,
        )
        took, cpu, made = time.monotonic() - began, cpu_seconds() - used, computed(settings) - before
    for standing in result.standings:
        print(f"{standing.policy:12} {standing.quality:.2f}, {standing.trainings} trainings")
    print(", ".join(f"{number} {kind}" for kind, number in sorted(made.items())))
    trainings = max(1, made["trainings"])
    print(f"{took:.0f} s on the clock, {cpu:.0f} CPU s, {cpu / trainings:.1f} CPU s a training with all that it causes")
    if args.weeks == GOAL_WEEKS:
        print(f"Goal: {GOAL_SECONDS} s on the clock. {'Reached' if took <= GOAL_SECONDS else 'MISSED'}.")


if __name__ == "__main__":
    main()
