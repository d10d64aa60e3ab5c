"""Queries of feature tables: hand-written and generated ones, rows of hours, and features that may be null."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from training import print_sql
from training.adapters.feature_query import FeatureQueries
from training.contract.base import Days
from training.contract.errors import ConfigError, DataContractError, ExitCode
from training.contract.source_spec import load_source_spec
from training.settings import ROOT

DAY = date(2026, 1, 5)
DAYS = Days.ending(DAY + timedelta(days=1), 1)
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
EVENTS = {
    "events": pa.table(
        {
            "shop": ["a", "b", "a"],
            "seen": pa.array([NOON, NOON, NOON + timedelta(hours=1)], pa.timestamp("us", tz="UTC")),
        }
    )
}
HOURLY = "SELECT shop, CAST(seen AS DATE) AS day, CAST({time} AS TIMESTAMP) AS feature_timestamp, {x} AS x FROM events"
BETWEEN = " WHERE CAST(seen AS DATE) >= $start AND CAST(seen AS DATE) < $end"


def hourly(tmp_path: Path, time: str = "seen", x: str = "1.0::FLOAT") -> FeatureQueries:
    sql = HOURLY.format(time=time, x=x) + BETWEEN
    return FeatureQueries(tmp_path / "shops.sql", {"t": "shop"}, generated={"t": sql}, hourly=["t"])


def test_hourly_rows_keep_their_time(tmp_path: Path) -> None:
    queries = hourly(tmp_path)
    assert queries.schema("t", EVENTS).names == ["shop", "feature_timestamp", "x", "day"]
    found = queries.run("t", DAYS, EVENTS)
    assert found.schema == queries.schema("t", EVENTS)
    assert found.select(["shop", "feature_timestamp"]).to_pylist() == [
        {"shop": "a", "feature_timestamp": NOON},
        {"shop": "b", "feature_timestamp": NOON},
        {"shop": "a", "feature_timestamp": NOON + timedelta(hours=1)},
    ]


@pytest.mark.parametrize(
    ("time", "said"),
    [
        ("seen + INTERVAL 1 MINUTE", "not on the hour"),
        ("seen + INTERVAL 1 DAY", "whose day is not that of feature_timestamp"),
        ("date_trunc('day', seen)", "'a' on 2026-01-05 00:00:00.* 2 times"),
    ],
)
def test_hourly_rows_are_checked(tmp_path: Path, time: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        hourly(tmp_path, time).run("t", DAYS, EVENTS)


def test_only_hourly_tables_have_times_of_their_own(tmp_path: Path) -> None:
    sql = HOURLY.format(time="seen", x="1") + BETWEEN
    with pytest.raises(ConfigError, match="yields the columns"):
        FeatureQueries(tmp_path / "shops.sql", {"t": "shop"}, generated={"t": sql}).schema("t", EVENTS)
    daily = "SELECT shop, CAST(seen AS DATE) AS day, 1 AS x FROM events" + BETWEEN
    with pytest.raises(ConfigError, match="without 'feature_timestamp'"):
        FeatureQueries(tmp_path / "shops.sql", {"t": "shop"}, generated={"t": daily}, hourly=["t"]).schema("t", EVENTS)


def test_a_feature_is_null_only_where_its_view_says_so(tmp_path: Path) -> None:
    sql = HOURLY.format(time="seen", x="nullif(shop, 'b')") + BETWEEN
    fields = {"generated": {"t": sql}, "hourly": ["t"]}
    with pytest.raises(DataContractError, match=r"generated from .*shops\.yaml yielded nulls in \['x'\]"):
        FeatureQueries(tmp_path / "shops.sql", {"t": "shop"}, **fields).run("t", DAYS, EVENTS)
    queries = FeatureQueries(tmp_path / "shops.sql", {"t": "shop"}, **fields)
    queries.may_be_null = {"t": ["x"]}
    assert queries.run("t", DAYS, EVENTS)["x"].to_pylist() == ["a", None, "a"]


def test_a_feature_may_be_null_in_all_rows(tmp_path: Path) -> None:
    """As when events have come, and no label yet."""
    sql = HOURLY.format(time="seen", x="NULL::FLOAT") + BETWEEN
    queries = FeatureQueries(tmp_path / "shops.sql", {"t": "shop"}, generated={"t": sql}, hourly=["t"])
    queries.may_be_null = {"t": ["x"]}
    assert queries.run("t", DAYS, EVENTS)["x"].to_pylist() == [None, None, None]


def test_generated_and_written_queries_stand_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "shops.sql"
    daily = "SELECT shop, CAST(seen AS DATE) AS day, 1 AS x FROM events" + BETWEEN
    tables, generated = {"own": "shop", "declared": "shop"}, {"declared": daily}
    with pytest.raises(ConfigError, match=r"No feature queries at .* but \['own'\] have no aggregations"):
        FeatureQueries(path, tables, generated=generated)
    path.write_text(f"-- table: own\n{daily.replace('1 AS x', '2 AS y')}")
    queries = FeatureQueries(path, tables, generated=generated)
    assert [queries.schema(table, EVENTS).names[2] for table in tables] == ["y", "x"]
    path.write_text(f"-- table: own\n{daily}\n-- table: declared\n{daily}")
    with pytest.raises(ConfigError, match="fills the tables"):
        FeatureQueries(path, tables, generated=generated)


def test_printed_sql_continues_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The printed file in place of the aggregations gives the same tables."""
    assert print_sql.main(["card_payments"]) == ExitCode.OK
    (tmp_path / "card_payments.sql").write_text(capsys.readouterr().out)
    source = load_source_spec("card_payments")
    queries = FeatureQueries(tmp_path / "card_payments.sql", source.entities)
    generated = FeatureQueries.of_source(source, ROOT / "feature_repo")
    assert [queries.tokens(table) for table in source.entities] == [
        generated.tokens(table) for table in source.entities
    ]


def test_sql_of_an_unknown_table_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_sql.main(["card_payments", "nonsense"]) == ExitCode.BAD_CONFIG
    assert "Its tables: customer_features, terminal_features." in capsys.readouterr().err
