"""`python -m training.quarantine SOURCE [FEED]`: prints what is in quarantine, with reasons, counts and an example."""

import argparse
import sys
from collections import Counter

from training.adapters.lake import Lake
from training.adapters.quarantine_table import Quarantine
from training.contract.errors import ExitCode, StepError
from training.contract.source_spec import load_source_spec
from training.settings import load_settings

_EXAMPLE = 160


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or the exit code of the error."""
    parser = argparse.ArgumentParser(prog="training.quarantine")
    parser.add_argument("source")
    parser.add_argument("feed", nargs="?")
    wanted = parser.parse_args(argv)
    try:
        settings = load_settings()
        spec = load_source_spec(wanted.source, settings.feature_repo)
        if wanted.feed:
            spec.feed(wanted.feed)
        print("\n".join(listed(Lake(settings.lake, spec.name), wanted.feed)))
    except StepError as error:
        print(f"quarantine failed: {error}", file=sys.stderr)
        return error.exit_code
    return ExitCode.OK


def listed(lake: Lake, feed: str | None = None) -> list[str]:
    """A line for each feed, partition and rule with its number of rows, and one with the first of them."""
    rows: Counter[tuple[str, str, str]] = Counter()
    examples: dict[tuple[str, str, str], str] = {}
    for row in Quarantine(lake).rows("feed", "partition", "reason", "row", feeds=None if feed is None else [feed]):
        for rule in row["reason"].split("; "):
            key = (row["feed"], row["partition"], rule)
            rows[key] += 1
            examples.setdefault(key, row["row"])
    lines = []
    for key in sorted(rows):
        name, partition, rule = key
        text = examples[key]
        lines.append(f"{name} {partition}: {rows[key]:,} rows: {rule}")
        lines.append(f"    {text if len(text) <= _EXAMPLE else text[:_EXAMPLE] + '…'}")
    return lines or ["No rows are in quarantine."]


if __name__ == "__main__":
    sys.exit(main())
