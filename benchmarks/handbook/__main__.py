"""The Fraud Detection Handbook's protocol A: ours beside the published numbers.

    make bench-handbook DATA=dir     # the folder of the daily Parquet files, 2018-04-01.parquet …
    make bench-handbook DATA=dir ARGS=--search     # with parameters that are searched for on earlier weeks

Prints our metrics and the published ones, the ratios to the goals, and the seconds of every step. Nothing is kept.
"""

import argparse
import logging
import os
import tempfile
from datetime import timedelta
from pathlib import Path

from benchmarks.handbook import searched
from benchmarks.handbook.protocol_a import (
    AS_OF,
    PUBLISHED,
    WINDOW_DAYS,
    Loop,
    history_start,
    report,
    settings_under,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of the handbook's daily Parquet files")
    parser.add_argument("--search", action="store_true", help="search for parameters on the weeks before")
    parser.add_argument("--trials", type=int, default=25, help="of each estimator's search")
    parser.add_argument("--minutes", type=float, default=20, help="of each estimator's search")
    parser.add_argument("--verbose", action="store_true", help="show what the steps log")
    args = parser.parse_args()
    logging.basicConfig(level="WARNING", format="%(message)s")
    logging.getLogger("perennial").setLevel("INFO" if args.verbose else "WARNING")
    # As the runner does for a step of its own process.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    with tempfile.TemporaryDirectory(prefix="perennial-") as folder:
        if args.search:
            print(searched.run(args.data, Path(folder), args.trials, args.minutes))
            return
        loop = Loop(settings_under(Path(folder)))
        loop.land(args.data, history_start(AS_OF, WINDOW_DAYS), AS_OF - timedelta(days=8))
        print(report(loop.judge(AS_OF, WINDOW_DAYS, list(PUBLISHED)), loop.watch))


if __name__ == "__main__":
    main()
