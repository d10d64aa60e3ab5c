"""A sample is the same in memory and in SQL, in whatever order its rows lie."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from training.adapters.feature_engines.duckdb import DuckDb
from training.domain.samples import sample_sql, sampled

NUMBERS = list(range(-500, 500))
TEXTS = [f"käse {n}" for n in NUMBERS]


@pytest.mark.parametrize("values", [NUMBERS, TEXTS])
def test_the_same_rows_in_memory_and_in_sql_in_any_order(values: list[object]) -> None:
    rows = pd.DataFrame({"the id": values, "value": range(len(values))})
    wanted = sampled(rows, "the id", 100, seed=7)
    assert len(wanted) == 100
    shuffled = rows.sample(frac=1, random_state=1)
    assert sampled(shuffled, "the id", 100, seed=7).equals(wanted)
    sql = sample_sql("rows", ["the id", "value"], '"the id"', 100, 7)
    found = DuckDb().execute(sql, {}, {"rows": pa.Table.from_pandas(shuffled, preserve_index=False)})
    assert found.to_pandas().sort_values("the id", ignore_index=True).equals(wanted)
    assert not sampled(rows, "the id", 100, seed=8).equals(wanted)


def test_rows_are_drawn_by_chance_and_mostly_stay_when_more_come() -> None:
    rows = pd.DataFrame({"id": range(10_000)})
    before, after = sampled(rows.head(9_000), "id", 3_000, 1), sampled(rows, "id", 3_000, 1)
    assert np.isin(after["id"], before["id"]).mean() == pytest.approx(0.9, abs=0.02)
    assert after["id"].mean() == pytest.approx(5_000, abs=150)
    assert sampled(rows, "id", 10_000, 1).equals(rows)
