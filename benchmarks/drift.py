"""What looking for drift costs: a million current rows against a million of the reference, 20 columns.

    make bench-drift                       # about two minutes, most of it making rows and the tests of scipy
    make bench-drift ARGS='--evidently'    # also Evidently's own preset on all rows, which takes minutes

The ages of the entities, of two kinds with 50,000 each, are read from a lake with five million events of five weeks.
Each column is judged as the step `drift` does, on all rows; then Evidently's page is drawn of a sample. Goals: together
within 10 s of CPU (on one core) and 2 GB; of the columns' verdicts at least 99 % are those of scipy's tests of all rows
(Kolmogorov–Smirnov for numbers, chi-square for texts) at the same level and the same minimum. Half of the columns have
changed, in 0.5 % to 10 % of their rows. The rows are independent, or scipy's tests would be wrong.
"""

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.stats import chi2_contingency, false_discovery_control, ks_2samp

from training.adapters.lake import EVENTS, Lake
from training.contract.base import Days
from training.contract.model_spec import load_model_spec
from training.contract.registries import DRIFT_TESTS
from training.domain.comparison import Rows, paired, sample
from training.domain.drift import tested
from training.domain.entity_age import LOOK_BACK, age_name
from training.entity_ages import entity_ages
from training.steps.drift import PAGE_ROWS

GOAL_SECONDS, GOAL_GB, GOAL_AGREEMENT = 10.0, 2.0, 0.99
NUMBERS, TEXTS, ENTITIES = 16, 4, 50_000
MINIMUM, CHANCE = 0.02, 0.001
#: The look is at the last week of these days, of a source with two kinds of entities.
SPEC = load_model_spec("card_fraud")
WINDOW = Days.ending(date(2026, 3, 2), 7)
LAKE_DAYS = Days(start=WINDOW.start - LOOK_BACK, end=WINDOW.end)
TIME = SPEC.source.events.time_column
#: The parts of the rows that change, column by column.
CHANGED = (0.0, 0.005, 0.0, 0.05, 0.0, 0.1)


def made(rows: int, seed: int) -> tuple[Rows, Rows]:
    """The reference and the current rows."""
    random = np.random.default_rng(seed)
    sides = []
    for now in (False, True):
        columns = {}
        for at in range(NUMBERS + TEXTS):
            moved = random.random(rows) < (CHANGED[(at + seed) % len(CHANGED)] if now else 0)
            if at < NUMBERS:
                values = random.gamma(1 + at % 4, 10, rows).astype(np.float32)
                # A value in place of others, or all values of these rows much larger.
                columns[f"number {at}"] = np.where(moved, 0 if at % 2 else 10 * values, values).astype(np.float32)
            else:
                texts = np.array([f"text {each}" for each in range(12)], dtype=object)
                columns[f"text {at}"] = texts[np.where(moved, 3, random.integers(0, 12, rows))]
        days = WINDOW if now else Days.ending(LAKE_DAYS.start, 14)
        sides.append(Rows(pd.DataFrame(columns), events(rows, days, random)))
    return sides[0], sides[1]


def events(rows: int, days: Days, random: np.random.Generator) -> pd.DataFrame:
    """Entities and times of `rows` events, in the order of their times."""
    seconds = np.arange(rows) * len(days) * 86_400 // rows
    times = pd.Timestamp(days.start, tz="UTC") + pd.to_timedelta(seconds, unit="s").as_unit("us")
    return pd.DataFrame({TIME: times} | {name: random.integers(0, ENTITIES, rows) for name in SPEC.entity_columns})


