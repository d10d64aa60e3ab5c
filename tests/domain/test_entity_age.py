"""How long entities are known: every row is looked back from as far."""

from datetime import date

import numpy as np
import pandas as pd

from training.domain.entity_age import LOOK_BACK, age_feature, ages, complete

DAY = np.datetime64("2026-03-30")
FIRST = date(2026, 1, 1)


def seen(*pairs: tuple[str, int]) -> pd.DataFrame:
    """Entities, and how many days before DAY they had an event."""
    return pd.DataFrame({"entity": [name for name, _ in pairs], "day": [DAY - back for _, back in pairs]})


def found(*rows: tuple[str | None, int], known: pd.DataFrame, first: date = FIRST) -> list[float]:
    days = np.array([DAY - back for _, back in rows])
    values = ages(pd.Series([name for name, _ in rows], dtype=object), days, known, first)
    assert values.dtype == np.float32
    return values.tolist()


def test_the_days_since_the_first_event_among_those_looked_through() -> None:
    known = seen(("a", 0), ("a", 3), ("b", 0), ("b", 28), ("b", 40), ("c", 1), ("z", 29))
    assert found(("a", 0), ("a", 1), ("b", 0), ("c", 0), known=known) == [3, 2, LOOK_BACK.days, 1]
    # Forty days before the first row of b is too long ago, and so is the only event of z.
    assert found(("b", 1), ("z", 0), ("b", 20), known=known) == [27, 0, 20]


def test_nothing_is_known_of_an_entity_that_comes_later_or_never() -> None:
    assert found(("a", 5), ("nobody", 0), known=seen(("a", 3), ("b", 0))) == [0, 0]
    assert found(("a", 5), known=seen()) == [0]


def test_a_row_without_an_entity_or_without_history_has_no_age() -> None:
    known = seen(("a", 0), ("a", 3))
    first = (DAY - LOOK_BACK.days).item()
    assert np.isnan(found((None, 0), known=known)).all()
    np.testing.assert_array_equal(found(("a", 0), ("a", 1), known=known, first=first), [3, np.nan])


def test_ages_count_where_all_rows_have_them() -> None:
    entities = {"whole": pd.Series(["a", None]), "short": pd.Series(["a", "b"])}
    values = np.array([1, np.nan], np.float32)
    assert list(complete({"whole": values, "short": values}, entities)) == ["whole"]


def test_the_name_says_what_it_is() -> None:
    assert age_feature("customer_id").name == "days since customer_id was first seen"
