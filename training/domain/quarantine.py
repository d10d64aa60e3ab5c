"""Quarantine: the rows that broke a rule, as they were delivered, and those that are there for another partition."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

#: Position of a row in the file → the rules that it breaks.
Broken = Mapping[int, Sequence[str]]

_KNOWN = re.compile(r"(.+) is in partition (\S+) already")


def known_rule(column: str, partition: str) -> str:
    """The rule that a row breaks whose value in the unique `column` the lake has from `partition`."""
    return f"{column} is in partition {partition} already"


def known_in(reason: str) -> list[tuple[str, str]]:
    """The column and the partition of every `known_rule` in the reason of a quarantined row."""
    found = [_KNOWN.fullmatch(rule) for rule in reason.split("; ")]
    return [(match[1], match[2]) for match in found if match]


def quarantine_rows(table: pa.Table, broken: Broken, feed: str, partition: str) -> pa.Table:
    """Rows of the table `quarantine`: those of `table` that are `broken`, as JSON, each with every rule it breaks."""
    rows = table.take(pa.array(broken, pa.int64())).to_pylist()
    columns = {
        "feed": [feed] * len(rows),
        "partition": [partition] * len(rows),
        "reason": ["; ".join(rules) for rules in broken.values()],
        "row": [json.dumps(row, default=str) for row in rows],
    }
    return pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns]))


def released(quarantined: Iterable[Mapping[str, str]], partition: str, held: Mapping[str, set[Any]]) -> Counter[str]:
    """Partition → its quarantined rows that gave way to a row of `partition` which is no longer there.

    `held`: unique column → the values that `partition` holds now.
    """
    free: Counter[str] = Counter()
    for row in quarantined:
        columns = [column for column, where in known_in(row["reason"]) if where == partition]
        free[row["partition"]] += any(json.loads(row["row"])[column] not in held[column] for column in columns)
    return +free
