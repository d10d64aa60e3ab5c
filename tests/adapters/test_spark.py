"""Spark computes what DuckDB computes, on random rows: the features, the SQL of a source, and the join."""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tests.cases import others_long
from tests.domain.test_feature_sql import COLUMNS, LABEL, START, all_functions, feeds
from tests.feature_repo.payments_and_features import SOURCE, day, midnight, payments, put, rows_of
from tests.feature_repo.written_by_hand import copy_by_hand
from training.adapters.feature_engines.duckdb import DuckDb
from training.adapters.feature_engines.spark import SparkEngine
from training.adapters.lake import Lake
from training.adapters.tables import reports_relation
from training.contract.base import Days
from training.contract.errors import ConfigError, TransientError
from training.contract.feature_tables import FeatureTable
from training.contract.messages import FeaturesInputs
from training.contract.source_spec import load_source_spec
from training.domain.feature_engine import LakeRows, SqlError, TimedRows
from training.domain.feature_grid_sql import table_queries
from training.domain.feature_sql import ADDED, feature_sql
from training.settings import Settings
from training.spark_session import connect
from training.steps import features

pytestmark = pytest.mark.spark

TIME, MICROSECOND = pa.timestamp("us", tz="UTC"), timedelta(microseconds=1)


@pytest.fixture
def spark(spark_url: str) -> SparkEngine:
    return SparkEngine(spark_url)


def same(found: pa.Table, wanted: pa.Table, by: list[str]) -> None:
    """Both tables have the same rows, to the last bit. NaN is NaN."""
    assert found.schema == wanted.schema
    order = [(name, "ascending") for name in by]
    left, right = (table.sort_by(order).to_pandas() for table in (found, wanted))
    pd.testing.assert_frame_equal(left, right, check_exact=True)


@pytest.mark.parametrize(
    ("every", "windows", "labelled"), others_long([("1d", ["1d", "3d"], True), ("1h", ["1h", "1d"], False)])
)
def test_declared_features_are_equal_to_the_last_bit(
    spark: SparkEngine, every: str, windows: list[str], labelled: bool
) -> None:
    extra = {"late_share": {"function": "share", "condition": "late = 1"}} if labelled else {}
    extra |= {"late_mean": {"function": "mean", "column": "late"}} if labelled else {}
    fields = {"entity": "shop", "ttl_days": 7, "every": every, "windows": windows}
    table = FeatureTable.model_validate(
        {**fields, "label": "late" if labelled else None, "aggregations": all_functions(**extra)}
    )
    events, labels = feeds(3, rows=400)
    for event in events:
        event["amount"] = event["amount"] and event["amount"] * 1e5 / 3
    kinds = [pa.int64(), TIME, pa.string(), pa.float64(), pa.int64(), pa.string()]
    relations = {
        "events": pa.Table.from_pylist(events, pa.schema(list(zip(COLUMNS, kinds, strict=True)))),
        "outcomes": pa.Table.from_pylist(
            labels, pa.schema([("event", pa.int64()), ("late", pa.int64()), ("told", TIME)])
        ),
    }
    limits = {"start": START.date(), "end": START.date() + timedelta(days=14)}
    label = LABEL if labelled else None
    sums = {name: each for name, each in table.aggregations.items() if each.function in ADDED}
    of_sums = table.model_copy(update={"aggregations": sums})
    by = ["day", "shop", *(["feature_timestamp"] if every == "1h" else [])]
    for sql in (feature_sql(table, COLUMNS, "at", label), table_queries(of_sums, COLUMNS, "at", label).select):
        found = spark.execute(sql, limits, relations)
        assert len(found) > 50
        same(found, DuckDb().execute(sql, limits, relations), by)


