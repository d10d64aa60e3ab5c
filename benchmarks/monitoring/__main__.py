"""Does monitoring find planted changes, and how often does it ask for a training when nothing has changed?

    make bench-monitoring                          # ten seeds, a year each, every change; ARGS=… for less:
    python -m benchmarks.monitoring --seeds 2 --weeks 20 --every 7 --changes zero_amounts
    python -m benchmarks.monitoring --label-customers 0    # without the larger streams
    python -m benchmarks.monitoring --table        # only print what a run with the same arguments has found so far

Payments are generated, with and without planted changes, and pass through ingest and the feature tables. A champion is
trained once per seed. Then the functions of the monitors and the broker look at the stream as of day after day. What is
generated is kept in the folder, so that a change of the tests is judged without it being made again. So are the results
of each seed, as long as the code is the same: a killed run resumes.

Changes that only labels show are measured on larger streams too, as at 1,000 customers a new fraud of 0.3 % of all
events is two victims a week. Ten of 40,000 customers take about 70 minutes of CPU with a look a week, and 5 GB.
"""

import argparse
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from benchmarks.monitoring.kept import kept, kept_or_judged
from benchmarks.monitoring.planted import KINDS, all_planted, label_planted
from benchmarks.monitoring.results import SeedResult, figures, table
from benchmarks.monitoring.seeds import Sizes
from benchmarks.monitoring.streams import default_folder

#: So many that the fall by a new kind of fraud, 0.3 % of all events, is beyond chance.
LABEL_CUSTOMERS = 40_000


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=default_folder(), help="what is generated is kept here")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--weeks", type=int, default=52, help="weeks of the unchanged stream that are watched; 0: none")
    parser.add_argument("--every", type=int, default=1, help="days from look to look")
    parser.add_argument("--customers", type=int, default=1000, help="0: only the larger streams")
    parser.add_argument("--label-customers", type=int, default=LABEL_CUSTOMERS, help="of the larger streams; 0: none")
    parser.add_argument("--changes", nargs="*", choices=KINDS, default=KINDS, help="only these")
    parser.add_argument("--magnitudes", nargs="*", type=float, default=[1.0, 0.5, 0.25])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="seeds at a time")
    parser.add_argument("--label-jobs", type=int, default=1, help="the same for the larger streams")
    parser.add_argument("--table", action="store_true", help="measure nothing, print what is kept")
    args = parser.parse_args(given)
    measured = _measured(args)
    watched = min((each.watched_days for sizes, _ in measured for each in sizes.planted), default=args.every)
    if not 1 <= args.every <= watched:
        parser.error(f"--every {args.every}: a change is watched for {watched} days, so give 1 to {watched}")
    logging.basicConfig(level="ERROR", format="%(message)s")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # The seeds share the cores.
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    if args.table:
        found = [(sizes.customers, kept(sizes, seeds)) for sizes, _ in measured]
        results = [result for _, each in found for result in each]
        print(f"{table(results)}\n\n{figures(results)}")
        for customers, each in found:
            missing = sorted({*seeds} - {result.seed for result in each}) or "none"
            print(f"{customers:,} customers: not measured yet, or with other code: seeds {missing}")
        return
    began, results = time.monotonic(), list[SeedResult]()
    for sizes, jobs in measured:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            for result in pool.map(partial(kept_or_judged, sizes), seeds):
                results.append(result)
                print(f"After seed {result.seed}, {result.cpu_seconds:.0f} s of CPU:\n\n{table(results)}\n", flush=True)
    print(figures(results))
    print(f"\n{sum(each.cpu_seconds for each in results):.0f} s of CPU, {time.monotonic() - began:.0f} s in all.")


def _measured(args: argparse.Namespace) -> list[tuple[Sizes, int]]:
    """What is measured, and how many seeds at a time."""
    found = []
    if args.customers:
        planted = tuple(dict.fromkeys(all_planted(args.changes, args.magnitudes)))
        found.append((Sizes(args.folder, args.customers, args.weeks, args.every, planted), args.jobs))
    if args.label_customers and (planted := tuple(label_planted(args.changes))):
        found.append((Sizes(args.folder, args.label_customers, 0, args.every, planted), args.label_jobs))
    return found


if __name__ == "__main__":
    main()
