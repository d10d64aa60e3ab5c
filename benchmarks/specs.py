"""What many sources and models cost Airflow.

    make bench-specs                       # 50 sources, 1,000 models: parses all DAGs, about a minute
    make bench-specs ARGS='--monitors'     # also runs the monitors of all models once (benchmarks/monitors.py)

Every DAG file is parsed in a process of its own, as the DAG processor does: make the DAGs, serialize them. Then one DAG
of each kind is parsed as the process of one of its tasks does, with the modules that the scheduler has imported.
Goals: all DAGs within 30 s, one after the other; a task's DAG within 100 ms.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import date, timedelta
from pathlib import Path
from statistics import median

from benchmarks.monitors import run_monitors
from testing.many_specs import many_specs
from training.settings import ROOT

GOAL_ALL, GOAL_TASK = 30.0, 0.1
#: Kind of DAG → its file in dags/, and a source or model that has one.
KINDS = {
    "landing": ("data.py", "source"),
    "data": ("data.py", "source"),
    "backfill": ("backfill.py", "source"),
    "replay_quarantine": ("replay_quarantine.py", "source"),
    "restore_online": ("restore_online.py", "source"),
    "retention": ("retention.py", "source"),
    "monitor": ("monitor.py", "model"),
    "backtest": ("backtest.py", "model"),
    "reproduce": ("reproduce.py", "model"),
    "rollback": ("rollback.py", "model"),
    "train": ("train.py", "model"),
}

#: Prints the number of DAGs that a file makes, and the seconds and CPU seconds that this took, imports left out.
PARSE = """
import json, sys, time
sys.argv.insert(1, "scheduler")
import perennial_preload
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

began, cpu = time.perf_counter(), time.process_time()
bag = DagBag(sys.argv[2], safe_mode=False)
if sys.argv[3] == "serialize":
    for dag in bag.dags.values():
        DagSerialization.to_dict(dag)
assert not bag.import_errors, bag.import_errors
print("PARSED", json.dumps([len(bag.dags), time.perf_counter() - began, time.process_time() - cpu]))
"""

#: Prints the CPU seconds of one scan of all sources' landing folders.
SCAN = """
import sys, time
from perennial_airflow.deliveries import scan_all
began = time.process_time()
scan_all(sys.argv[1], 1.0)
print(time.process_time() - began)
"""
#: Per feed: a year, one a day.
DELIVERIES = 365


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=50)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--monitors", action="store_true", help="run all monitors once on Airflow (needs PostgreSQL)")
    parser.add_argument("--minutes", type=float, default=60, help="how long the monitors may take (default: 60)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perennial-") as folder:
        home = Path(folder)
        files = many_specs(home, args.sources, args.models)
        environment = {"CT_MODELS_DIR": str(files["models_dir"]), "CT_FEATURE_REPO": str(files["feature_repo"])}
        seconds = parse_all(home, environment)
        parse_for_a_task(home, environment)
        scan_landing(home, args.sources)
        if args.monitors:
            # Airflow parses all files and writes them to its database before the monitors are due.
            run_monitors(home / "airflow", environment, args.models, args.minutes, 120 + 5 * seconds)


def parse_all(home: Path, environment: dict[str, str]) -> float:
    """Returns the seconds that all files took."""
    print("\n| DAG file | DAGs | s | CPU s |\n|---|---|---|---|")
    total = [0.0, 0.0, 0.0]
    for file in sorted((ROOT / "dags").glob("*.py")):
        found = parse(file, home, environment)
        total = [a + b for a, b in zip(total, found, strict=True)]
        print(f"| {file.name} | {found[0]:.0f} | {found[1]:.1f} | {found[2]:.1f} |", flush=True)
    print(f"| all | {total[0]:.0f} | {total[1]:.1f} | {total[2]:.1f} |")
    print(f"\nGoal: at most {GOAL_ALL:.0f} s. Load average of the machine: {os.getloadavg()[0]:.1f}")
    return total[1]


def parse_for_a_task(home: Path, environment: dict[str, str]) -> None:
    print("\n| DAG of a task | ms | CPU ms |\n|---|---|---|")
    for kind, (file, of) in KINDS.items():
        dag = {"_AIRFLOW_PARSING_CONTEXT_DAG_ID": f"{of}_000{'0' if of == 'model' else ''}_{kind}"}
        found = [parse(ROOT / "dags" / file, home, environment | dag, "only") for _ in range(5)]
        assert all(dags == 1 for dags, *_ in found)
        print(f"| {kind} | {1000 * median(f[1] for f in found):.0f} | {1000 * median(f[2] for f in found):.0f} |")
    print(f"\nGoal: at most {1000 * GOAL_TASK:.0f} ms", flush=True)


def scan_landing(home: Path, sources: int) -> None:
    """The triggerer does this once for all sources, then waits."""
    landing = home / "landing"
    for number in range(sources):
        for feed in ("events", "labels"):
            folder = landing / f"source_{number:03}" / feed
            folder.mkdir(parents=True)
            for day in range(DELIVERIES):
                (folder / f"{date(2026, 1, 1) + timedelta(days=day)}.parquet").touch()
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}"}
    command = [sys.executable, "-c", SCAN, str(landing)]
    done = subprocess.run(command, env=env, cwd=ROOT, check=True, capture_output=True, text=True)
    files = sources * 2 * DELIVERIES
    print(f"\nOne scan of the landing folder, {sources} sources, {files:,} deliveries: {float(done.stdout):.2f} CPU s")


def parse(file: Path, home: Path, environment: dict[str, str], what: str = "serialize") -> tuple[float, float, float]:
    """The number of DAGs, seconds, CPU seconds."""
    settings = {
        "AIRFLOW_HOME": str(home / "parse"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "600",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}",
    }
    command = [sys.executable, "-W", "ignore", "-c", PARSE, str(file), what]
    env = os.environ | settings | environment
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("PARSED ")]
    if not lines:
        raise SystemExit(f"{file} could not be parsed:\n{done.stderr[-2000:]}")
    dags, seconds, cpu = json.loads(lines[-1].removeprefix("PARSED "))
    return dags, seconds, cpu


if __name__ == "__main__":
    main()
