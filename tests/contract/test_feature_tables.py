"""Declared feature tables: what is refused when a spec is loaded, and what its features are called."""

from typing import Any

import pytest
from pydantic import ValidationError

from training.contract.columns import Column
from training.contract.conditions import condition_mistake, is_never_null, qualified
from training.contract.feature_tables import FeatureTable, table_mistakes

COLUMNS = {
    "shop": Column(type="string"),
    "amount": Column(type="float64"),
    "pieces": Column(type="int64", nullable=True),
    "order": Column(type="string"),
}
LABELS = {"late": Column(type="int64", values=(0, 1))}


def table(**changes: Any) -> FeatureTable:
    aggregations = {"visits": {"function": "count"}, "mean": {"function": "mean", "column": "amount"}}
    fields = {"entity": "shop", "ttl_days": 7, "windows": ["1d", "7d"], "aggregations": aggregations, **changes}
    return FeatureTable.model_validate({name: value for name, value in fields.items() if value is not None})


def test_features_are_named_by_aggregation_and_window_in_the_order_of_the_spec() -> None:
    slow = {"function": "max", "column": "amount", "windows": ["7d"], "default": None}
    found = table(aggregations={"visits": {"function": "count"}, "dearest": slow}).features()
    assert [(each.name, each.default) for each in found] == [("visits_1d", 0), ("visits_7d", 0), ("dearest_7d", None)]


def test_without_events_the_time_since_the_last_is_the_window() -> None:
    found = table(aggregations={"idle": {"function": "time_since_last"}}).features()
    assert [each.default for each in found] == [24, 168]
    [missing, _] = table(aggregations={"idle": {"function": "time_since_last", "default": None}}).features()
    assert missing.default is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"windows": ["12h"]}, "windows has 12h, but rows are daily"),
        ({"windows": ["1d", "24h"]}, "one length twice"),
        ({"windows": ["99999d"]}, "a window of more than 36,500 days"),
        ({"windows": []}, "windows is missing"),
        ({"windows": ["1w"]}, r"windows\.0"),
        ({"ttl_days": None}, "ttl_days is missing"),
        ({"history_days": 3}, "history_days is set, but the aggregations decide it"),
        ({"aggregations": None}, "aggregations is missing, and so is history_days"),
        ({"aggregations": None, "history_days": 8}, "ttl_days is set, but the table has no aggregations"),
        ({"aggregations": {"a": {"function": "sum"}}}, "column is missing, but sum needs one"),
        ({"aggregations": {"a": {"function": "count", "column": "amount"}}}, "column is set, but count counts events"),
        ({"aggregations": {"a": {"function": "share"}}}, "condition is missing, but share needs one"),
        ({"aggregations": {"a": {"function": "median", "column": "amount"}}}, "should be 'count', 'sum'"),
        ({"aggregations": {"a": {"function": "count", "windows": ["30d"]}}}, "has 30d, which the table's windows"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        table(**changes)


@pytest.mark.parametrize(
    ("aggregation", "place", "said"),
    [
        ({"function": "sum", "column": "order"}, "aggregations.a.column", "a column of type string; sum takes numbers"),
        ({"function": "mean", "column": "price"}, "aggregations.a.column", "'price', which is not one of the columns"),
        (
            {"function": "count", "condition": "price > 1"},
            "aggregations.a.condition",
            "uses 'price', which is not one of",
        ),
        (
            {"function": "count", "condition": "late = 1"},
            "label",
            "is missing, but the aggregations use the label late",
        ),
    ],
)
def test_columns_and_their_types_are_checked(aggregation: dict[str, Any], place: str, said: str) -> None:
    [(where, what, _)] = table_mistakes({"t": table(aggregations={"a": aggregation})}, COLUMNS, LABELS)
    assert where == f"features.tables.t.{place}"
    assert said in what


def test_the_label_may_be_used_where_the_table_names_it() -> None:
    aggregations = {
        "late_share": {"function": "share", "condition": "late = 1"},
        "late_mean": {"function": "mean", "column": "late"},
    }
    assert not list(table_mistakes({"t": table(label="late", aggregations=aggregations)}, COLUMNS, LABELS))
    [(where, what, _)] = table_mistakes({"t": table(label="early")}, COLUMNS, LABELS)
    assert where == "features.tables.t.label"
    assert "'early'" in what


def test_names_are_used_once() -> None:
    found = list(table_mistakes({"t": table(), "u": table()}, COLUMNS, LABELS))
    # One for each aggregation, whatever the number of its windows.
    assert [place for place, *_ in found] == [f"features.tables.u.aggregations.{name}" for name in ("visits", "mean")]
    assert "visits_1d, as features.tables.t.aggregations.visits does" in found[0][1]
    [(_, what, _)] = table_mistakes({"t": table(windows=["1d"])}, {**COLUMNS, "Visits_1d": Column(type="int64")}, {})
    assert "the name of an event column" in what


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("amount > 1; DROP TABLE events", "has '; DROP TAB'"),
        ("amount > 1 -- rest", "has '-- rest'"),
        ("amount > $start", "has '$start'"),
        ("amount > (SELECT 1)", "uses 'SELECT'"),
        ("amount > current_date", "uses 'current_date'"),
        ("amount > 1) OR (amount < 0", "parentheses"),
        ("(amount > 1", "parentheses"),
        ("1 = 1", "uses no column"),
        ("\"Order\" = 'it''s' AND prder = 1", "uses 'prder'"),
    ],
)
def test_a_condition_is_an_expression_of_columns(condition: str, said: str) -> None:
    mistake = condition_mistake(condition, COLUMNS)
    assert mistake is not None
    assert said in mistake[0]


