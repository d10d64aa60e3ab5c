"""What the local stack costs while nothing happens: CPU seconds of each program, as a share of one core.

    make bench-idle                     # about four minutes; measure on a quiet machine
    make bench-idle ARGS='--seconds 300'

Starts a stack with ports and a state folder of its own and an empty landing folder, waits until its programs have
settled, then reads /proc (Linux only). Goal: at most 15 % of a core for all programs together.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil

from local.place import Place, Ports
from local.program import NAME, members
from local.stack import Stack
from testing.ports import free_ports

GOAL = 15.0
#: The stack has settled when two windows of this many seconds in a row differ by less than `NOISE` percent of a core.
WINDOW, NOISE = 15.0, 3.0
#: Then it is measured anyway.
LONGEST_WAIT = 300.0
#: The name of what carries no program name in its environment: supervisord itself.
SUPERVISOR = "supervisord"

#: pid and start time → the program's name, and the CPU seconds of the process and of its children that have ended.
Usage = dict[tuple[int, float], tuple[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure (default: 60)")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="perennial-") as folder:
        home = Path(folder)
        stack = Stack(Place(home, home / "landing", Ports(*free_ports(3))))
        try:
            stack.start(_say)
            _say("Waiting until the programs have settled")
            settle(home)
            _say(f"Measuring for {seconds:.0f} s")
            report(measure(home, seconds))
        finally:
            stack.stop()


def settle(home: Path) -> None:
    """Return when the stack's CPU share no longer falls."""
    deadline = time.monotonic() + LONGEST_WAIT
    last = sum(measure(home, WINDOW).values())
    while time.monotonic() < deadline:
        share = sum(measure(home, WINDOW).values())
        if abs(share - last) < NOISE:
            return
        last = share
    _say(f"The stack has not settled after {LONGEST_WAIT:.0f} s; something may still run")


def measure(home: Path, seconds: float) -> dict[str, float]:
    """Program → percent of one core over the next `seconds`."""
    before, began = usage(home), time.monotonic()
    time.sleep(seconds)
    used, passed = spent(before, usage(home)), time.monotonic() - began
    return {program: 100 * cpu / passed for program, cpu in used.items()}


def spent(before: Usage, after: Usage) -> dict[str, float]:
    """Program → the CPU seconds that it used between two moments."""
    used: dict[str, float] = {}
    for process, (program, total) in after.items():
        used[program] = used.get(program, 0.0) + total - before.get(process, ("", 0.0))[1]
    # A parent's total holds all that its ended children used, also before this began.
    for process, (program, total) in before.items():
        if process not in after and program in used:
            used[program] = max(0.0, used[program] - total)
    return used


def usage(home: Path) -> Usage:
    """The CPU seconds so far of every process of the stack in `home`."""
    found: Usage = {}
    for process in members(str(home)):
        try:
            times = process.cpu_times()
            total = times.user + times.system + times.children_user + times.children_system
            found[process.pid, process.create_time()] = (process.environ().get(NAME, SUPERVISOR), total)
        except psutil.Error:
            continue
    return found


def report(shares: dict[str, float]) -> None:
    print("\n| program | % of a core |\n|---|---|")
    for program, share in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"| {program} | {share:.1f} |")
    print(f"| all | {sum(shares.values()):.1f} |")
    load = os.getloadavg()[0]
    print(f"\nGoal: at most {GOAL:.0f} % in total. Load average of the machine over the last minute: {load:.1f}")


def _say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