def lake_with(rows: int, folder: str) -> Lake:
    """With five weeks of events, of which `rows` are in the last."""
    lake = Lake(folder, SPEC.source.name, SPEC.name)
    found = events(rows * len(LAKE_DAYS) // len(WINDOW), LAKE_DAYS, np.random.default_rng(0))
    lake.overwrite(EVENTS, pa.Table.from_pandas(found, preserve_index=False), [])
    return lake


def with_ages(reference: Rows, current: Rows, lake: Lake) -> tuple[Rows, Rows]:
    """The reference has its ages from the dataset; those of the current rows are read from the lake."""
    assert current.keys is not None
    version = lake.version(EVENTS)
    assert version is not None
    now = {age_name(name): each for name, each in entity_ages(lake, SPEC, version, current.keys, WINDOW).items()}
    old = dict.fromkeys(now, np.float32(LOOK_BACK.days))
    return tuple(
        each._replace(columns=each.columns.assign(**ages)) for each, ages in ((reference, old), (current, now))
    )


def judge(reference: Rows, current: Rows, new: float) -> dict[str, bool]:
    """As the step does. `new`: from which share on a value that the reference lacks counts. 1: never, as for scipy."""
    sides = [paired(reference, current, SPEC.entity_columns, TIME)]
    shifts = tested(sides, DRIFT_TESTS.find("shares"), MINIMUM, CHANCE, new)
    return {name: shift.drifted for name, shift in shifts.items() if name not in SPEC.entity_columns}


def page(reference: Rows, current: Rows) -> None:
    from training.adapters.drift_report import write_drift_report

    drawn = [sample(side.columns, PAGE_ROWS, 0) for side in (reference, current)]
    with tempfile.TemporaryDirectory() as folder:
        write_drift_report(drawn[0], drawn[1], 0.3, Path(folder), {})


def by_scipy(reference: Rows, current: Rows) -> dict[str, bool]:
    """The verdicts of textbook tests on all rows."""
    p_values, effects = {}, {}
    for name in current.columns:
        old, new = reference.columns[name], current.columns[name]
        if name.startswith("number"):
            found = ks_2samp(old, new, method="asymp")
            p_values[name], effects[name] = found.pvalue, found.statistic
        else:
            counts = pd.DataFrame({"old": old.value_counts(), "new": new.value_counts()}).fillna(0)
            p_values[name] = chi2_contingency(counts.to_numpy()).pvalue
            effects[name] = (counts["old"] / len(old) - counts["new"] / len(new)).abs().max()
    adjusted = dict(zip(p_values, false_discovery_control(list(p_values.values())), strict=True))
    return {name: bool(adjusted[name] <= CHANCE and effects[name] >= MINIMUM) for name in adjusted}


def evidently_seconds(reference: Rows, current: Rows) -> float:
    """Evidently's own preset, on all rows, with the page."""
    from evidently import Report
    from evidently.presets import DataDriftPreset

    began = time.perf_counter()
    Report([DataDriftPreset()]).run(current.columns, reference.columns).get_html_str(False)
    return time.perf_counter() - began


def measured(rows: int, evidently: bool) -> dict[str, float]:
    """One look, in a process of its own: `python -m benchmarks.drift --one` prints this."""
    reference, current = made(rows, 0)
    with tempfile.TemporaryDirectory() as folder:
        lake = lake_with(rows, folder)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began, cpu = time.perf_counter(), time.process_time()
        reference, current = with_ages(reference, current, lake)
        ages, ages_cpu = time.perf_counter() - began, time.process_time() - cpu
    judge(reference, current, SPEC.monitoring.minimum_new_share)
    tests, tests_cpu = time.perf_counter() - began - ages, time.process_time() - cpu - ages_cpu
    imports = time.process_time()
    importlib.import_module("training.adapters.drift_report")
    imports = time.process_time() - imports
    page(reference, current)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {
        "ages": ages,
        "ages_cpu": ages_cpu,
        "tests": tests,
        "tests_cpu": tests_cpu,
        "seconds": seconds,
        "cpu": cpu - imports,
        "imports": imports,
    }
    found |= {"rows_gb": before / 1e6, "peak_gb": peak / 1e6}
    return found | ({"evidently": evidently_seconds(reference, current)} if evidently else {})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of each side")
    parser.add_argument("--worlds", type=int, default=5, help="in which verdicts are compared with scipy's")
    parser.add_argument("--evidently", action="store_true", help="also run Evidently's own preset on all rows")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.one:
        print(json.dumps(measured(given.rows, given.evidently)))
        return 0
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.drift", "--one", "--rows", str(given.rows)]
    more = ["--evidently"] if given.evidently else []
    # Threads of BLAS that wait for each other take CPU, too.
    one_core = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *more], stdout=subprocess.PIPE, check=True, env=one_core)
    cost = json.loads(done.stdout.splitlines()[-1])
    agreed, total = 0, 0
    for seed in range(given.worlds):
        sides = made(given.rows, seed)
        ours, theirs = judge(*sides, new=1.0), by_scipy(*sides)
        agreed, total = agreed + sum(ours[name] == theirs[name] for name in theirs), total + len(theirs)
    kinds = len(SPEC.entity_columns)
    print(f"{given.rows:,} rows against as many, {NUMBERS} numbers, {TEXTS} texts, {kinds} times {ENTITIES:,} entities")
    print(f"  ages of entities         {cost['ages']:6.1f} s ({cost['ages_cpu']:.1f} CPU s)")
    print(f"  tests of all rows        {cost['tests']:6.1f} s ({cost['tests_cpu']:.1f} CPU s)")
    print(
        f"  with Evidently's page    {cost['seconds']:6.1f} s ({cost['cpu']:.1f} CPU s), goal {GOAL_SECONDS:.0f} CPU s"
    )
    print(f"  import of Evidently      {cost['imports']:6.1f} CPU s, not counted")
    print(f"  peak memory              {cost['peak_gb']:6.2f} GB, {cost['rows_gb']:.2f} before; goal {GOAL_GB:.0f} GB")
    print(f"  verdicts as scipy's      {agreed} of {total}, goal {GOAL_AGREEMENT:.0%}")
    if given.evidently:
        print(f"  Evidently's own preset   {cost['evidently']:6.1f} s, {cost['evidently'] / cost['seconds']:.0f} times")
    met = cost["cpu"] <= GOAL_SECONDS and cost["peak_gb"] <= GOAL_GB and agreed >= GOAL_AGREEMENT * total
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
