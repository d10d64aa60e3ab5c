"""What each step's process spends before the step begins: the interpreter, the contract, the step's own module.

    make bench-imports

The heavy libraries are imported where a step first needs them, so their cost is measured apart: a step pays for those
that its path takes. Printed beside the bare interpreter as a ratio; medians of `--repeat` processes.
"""

import argparse
import statistics
import subprocess
import sys
import time

from training.contract.steps import STEPS

#: What steps import while they run, and which.
LIBRARIES = {
    "great_expectations": "ingest",
    "duckdb": "features",
    "feast": "materialize, dataset, drift",
    "sklearn.ensemble": "train",
    "torch": "train (mlp)",
    "mlflow": "train, evaluate, register, rollout, rollback, drift, performance",
    "evidently": "drift",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    bare = seconds("pass", repeat)
    print(f"Bare interpreter: {bare:.2f} s\n\n| step | ready to begin, s | × bare |\n|---|---|---|")
    for step in STEPS:
        code = f"import training.runner; from training.contract.steps import step_spec; step_spec({step!r}).load()"
        taken = seconds(code, repeat)
        print(f"| {step} | {taken:.2f} | {taken / bare:.0f} |", flush=True)
    print("\n| library, when used | import, s | × bare | steps |\n|---|---|---|---|")
    for library, steps in LIBRARIES.items():
        taken = seconds(f"import {library}", repeat)
        print(f"| {library} | {taken:.2f} | {taken / bare:.0f} | {steps} |", flush=True)


def seconds(code: str, repeat: int) -> float:
    """The median wall time of a fresh interpreter that runs `code`."""
    taken = []
    for _ in range(repeat):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