#: Expressions of one row that both engines must compute alike.
EXPRESSIONS = [
    "d / e", "i / j", "i // j", "i % j", "c / i", "-i // 3", "1 / 3", "d / 0", "CAST(d AS DECIMAL(18, 4))",
    "CAST(d * 1e15 AS DECIMAL(38, 4))", "CAST(d AS DECIMAL(38, 8))", "CAST(i AS DECIMAL(9, 2))",
    "CAST(half AS INTEGER)", "CAST(half AS BIGINT)", "CAST(half AS HUGEINT)", "CAST(d * 1e20 AS HUGEINT)",
    "CAST(c AS BIGINT)", "CAST(c AS DECIMAL(9, 1))", "round(half)", "round(d, 2)", "round(c, 1)", "floor(d)",
    "ceil(d)", "abs(i)", "sqrt(abs(d))", "CAST(d AS FLOAT)", "CAST(i AS FLOAT)", "CAST(i / 7 AS FLOAT)",
    "CAST(big AS FLOAT)", "CAST(big AS DOUBLE)", "CAST(t AS DATE)", "date_trunc('hour', CAST(t AS TIMESTAMP))",
    "date_trunc('week', t)", "epoch_us(t)", "CAST(t AS DATE) + i", "CAST(t AS TIMESTAMP) + INTERVAL 1 HOUR * i",
    "extract(hour FROM t)", "extract(month FROM t)", "length(s)", "md5(s)", "md5(CAST(j AS VARCHAR) || ':7')",
    "s || '\\x''y'",
    "s < 'a'", "s LIKE 'A%'", "s ILIKE '%a'", "s IN ('a', '')", "coalesce(d, i, 0)", "nullif(i, 0)",
    "greatest(i, j)", "least(d, e)", "CASE WHEN i > 0 THEN d ELSE e END", "odd = 'NaN'::DOUBLE", "odd > 1e300",
    "isnan(odd)", "i IS DISTINCT FROM j", "i BETWEEN -1 AND 2",
    "lead(i, 1, 99) OVER (PARTITION BY s ORDER BY i, row)", "lag(row) OVER (ORDER BY s, d, row)",
    "row_number() OVER (ORDER BY odd DESC, row)", "rank() OVER (ORDER BY s)", "sum(i) OVER (PARTITION BY s)",
    "lead(CAST(t AS DATE), 1, 'infinity') OVER (PARTITION BY s ORDER BY t, row) > CAST(t AS DATE)",
]  # fmt: skip
#: Features are 32 bits wide. Of 64 bits the last one of an average of decimals may differ.
#: Aggregates, whose results do not depend on the order of rows.
AGGREGATES = [
    "count(*)", "count(d)", "count(DISTINCT s)", "sum(i)", "sum(CAST(d AS DECIMAL(18, 4)))", "avg(i)",
    "CAST(avg(big) AS FLOAT)",
    "avg(i) FILTER (WHERE j > 0)", "CAST(avg(c) AS FLOAT)", "min(odd)", "max(odd)", "min(s)", "max(s)", "max(t)",
    "bool_or(i > 2)", "bool_and(i > -9)", "sum(i) FILTER (WHERE s = 'a')",
    "sum(CAST(d AS DECIMAL(18, 4))) / count(*)", "sum(i) / sum(j)", "count(*) FILTER (WHERE d > 0)",
    "max(epoch_us(t))", "CAST(sum(CAST(d AS DECIMAL(18, 4))) / 3 AS FLOAT)",
]  # fmt: skip


