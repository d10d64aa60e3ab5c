"""`python -m testing.chaos [--kills 50] [--seed 0]`: kills processes of a loop with SIGKILL at random moments.

The loop (testing/chaos_loop.py) is run once without a kill and then as often as it takes for all kills, each time in a
new folder. Every time it must end with the same lake, ledger and champion as without. `--keep`: the folder to use; what
is in it afterwards shows what happened.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from testing.chaos_loop import ChaosLoop, DidNotConverge, Kill

#: Which process is killed: of ten kills so many.
TARGETS = ["step"] * 6 + ["mlflow"] * 2 + ["serving"] * 2
#: How many tries of a step, and rounds of traffic, meet a kill.
SHARE = 0.7


class _Diary:
    """Prints what happens and counts the kills. Times are seconds since the start."""

    def __init__(self) -> None:
        self._began, self.kills = time.monotonic(), 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def say(self, line: str) -> None:
        self.kills += line.startswith("kill")
        number = f"{self.kills:3}. " if line.startswith("kill") else "     "
        print(f"{self.seconds:7.1f} s  {number}{line}", flush=True)


def chaos(kills: int, seed: int, folder: Path) -> None:
    """Raises DidNotConverge, with the part of the state that differs."""
    diary, chance, loops = _Diary(), random.Random(seed), 0
    quiet = ChaosLoop(_made(folder / "undisturbed"), lambda activity: None)
    expected = _sound(quiet.run())
    steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in quiet.seconds.items())
    diary.say(f"undisturbed: champion {expected['champion']}. Seconds: {steps}")

    def plan(activity: str) -> Kill | None:
        # All numbers are drawn each time, so that one missed kill does not change those of the next.
        meets, after = chance.random() < SHARE, chance.uniform(0, quiet.seconds[activity])
        kill = Kill(after, chance.choice(TARGETS), chance.random())
        return kill if meets and diary.kills < kills else None

    while diary.kills < kills:
        loops += 1
        diary.say(f"loop {loops} of seed {seed}")
        found = ChaosLoop(_made(folder / f"loop{loops}"), plan, diary.say).run()
        _compare(expected, found)
        diary.say(f"loop {loops} has converged: {_counts(found)}")
    print(f"{diary.kills} kills in {loops} loops, {diary.seconds:.0f} s: all ended as without a kill", flush=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _sound(state: dict[str, Any]) -> dict[str, Any]:
    """The state of an undisturbed loop. Raises DidNotConverge when something is wrong with it already."""
    if state["champion"] is None:
        raise DidNotConverge("The undisturbed loop has no champion")
    for part in ("problems of served predictions", "ledger problems", "parts of files"):
        if state.get(part):
            raise DidNotConverge(f"The undisturbed loop has {part}: {state[part]}")
    return state


def _compare(expected: dict[str, Any], found: dict[str, Any]) -> None:
    if different := [part for part, value in expected.items() if found[part] != value]:
        shown = {part: _difference(expected[part], found[part]) for part in different}
        raise DidNotConverge(f"The loop ended differently: {json.dumps(shown, indent=1)}")


def _difference(expected: Any, found: Any) -> Any:
    """The parts of two values that differ, cut short."""
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
        return {key: _difference(expected.get(key), found.get(key)) for key in sorted(keys)}
    if isinstance(expected, list) and isinstance(found, list):
        missing = [str(each)[:500] for each in expected if each not in found]
        more = [str(each)[:500] for each in found if each not in expected]
        return {"missing": missing[:5], "more": more[:5], "lengths": [len(expected), len(found)]}
    return {"expected": str(expected)[:500], "found": str(found)[:500]}


def _counts(state: dict[str, Any]) -> str:
    rows = ", ".join(f"{len(each)} {table}" for table, each in state["lake"].items())
    batch = f", {len(state['predictions in batch'])} predictions in batch" if "predictions in batch" in state else ""
    return f"{rows}{batch}, {len(state['ledger'])} entries in the ledger, champion {state['champion']}"


def main(argv: list[str] | None = None) -> int:
    """Returns 0 when every loop converged."""
    parser = argparse.ArgumentParser(prog="testing.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder that does not exist yet")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="chaos.") as folder:
        try:
            chaos(args.kills, args.seed, args.keep or Path(folder))
        except DidNotConverge as error:
            print(f"✗ {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
