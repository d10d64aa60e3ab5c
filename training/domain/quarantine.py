"""Quarantine: rows that broke a rule, as they were delivered, and rows that another partition already had."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

#: Position of a row in the file → the rules that it breaks.
Broken = Mapping[int, Sequence[str]]

#: The column of a replayed row with what was delivered, in JSON, when it came from quarantine.
DELIVERED = "_delivered"
#: `row` is JSON.
QUARANTINE_SCHEMA = pa.schema([(name, pa.string()) for name in ("feed", "partition", "reason", "row")])

_KNOWN = re.compile(r"(.+) is in partition (\S+) already")


def known_rule(column: str, partition: str) -> str:
    """The rule that a row breaks when the lake has its value of the unique `column` from `partition`."""
    return f"{column} is in partition {partition} already"


def known_in(reason: str) -> list[tuple[str, str]]:
    """The column and the partition of each `known_rule` in the reason of a quarantined row."""
    found = [_KNOWN.fullmatch(rule) for rule in reason.split("; ")]
    return [(match[1], match[2]) for match in found if match]


def quarantine_rows(table: pa.Table, broken: Broken, feed: str, partition: str) -> pa.Table:
    """Rows for the table `quarantine`: the `broken` rows of `table` as JSON, each with all rules that it breaks.

    Values that JSON or Python cannot hold are written as text: escaped bytes when they are not UTF-8, counts since 1970
    for times.
    """
    names = [name for name in table.column_names if name != DELIVERED]
    rows = [json.dumps({name: plain(table[name][at]) for name in names}) for at in broken]
    if DELIVERED in table.column_names:
        rows = [table[DELIVERED][at].as_py() or row for at, row in zip(broken, rows, strict=True)]
    columns = {
        "feed": [feed] * len(rows),
        "partition": [partition] * len(rows),
        "reason": ["; ".join(rules) for rules in broken.values()],
        "row": rows,
    }
    return pa.table(columns, schema=QUARANTINE_SCHEMA)


def released(quarantined: Iterable[Mapping[str, str]], partition: str, held: Mapping[str, set[Any]]) -> Counter[str]:
    """Partition → number of its quarantined rows that duplicate a value which `partition` no longer holds.

    `held`: unique column → the values that `partition` holds now. A column that is not in it is no longer unique.
    """
    free: Counter[str] = Counter()
    for row in quarantined:
        columns = [column for column, where in known_in(row["reason"]) if where == partition]
        free[row["partition"]] += any(json.loads(row["row"])[column] not in held.get(column, ()) for column in columns)
    return +free


def plain(value: pa.Scalar) -> Any:
    """A value that JSON can hold. Never raises, because an unreadable value may be why the row is quarantined."""
    if not value.is_valid:
        return None
    if isinstance(value, pa.DictionaryScalar | pa.ExtensionScalar):
        return plain(value.value)
    if isinstance(value, pa.StructScalar):
        parts = [(value.type.field(i).name, plain(value[i])) for i in range(value.type.num_fields)]
        return dict(parts) if len(dict(parts)) == len(parts) else parts
    if hasattr(value, "values"):  # Lists of every kind, and maps: lists of pairs.
        return [plain(each) for each in value.values]
    if pa.types.is_string(value.type) or pa.types.is_large_string(value.type) or pa.types.is_string_view(value.type):
        return value.as_buffer().to_pybytes().decode(errors="backslashreplace")
    try:
        return _json(value.as_py())
    except Exception:  # The error depends on the type, for example an unknown zone or a year above 9999.
        return f"{getattr(value, 'value', 'unreadable')} ({value.type})"


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, bool | int | str) else str(value)
