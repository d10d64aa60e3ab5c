"""Convert a landed table to the types of the spec.

A row with a value that the type cannot hold is quarantined. A partition with a column of another kind of type is
refused.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.contract.model_spec import Column, FeedSpec
from training.domain.casts import TAKES, cast, may_cast

#: Key in the metadata of a field: the name of its type in the file, when Arrow's type does not tell it.
FILE_TYPE = b"file_type"


class Conformed(NamedTuple):
    """The feed's columns in the spec's order and types. Missing values are null, and so are values that do not fit.

    `landed`: the rows as delivered, with the spec's spelling of the names. `unfit`: column → rule → positions of the
    rows whose value does not fit its type. `problems`: a sentence for each column that is missing or cannot be
    converted. `table` does not have these columns.
    """

    table: pa.Table
    landed: pa.Table
    unfit: dict[str, dict[str, list[int]]]
    problems: list[str]


def conform(landed: pa.Table, feed: FeedSpec) -> Conformed:
    """Convert the feed's columns of `landed`, whose column names are distinct, to the spec's types.

    NaN becomes null. A time without a zone is UTC.
    """
    columns: dict[str, pa.ChunkedArray] = {}
    unfit: dict[str, dict[str, list[int]]] = {}
    problems: list[str] = []
    names, landed = landed.column_names, _spelled(landed, feed)
    for name, column in feed.columns.items():
        if name not in landed.column_names:
            problems.append(_missing(name, names))
        elif FILE_TYPE in (landed.field(name).metadata or {}) or not may_cast(landed.field(name).type, column.parsed):
            problems.append(_another_kind(landed, name, column))
        else:
            columns[name], broken = cast(name, landed[name], column.parsed)
            rows = {rule: positions(where) for rule, where in broken.items()}
            unfit[name] = {rule: at for rule, at in rows.items() if at}
    if not set(feed.columns) <= set(landed.column_names):
        # Second: a log shows the beginning of a long line, and an error message the first problems only.
        problems.insert(1, f"the columns of the file are {', '.join(names) or '(none)'}")
    return Conformed(pa.table(columns), landed, unfit, problems)


def _spelled(landed: pa.Table, feed: FeedSpec) -> pa.Table:
    """`landed` with the spec's spelling of names that differ from it in upper and lower case only.

    A name stays as it is when the file has several that differ in case only, or the spec's own.
    """
    names, wanted = landed.column_names, {name.lower(): name for name in feed.columns}
    folded = [name.lower() for name in names]
    return landed.rename_columns(
        [wanted.get(low, name) if folded.count(low) == 1 else name for name, low in zip(names, folded, strict=True)]
    )


def positions(mask: pa.ChunkedArray) -> list[int]:
    """The positions where `mask` is true. pyarrow's `indices_nonzero` crashes on a column without rows and chunks."""
    found: list[int] = np.flatnonzero(pc.fill_null(mask, False).to_numpy()).tolist()
    return found


def _missing(name: str, names: list[str]) -> str:
    alike = [repr(other) for other in names if other.strip().lower() == name.lower()]
    if not alike:
        return f"column {name} is missing"
    rule = "names must be equal, but for upper and lower case, and only one may be meant"
    return f"column {name} is missing (the file has {', '.join(alike)}: {rule})"


def _another_kind(landed: pa.Table, name: str, column: Column) -> str:
    field = landed.field(name)
    found = (field.metadata or {}).get(FILE_TYPE, str(field.type).encode()).decode()
    sentence = f"column {name} is not of type {column.type}: the file has {found}"
    return f"{sentence}{_example(landed[name])}; {column.type} takes {TAKES[column.kind]}"


def _example(values: pa.ChunkedArray) -> str:
    """The first value, for a message. Empty when there is none, or when Python cannot show it."""
    try:
        first = next((i for i, valid in enumerate(values.is_valid().to_pylist()) if valid), None)
        return "" if first is None else f", for example {str(values[first].as_py())[:50]!r} in row {first}"
    except Exception:  # The error depends on the type, for example a year above 9999.
        return ""