def odd_rows(rows: int = 400) -> pa.Table:
    """Nulls, NaN, infinities, zeros with a sign, halves, texts of several scripts and cases, names with odd letters."""
    random = np.random.default_rng(7)

    def maybe(values: list[Any]) -> list[Any]:
        return [None if gone else value for value, gone in zip(values, random.random(rows) < 0.1, strict=True)]

    def choice(values: list[Any]) -> list[Any]:
        return [values[i] for i in random.integers(0, len(values), rows)]

    cents = random.integers(-5_000_000, 5_000_000, rows)
    return pa.table(
        {
            "row": pa.array(range(rows), pa.int64()),
            "d": pa.array(maybe([*(random.normal(0, 1000, rows // 2)), *(cents[rows // 2 :] / 100_000)]), pa.float64()),
            "e": pa.array(maybe(choice([0.0, 1.5, -3.0, 7e-3])), pa.float64()),
            "half": pa.array(maybe([int(n) / 2 for n in random.integers(-9, 9, rows)]), pa.float64()),
            "odd": pa.array(maybe(choice([float("nan"), float("inf"), -float("inf"), 0.0, 1.0])), pa.float64()),
            "i": pa.array(maybe([int(n) for n in random.integers(-4, 5, rows)]), pa.int32()),
            "j": pa.array(maybe([int(n) for n in random.integers(-2, 3, rows)]), pa.int64()),
            "big": pa.array(maybe([int(n) for n in random.integers(-(2**62), 2**62, rows)]), pa.int64()),
            "c": pa.array(maybe([pa.scalar(int(n), pa.decimal128(9, 0)).as_py() / 100 for n in cents])).cast(
                pa.decimal128(12, 2)
            ),
            "s": pa.array(maybe(choice(["a", "A", "ä", "", "z", "aß", "日本", "a ", "\\"])), pa.string()),
            "t": pa.array(maybe([START + int(n) * MICROSECOND for n in random.integers(-9e14, 9e14, rows)]), TIME),
            "Mixed.Case `x`": pa.array(random.integers(0, 9, rows), pa.int64()),
        }
    )  # fmt: skip


def test_expressions_are_equal_to_the_last_bit(spark: SparkEngine) -> None:
    rows = {"rows": odd_rows()}
    chosen = ", ".join(f"{sql} AS e{i}" for i, sql in enumerate(EXPRESSIONS))
    sql = f'SELECT row, "mixed.case `X`" AS quoted, {chosen} FROM rows'
    found, wanted = spark.execute(sql, {}, rows), DuckDb().execute(sql, {}, rows)
    by_name = dict(zip((f"e{i}" for i in range(len(EXPRESSIONS))), EXPRESSIONS, strict=True))
    differ = []
    found, wanted = found.sort_by("row"), wanted.sort_by("row")
    assert found.schema == wanted.schema
    for name in wanted.column_names:
        left, right = found[name].to_pylist(), wanted[name].to_pylist()
        pairs = [(a, b) for a, b in zip(left, right, strict=True) if a != b and not (a != a and b != b)]
        if pairs:
            differ.append((by_name.get(name, name), len(pairs), pairs[:2]))
    assert not differ


def test_aggregates_and_groups_are_equal_to_the_last_bit(spark: SparkEngine) -> None:
    chosen = ", ".join(f"{sql} AS a{i}" for i, sql in enumerate(AGGREGATES))
    sql = f"SELECT odd, s, {chosen} FROM rows GROUP BY ALL ORDER BY s DESC, odd"
    rows = {"rows": odd_rows(2000)}
    found, wanted = spark.execute(sql, {}, rows), DuckDb().execute(sql, {}, rows)
    assert found.schema == wanted.schema
    assert found.to_pandas().equals(wanted.to_pandas()), [
        AGGREGATES[i] for i in range(len(AGGREGATES)) if not found[f"a{i}"].equals(wanted[f"a{i}"])
    ]


def test_numbers_that_do_not_fit_are_errors(spark: SparkEngine) -> None:
    rows = {"rows": pa.table({"x": [1e30], "i": [2**62]})}
    for sql in ("SELECT CAST(x AS DECIMAL(18, 4)) AS y FROM rows", "SELECT i * 4 AS y FROM rows"):
        for engine in (DuckDb(), spark):
            with pytest.raises(SqlError):
                engine.execute(sql, {}, rows)
    with pytest.raises(SqlError, match="not_there"):
        spark.execute("SELECT not_there FROM rows", {}, rows)


def test_a_worker_that_is_killed_is_not_a_mistake_in_the_sql(spark_url: str) -> None:
    def killed(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        import os

        os.kill(os.getpid(), 9)
        return batches

    with pytest.raises(TransientError, match=r"Job aborted .*Python worker") as raised:
        list(connect(spark_url).map_batches("SELECT 1", killed))
    assert "\tat " not in str(raised.value)


@pytest.mark.parametrize("by_hand", others_long([False, True]))
def test_the_features_step_writes_the_same_rows(
    spark_url: str, settings: Settings, tmp_path: Path, by_hand: bool
) -> None:
    repo = copy_by_hand(tmp_path / "repo") if by_hand else settings.feature_repo
    both = []
    for name, chosen in (("duckdb", {}), ("spark", {"engine": "spark", "engine_url": spark_url})):
        own = settings.model_copy(update={"home": tmp_path / name, "feature_repo": repo, **chosen})
        events, labels = payments(9, delays=(1, 7, -1))
        put(own, events[events["event_time"] < midnight(5)], labels, "early")
        versions = put(own, events[events["event_time"] >= midnight(5)], labels.iloc[:0], "late")
        inputs = FeaturesInputs(source=SOURCE, days=Days(start=day(0), end=day(10)), table_versions=versions)
        result = features.run(inputs, own)
        assert features.run(inputs, own).rows == result.rows
        both.append([rows_of(own, table) for table in ("customer_features", "terminal_features")])
    for duckdb, found in zip(*both, strict=True):
        assert len(found) > 30
        pd.testing.assert_frame_equal(found, duckdb, check_exact=True)


def test_only_the_files_of_the_days_are_read(spark: SparkEngine, settings: Settings) -> None:
    events, labels = payments(4)
    for n in range(4):
        of_day = (events["event_time"] >= midnight(n)) & (events["event_time"] < midnight(n + 1))
        put(settings, events[of_day], labels.iloc[:1], f"day-{n}")
    lake = Lake(settings.lake, SOURCE)
    rows = LakeRows(lake.uri("events"), lake.scan("events"), "event_time", midnight(1), midnight(3))
    lake.replace("events", lake.scan("events").head(0), "partition = 'day-1'", ["partition"])
    for n in (0, 3):
        [path] = (Path(lake.uri("events")) / f"partition=day-{n}").glob("*.parquet")
        path.write_bytes(b"not a Parquet file")
    sql = "SELECT partition, count(*)::BIGINT AS n FROM events GROUP BY partition ORDER BY partition"
    found = spark.execute(sql, {}, {"events": rows}).to_pylist()
    counts = (events["event_time"].dt.day - 1).value_counts()
    assert found == [{"partition": f"day-{n}", "n": counts[n]} for n in (1, 2)]


def moments(random: np.random.Generator, count: int) -> list[datetime | None]:
    return [
        None if random.random() < 0.05 else datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=int(hours))
        for hours in random.integers(0, 200, count)
    ]


@pytest.mark.parametrize(("created", "ttl"), others_long([("made at", timedelta(hours=30)), (None, None)]))
def test_the_join_finds_the_same_rows(spark: SparkEngine, created: str | None, ttl: timedelta | None) -> None:
    random = np.random.default_rng(11)
    pick: Callable[[list[Any], int], list[Any]] = lambda values, n: [  # noqa: E731
        values[i] for i in random.integers(0, len(values), n)
    ]
    rows = pa.table(
        {
            "shop": pick(["a", "A", "", "ü", None], 3000),
            "key.2": pa.array(pick([1, 2**53, 2**53 + 1, None], 3000), pa.int64()),
            "time": pa.array(moments(random, 3000), TIME),
            "made at": pa.array(moments(random, 3000), TIME),
            "value": pa.array(pick([1.5, float("nan"), None, -0.25], 3000), pa.float32()),
            "text": pick(["x", "y", None], 3000),
        }
    )
    events = pa.table(
        {
            "shop": pick(["a", "A", "", "ü", None, "nobody"], 2000),
            "key": pa.array(pick([1, 2**53, 2**53 + 1, 99], 2000), pa.int64()),
            "row": pa.array(moments(random, 2000), TIME),
        }
    )
    timed = TimedRows(rows, {"shop": "shop", "key": "key.2"}, "time", ["text", "value"], created, ttl)
    found, wanted = (engine.newest(events, "row", timed) for engine in (spark, DuckDb()))
    assert 100 < wanted["text"].null_count < 1900
    assert found.schema == wanted.schema
    assert found.to_pandas().equals(wanted.to_pandas())


def test_the_join_reads_the_lake(spark: SparkEngine, settings: Settings) -> None:
    versions = put(settings, *payments(8))
    features.run(FeaturesInputs(source=SOURCE, days=Days(start=day(0), end=day(9)), table_versions=versions), settings)
    lake = Lake(settings.lake, SOURCE)
    rows = LakeRows(lake.uri("customer_features"), lake.scan("customer_features"), "day", day(2), day(5))
    events = lake.scan("events").to_table(["customer_id", "event_time"])
    columns = ["customer_count_7d", "customer_mean_1d"]
    timed = TimedRows(rows, {"customer_id": "customer_id"}, "feature_timestamp", columns, ttl=timedelta(days=2))
    found, wanted = (engine.newest(events, "event_time", timed) for engine in (spark, DuckDb()))
    assert 0 < wanted["customer_count_7d"].null_count < len(events)
    assert found.equals(wanted)


def test_no_rows_of_the_lake_are_no_rows(spark: SparkEngine, settings: Settings) -> None:
    put(settings, *payments(2))
    lake = Lake(settings.lake, SOURCE)
    rows = LakeRows(lake.uri("events"), lake.scan("events"), "event_time", midnight(50), midnight(60))
    assert spark.execute("SELECT customer_id FROM events WHERE $d > '2020-01-01'", {"d": date(2026, 1, 1)}, {
        "events": rows
    }).num_rows == 0  # fmt: skip


def not_sent(batches: Any) -> Any:
    """Spark's workers get the code of `training`, and no tests."""
    return batches


def test_code_that_the_workers_lack_is_an_error_of_the_setup(spark_url: str) -> None:
    with pytest.raises(ConfigError, match=r"Python workers cannot run our code: ModuleNotFoundError.*'tests'"):
        list(connect(spark_url).map_batches("SELECT 1 AS x", not_sent))


@pytest.mark.parametrize("silence", others_long(["negative", "missing"]))
def test_reports_of_labels_are_read_and_corrected_there(spark: SparkEngine, settings: Settings, silence: Any) -> None:
    events, labels = payments(8, delays=(1, 2, -1))
    put(settings, events, labels, "first")
    again = labels.iloc[::3].assign(is_fraud=lambda rows: 1 - rows["is_fraud"])
    put(settings, events.iloc[:0], again, "same time")
    put(settings, events.iloc[:0], again.assign(reported_at=again["reported_at"] + timedelta(hours=5)), "later")
    source = load_source_spec(SOURCE, settings.feature_repo)
    label = source.labels["is_fraud"].model_copy(update={"unlabelled_after_delay": silence, "delay_days": 2})
    source = source.model_copy(update={"labels": {"is_fraud": label}})
    lake = Lake(settings.lake, SOURCE)
    asked = LakeRows(lake.uri("events"), lake.scan("events"), "event_time", midnight(0), midnight(8))
    relation = reports_relation(lake, source, "labels", lake.version("labels"), asked, day(0), day(7))
    sql = "SELECT * FROM labels ORDER BY transaction_id, reported_at"
    found, wanted = (engine.execute(sql, {}, {"labels": relation}) for engine in (spark, DuckDb()))
    assert len(wanted) > len(labels) / 2
    assert found.equals(wanted)
