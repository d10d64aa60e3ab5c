"""Groups of rows by odd columns: every row is in one group, whatever the values are."""

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from training.contract.verdict_spec import Grouping
from training.domain.gates.groups import MOST_VALUES, groups_of


def _sizes(rows_of: Any, **grouping: Any) -> dict[str, int]:
    values = rows_of if isinstance(rows_of, pd.Series) else pd.Series(rows_of)
    groups = groups_of("x", values, Grouping(**grouping))
    rows = np.concatenate([group.rows for group in groups]) if groups else np.empty(0)
    assert sorted(rows.tolist()) == list(range(len(values))), "each row is in one group"
    return {group.name: len(group.rows) for group in groups}


@pytest.mark.parametrize(
    ("values", "grouping", "sizes"),
    [
        (["UA", "AA", "UA", None], {}, {"x is UA": 2, "x is AA": 1, "x is missing": 1}),
        # A declared value that no row has is a slice that says so; others are one group.
        (["UA", "AA"], {"values": ["UA", "OO"]}, {"x is UA": 1, "x is OO": 0, "x is another one": 1}),
        ([None, None], {}, {"x is missing": 2}),
        (pd.Series([np.nan, np.nan]), {}, {"x is missing": 2}),
        ([True, False, None], {"values": [True]}, {"x is true": 1, "x is another one": 1, "x is missing": 1}),
        (pd.Series([True, False]), {}, {"x is false": 1, "x is true": 1}),
        (
            pd.Series([1, 2, 2, None], dtype="Int64"),
            {"values": [2]},
            {"x is 2": 2, "x is another one": 1, "x is missing": 1},
        ),
        ([5.0, 10.0, np.inf, -np.inf, np.nan], {"bounds": [10]}, {"x < 10": 2, "x ≥ 10": 2, "x is missing": 1}),
        (
            [Decimal("1.5"), Decimal("7"), None],
            {"bounds": [2, 9]},
            {"x < 2": 1, "2 ≤ x < 9": 1, "x ≥ 9": 0, "x is missing": 1},
        ),
        # Text where bands are declared has no numbers.
        (["a", "b"], {"bounds": [1]}, {"x < 1": 0, "x ≥ 1": 0, "x is missing": 2}),
        ([7.0], {}, {"x is 7": 1}),
        ([], {}, {}),
    ],
)
def test_each_row_is_in_one_group(values: Any, grouping: dict, sizes: dict) -> None:
    assert _sizes(values, **grouping) == sizes


def test_a_number_with_many_values_has_quarters() -> None:
    assert list(_sizes(np.arange(100.0)).values()) == [25, 25, 25, 25]
    # Nearly all rows have one value.
    assert sum(_sizes([0.0] * 980 + list(range(20))).values()) == 1000
    assert _sizes([np.inf] * 5 + [-np.inf] * 5) == {"x is -inf": 5, "x is inf": 5}


def test_of_hundreds_of_categories_the_most_frequent_are_groups() -> None:
    values = [f"v{i}" for i in range(300)] + ["often"] * 5
    sizes = _sizes(values)
    assert len(sizes) == MOST_VALUES + 1
    assert sizes["x is often"] == 5
    assert sizes["x is another one"] == 300 - MOST_VALUES + 1
    # Ties are broken by name, not by the order of the rows.
    assert sizes.keys() == _sizes(values[::-1]).keys()
