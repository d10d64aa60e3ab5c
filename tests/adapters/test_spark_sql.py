"""Feature SQL for Spark: what is refused before a server is asked, and what a wrong URL says."""

from datetime import date

import pyarrow as pa
import pytest

from training.adapters.feature_engines._spark_sql import spark_sql, unordered
from training.adapters.feature_engines.spark import SparkEngine
from training.contract.errors import ConfigError, TransientError
from training.domain.feature_engine import SqlError
from training.settings import Settings
from training.spark_session import connect


@pytest.mark.parametrize(
    "expression",
    [
        "median(x)", "now()", "current_date", "concat(a, b)", "upper(a)", "regexp_matches(a, 'b')", "a SIMILAR TO 'b'",
        "a GLOB 'b*'", "TRY_CAST(a AS INT)", "list(x)", "generate_series(1, 2)", "extract(dow FROM t)", "a LIKE '\\_'",
        "round(x, -1)", "strftime(t, '%Y')", "avg(x) OVER (ORDER BY t)",
    ],
)  # fmt: skip
def test_what_was_not_compared_is_refused(expression: str) -> None:
    with pytest.raises(SqlError, match=r"compared|something else"):
        spark_sql(f"SELECT {expression} AS y FROM events", {})


@pytest.mark.parametrize("sql", ["SELEKT 1", "SELECT $start", "SELECT 1; SELECT 2", ""])
def test_what_is_no_query_is_refused(sql: str) -> None:
    with pytest.raises(SqlError):
        spark_sql(sql, {})


def test_names_are_quoted_and_parameters_are_days() -> None:
    found = spark_sql('SELECT "a.b `c`" FROM events WHERE day < $end -- `d`', {"end": date(2026, 1, 5)})
    assert found == "SELECT `a.b ``c``` FROM `events` WHERE `day` < CAST('2026-01-05' AS DATE)"


def test_a_table_of_numbers_keeps_its_names() -> None:
    found = spark_sql("SELECT n FROM range(1, 4) AS t(n), range(2)", {})
    assert found == "SELECT `n` FROM RANGE(1, 4) AS `t`(`n`), RANGE(0, 2) AS `_range`(`range`)"


def test_a_comment_is_a_hint_and_a_list_of_numbers_a_sequence() -> None:
    found = spark_sql("SELECT /* REPARTITION(a) */ a, unnest(range(b, c)) AS n FROM t", {})
    assert found.startswith("SELECT /*+ REPARTITION(`a`) */ `a`, EXPLODE(CASE WHEN")
    for refused in ("unnest([1, 2])", "unnest(range(a, b, 2))"):
        with pytest.raises(SqlError, match="compared"):
            spark_sql(f"SELECT {refused} AS n FROM t", {})


@pytest.mark.parametrize(
    ("sql", "order"),
    [
        ('SELECT * FROM (SELECT 1 AS x ORDER BY x) WHERE x > 0 ORDER BY x, "Y" DESC', 'ORDER BY x, "Y" DESC'),
        ("SELECT * FROM t ORDER BY x LIMIT 3", ""),
        ("SELECT DISTINCT * FROM t ORDER BY x", ""),
        ("SELECT a FROM t ORDER BY x", ""),
        ("SELECT * FROM t", ""),
    ],
)
def test_the_last_order_is_taken_off_where_the_rows_do_not_depend_on_it(sql: str, order: str) -> None:
    select, found = unordered(sql)
    assert found == order
    assert select == (sql.removesuffix(f" {order}") if order else sql)


def test_the_engine_needs_the_url_of_a_server() -> None:
    with pytest.raises(ConfigError, match="CT_ENGINE_URL is ''") as error:
        SparkEngine().execute("SELECT x FROM events", {}, {"events": pa.table({"x": [1]})})
    assert "sc://" in error.value.hint


def test_the_url_must_not_hold_the_token() -> None:
    with pytest.raises(ValueError, match="SPARK_CONNECT_AUTHENTICATE_TOKEN"):
        Settings(engine_url="sc://spark:15002/;token=s3cret")


@pytest.mark.spark
def test_a_server_that_does_not_answer_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.spark_session._RETRIES", 1)
    with pytest.raises(TransientError, match="does not answer"):
        connect("sc://127.0.0.1:1")