def test_columns_in_conditions_are_quoted_and_texts_are_not_touched() -> None:
    condition = "upper(ORDER_) = 'ORDER_' AND Amount BETWEEN 1 AND 2e3 AND \"order\" IN ('amount', 'it''s') IS NOT NULL"
    columns = {**COLUMNS, "order_": Column(type="string")}
    assert condition_mistake(condition, columns) is None
    assert qualified(condition, {name: f'e."{name}"' for name in columns}) == (
        "upper(e.\"order_\") = 'ORDER_' AND e.\"amount\" BETWEEN 1 AND 2e3 AND e.\"order\" IN ('amount', 'it''s')"
        " IS NOT NULL"
    )


@pytest.mark.parametrize(
    ("condition", "never"),
    [
        ("amount > 1 AND shop = 'a'", True),
        ("pieces > 1", False),
        ("amount / 2 > 1", False),
        ("abs(amount) > 1", False),
        ("CASE WHEN amount > 1 THEN true END", False),
    ],
)
def test_a_condition_may_be_null(condition: str, never: bool) -> None:
    assert is_never_null(condition, {name: column.nullable for name, column in COLUMNS.items()}) is never


def test_a_column_may_be_null_whose_name_is_a_word_of_sql() -> None:
    assert not is_never_null("Hour > 5 AND amount > 1", {"hour": True, "amount": False})
    assert is_never_null("hour > 5 AND amount > 1", {"hour": False, "amount": False})


@pytest.mark.parametrize(
    ("column", "decimals", "refused"),
    [
        ({"type": "float64", "minimum": 0, "maximum": 1e12}, 4, True),
        ({"type": "float64", "minimum": 0, "maximum": 1e12}, 1, False),
        ({"type": "int64", "minimum": -(10**14), "maximum": 0}, 4, True),
        ({"type": "int64", "minimum": 0, "maximum": 10**9}, 4, False),
        ({"type": "float64"}, 12, False),
    ],
)
def test_a_deviation_whose_squares_do_not_fit_is_refused(column: dict, decimals: int, refused: bool) -> None:
    aggregation = {"function": "std", "column": "amount", "decimals": decimals}
    fields = {"entity": "shop", "ttl_days": 7, "windows": ["1d"], "aggregations": {"s": aggregation}}
    tables = {"shops": FeatureTable.model_validate(fields)}
    found = [what for _, what, _ in table_mistakes(tables, {**COLUMNS, "amount": Column.model_validate(column)}, {})]
    assert any("the squares of so many digits do not fit" in what for what in found) is refused
