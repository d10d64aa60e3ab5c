"""CPU seconds and peak memory of ingest, for files of several sizes: `python -m benchmarks.ingest 1819688 20000000`.

Each file is one partition of 60 days of events like the generator's, in row groups of a million rows; `--one-group`
makes one row group of all. Each ingest is a process of its own; imports are included.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.settings import ROOT

DAYS, PARTITION = 60, "2026-01-05_2026-03-05"
_FIRST = int(np.datetime64("2026-01-05", "us").astype(np.int64))
_PART = 1_000_000
#: Prints the CPU seconds and the largest memory of the process in MB.
_PROGRAM = """
import json, resource, sys
from pathlib import Path
from training.contract.messages import IngestInputs
from training.settings import Settings
from training.steps.ingest import run

home, inputs = sys.argv[1:]
result = run(IngestInputs(**json.loads(inputs)), Settings(home=Path(home)))
used = resource.getrusage(resource.RUSAGE_SELF)
(peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print("MEASURED", json.dumps([result.rows_kept, used.ru_utime + used.ru_stime, int(peak) / 1024]))
"""


def write_events(path: Path, rows: int, one_group: bool) -> None:
    chance, part = np.random.default_rng(0), rows if one_group else _PART
    writer: pq.ParquetWriter | None = None
    for first in range(0, rows, part):
        ids = np.arange(first, min(first + part, rows))
        times = _FIRST + (ids * (DAYS * 86_400 / rows) * 1e6).astype(np.int64)
        columns = {
            "transaction_id": ids,
            "event_time": pa.array(times).cast(pa.timestamp("us", "UTC")),
            "customer_id": chance.integers(0, 10_000, len(ids)),
            "terminal_id": chance.integers(0, 20_000, len(ids)),
            "amount": np.round(chance.lognormal(3, 1, len(ids)), 2),
        }
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=rows)
    if writer:
        writer.close()


def measured(rows: int, one_group: bool) -> tuple[int, float, float, float]:
    """Rows that were kept, CPU seconds, MB of memory, MB of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{PARTITION}.parquet")
        write_events(path, rows, one_group)
        inputs = {"source": "card_payments", "feed": "events", "partition": PARTITION, "uri": str(path)}
        command = [sys.executable, "-c", _PROGRAM, f"{folder}/home", json.dumps(inputs)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        (found,) = re.findall(r"^MEASURED (.*)$", done.stdout, re.MULTILINE)
        kept, cpu, memory = json.loads(found)
        return kept, cpu, memory, path.stat().st_size / 1e6


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.ingest")
    parser.add_argument("rows", type=int, nargs="*", default=[1_819_688, 20_000_000])
    parser.add_argument("--one-group", action="store_true", help="one row group for the whole file")
    wanted = parser.parse_args(argv)
    print(f"{'rows':>12} {'file MB':>8} {'CPU s':>7} {'rows/CPU s':>11} {'peak MB':>8}")
    for rows in wanted.rows:
        kept, cpu, memory, size = measured(rows, wanted.one_group)
        print(f"{kept:>12,} {size:>8,.0f} {cpu:>7.1f} {kept / cpu:>11,.0f} {memory:>8,.0f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
