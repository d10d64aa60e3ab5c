"""What the steps that move data cost, beside what public tools need for the same work on the same files.

    make bench-data                    # 1,819,688 generated payments: 60 days, 10,000 customers, 20,000 terminals
    make bench-data DATA=dir           # the Fraud Detection Handbook's payments, from its daily Parquet files

Each step and each floor runs in a fresh process. The CPU seconds are those of all its threads. A step imports its
libraries as it goes: they are imported before, and counted apart. `rows/s` are rows per CPU second, without imports and
with all that lies between the lake and the store. Redis works in a process of its own, which is not counted. Peak is
the largest resident memory of the step's process, imports included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from testing.redis_server import running_redis
from training.contract.base import Days

SOURCE = "card_payments"
START, DAYS, CUSTOMERS, TERMINALS, PAYMENTS_PER_DAY = date(2026, 1, 5), 60, 10_000, 20_000, 3.0
FEW_DAYS = 3
MODEL_DAYS = 30


class Measure(NamedTuple):
    """One row of the table: the step's run, its floor's, and the goal: CPU seconds, or rows per CPU second."""

    name: str
    ours: dict[str, float]
    floor: dict[str, float]
    goal: str
    #: How much of the floor's work the step does.
    share: float = 1.0
    is_rate: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="the folder of the handbook's daily Parquet files")
    parser.add_argument("--days", type=int, default=DAYS, help="days of generated payments")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perennial-data-") as folder:
        home = Path(folder)
        days = landed(home / "landing", args.data, args.days)
        print(report(list(measures(home, days)), days), flush=True)


def landed(landing: Path, data: Path | None, days: int) -> Days:
    """Land the payments as one file, and their labels as another one."""
    if data is not None:
        from local.handbook import convert

        files = list(convert(data, landing, SOURCE, days_per_file=1000))
        first, last = next(path.stem for path in files if path.parent.name == "events").split("_")
        return Days(start=date.fromisoformat(first), end=date.fromisoformat(last) + timedelta(days=1))
    from local.generator import LABEL_DELAY, Generator, land

    generator = Generator(0, CUSTOMERS, TERMINALS, payments_per_day=PAYMENTS_PER_DAY)
    found = Days(start=START, end=START + timedelta(days=days))
    land(generator, landing, SOURCE, "events", found)
    land(generator, landing, SOURCE, "labels", Days(start=START + LABEL_DELAY, end=found.end))
    return found


def measures(home: Path, days: Days) -> Iterator[Measure]:
    files = {feed: next((home / "landing" / SOURCE / feed).glob("*.parquet")) for feed in ("events", "labels")}

    def ingest(feed: str) -> dict[str, float]:
        return step(home, "ingest", {"feed": feed, "partition": files[feed].stem, "uri": str(files[feed])})

    yield Measure("ingest, events", ingest("events"), floor(home, "ingest", str(files["events"])), "≤ 4 s")
    yield Measure("ingest, labels", ingest("labels"), floor(home, "ingest", str(files["labels"])), "")
    all_days, few = Days(start=days.start, end=days.end + timedelta(days=1)), Days.ending(days.end, FEW_DAYS)
    arrays = floor(home, "features", *map(str, files.values()))
    yield Measure(f"features, {len(days)} days", step(home, "features", {"days": all_days}), arrays, "≤ 4 s")
    yield Measure(
        f"features, {FEW_DAYS} days", step(home, "features", {"days": few}), arrays, "≤ 1 s", FEW_DAYS / len(days)
    )
    stock = floor(home, "feast", "sqlite")
    for name in ("empty", "full"):
        yield Measure(f"materialize, SQLite, {name}", step(home, "materialize", {}), stock, "≥ 100,000 rows/s", 1, True)
    ready = floor(home, "ready_rows")
    yield Measure("SQLite alone, rows are ready", ready, stock, "the bound of Feast's layout", 1, True)
    with running_redis(home) as port:
        url, stock = f"redis://127.0.0.1:{port}/1", floor(home, "feast", f"redis://127.0.0.1:{port}/2")
        for name in ("empty", "full"):
            ours = step(home, "materialize", {}, url)
            yield Measure(f"materialize, Redis, {name}", ours, stock, "≥ 100,000 rows/s", 1, True)
    inputs = {"as_of": days.end, "window_days": MODEL_DAYS}
    yield Measure("dataset", step(home, "dataset", inputs), floor(home, "join"), "≤ 6 s, ≤ 1.5 GB")
    reads = {how: floor(home, "month", how) for how in ("commits", "merged", "plain")}
    for how in ("commits", "merged"):
        yield Measure(f"a month of predictions, {how}", reads[how], reads["plain"], "≤ 1 s")
    yield Measure("import of Feast", floor(home, "quick_import"), floor(home, "stock_import"), "≤ 2 s")


def step(home: Path, name: str, inputs: dict[str, Any], online: str = "") -> dict[str, float]:
    return _fresh("step", str(home), name, json.dumps(inputs, default=_plain), online)


def floor(home: Path, name: str, *arguments: str) -> dict[str, float]:
    return _fresh("floor", str(home), name, *arguments)


def _fresh(*arguments: str) -> dict[str, float]:
    print(f"… {' '.join(arguments[:1] + arguments[2:3])}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "benchmarks.data.measured", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Days) else value.isoformat()


def report(found: list[Measure], days: Days) -> str:
    lines = [
        f"{found[0].ours['rows']:,.0f} payments of {days}\n",
        "| step | ours | floor | ratio | imports, CPU s | peak, MB | goal |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in found:
        ours, floor = each.ours["cpu"], each.floor["cpu"] * each.share
        if each.is_rate:
            ours, floor = each.ours["rows"] / ours, each.floor["rows"] / floor
        cells = [f"{value:,.0f} rows/s" if each.is_rate else f"{value:.2f} s" for value in (ours, floor)]
        costs = [f"{each.ours['imports']:.2f}", f"{each.ours['peak']:,.0f}", each.goal]
        lines.append(f"| {each.name} | {' | '.join(cells)} | {ours / floor:.1f} | {' | '.join(costs)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
