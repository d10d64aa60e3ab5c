"""Quarantine: the rows that broke a rule, as they were delivered, and those that are there for another partition."""

import json
import math
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
    """Rows of the table `quarantine`: those of `table` that are `broken`, as JSON, each with every rule it breaks.

    What JSON or Python cannot hold is written as text: bytes that are no UTF-8 escaped, times as counts since 1970.
    """
    rows = [{name: _plain(table[name][at]) for name in table.column_names} for at in broken]
    columns = {
        "feed": [feed] * len(rows),
        "partition": [partition] * len(rows),
        "reason": ["; ".join(rules) for rules in broken.values()],
        "row": [json.dumps(row) for row in rows],
    }
    return pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns]))


def released(quarantined: Iterable[Mapping[str, str]], partition: str, held: Mapping[str, set[Any]]) -> Counter[str]:
    """Partition → its quarantined rows that gave way to a row of `partition` which is no longer there.

    `held`: unique column → the values that `partition` holds now. Nothing has to give way in other columns any more.
    """
    free: Counter[str] = Counter()
    for row in quarantined:
        columns = [column for column, where in known_in(row["reason"]) if where == partition]
        free[row["partition"]] += any(json.loads(row["row"])[column] not in held.get(column, ()) for column in columns)
    return +free


def _plain(value: pa.Scalar) -> Any:
    """One value as JSON can hold it. Never raises: a value that cannot be read may be why the row is here."""
    if not value.is_valid:
        return None
    if isinstance(value, pa.DictionaryScalar | pa.ExtensionScalar):
        return _plain(value.value)
    if isinstance(value, pa.StructScalar):
        parts = [(value.type.field(i).name, _plain(value[i])) for i in range(value.type.num_fields)]
        return dict(parts) if len(dict(parts)) == len(parts) else parts
    if hasattr(value, "values"):  # Lists of every kind, and maps: lists of pairs.
        return [_plain(each) for each in value.values]
    if pa.types.is_string(value.type) or pa.types.is_large_string(value.type) or pa.types.is_string_view(value.type):
        return value.as_buffer().to_pybytes().decode(errors="backslashreplace")
    try:
        return _json(value.as_py())
    except Exception:  # Each type has its own: an unknown zone, a year beyond 9999.
        return f"{getattr(value, 'value', 'unreadable')} ({value.type})"


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, bool | int | str) else str(value)
