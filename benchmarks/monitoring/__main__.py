"""Does monitoring find planted changes, and how often does it ask for a training when nothing has changed?

    make bench-monitoring                          # ten seeds, a year each, every change; ARGS=… for less:
    python -m benchmarks.monitoring --seeds 2 --weeks 20 --every 7 --changes zero_amounts

Payments are generated, with and without planted changes, and pass through ingest and the feature tables. A champion is
trained once per seed. Then the functions of the monitors and the broker look at the stream as of day after day. What
is generated is kept in the folder, so that a change of the tests is judged without it being made again.
"""

import argparse
import logging
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from benchmarks.monitoring.planted import KINDS
from benchmarks.monitoring.results import SeedResult, figures, table
from benchmarks.monitoring.seeds import Sizes, judged
from benchmarks.monitoring.streams import default_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=default_folder(), help="what is generated is kept here")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--weeks", type=int, default=52, help="weeks of the unchanged stream that are watched; 0: none")
    parser.add_argument("--every", type=int, default=1, help="days from look to look")
    parser.add_argument("--customers", type=int, default=1000)
    parser.add_argument("--changes", nargs="*", choices=KINDS, default=KINDS, help="only these")
    parser.add_argument("--magnitudes", nargs="*", type=float, default=[1.0, 0.5, 0.25])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    logging.basicConfig(level="ERROR", format="%(message)s")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # The seeds share the cores.
    sizes = Sizes(args.folder, args.customers, args.weeks, args.every, tuple(args.changes), tuple(args.magnitudes))
    began, results = time.monotonic(), list[SeedResult]()
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        for result in pool.map(partial(judged, sizes), range(args.first_seed, args.first_seed + args.seeds)):
            results.append(result)
            print(f"After seed {result.seed}, {result.cpu_seconds:.0f} s of CPU:\n\n{table(results)}\n", flush=True)
    print(figures(results))
    print(f"\n{sum(each.cpu_seconds for each in results):.0f} s of CPU, {time.monotonic() - began:.0f} s in all.")


if __name__ == "__main__":
    main()
