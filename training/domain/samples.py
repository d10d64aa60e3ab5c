"""Which rows a sample has: those with the smallest digests of their key and a seed.

So a sample is the same wherever it is drawn and in whatever order the rows lie, and one that is drawn again after a few
more rows have come keeps most of its rows.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from training.domain.sql_names import quoted


def sample_sql(
    relation: str, columns: Sequence[str], key: str, maximum: int, seed: int, where: str = "", then: Sequence[str] = ()
) -> str:
    """The SELECT of the `columns` of at most `maximum` rows of `relation`, in the order of the sample.

    `key` is the SQL of an integer or a text, `columns` are names. Rows with one key are ordered by the columns `then`.
    """
    order = ", ".join([f"md5(CAST({key} AS VARCHAR) || ':{seed}')", key, *map(quoted, then)])
    chosen = ", ".join(map(quoted, columns))
    return f"SELECT {chosen} FROM {relation} {where and f'WHERE {where}'} ORDER BY {order} LIMIT {maximum}"


def sampled(rows: pd.DataFrame, key: str, maximum: int, seed: int) -> pd.DataFrame:
    """The rows that `sample_sql` chooses, of `rows` in memory with distinct keys, in the order of their keys."""
    if len(rows) > maximum:
        digests = [hashlib.md5(f"{each}:{seed}".encode(), usedforsecurity=False).hexdigest() for each in rows[key]]
        rows = rows.iloc[np.argsort(np.array(digests))[:maximum]]
    return rows.sort_values(key, ignore_index=True)
