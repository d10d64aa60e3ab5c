"""The SQL of declared aggregations against a reference that looks, row by row, only at what was known at its time."""

import statistics
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.cases import others_in_ci, others_long
from training.adapters.feature_engines.duckdb import DuckDb
from training.contract.columns import Column
from training.contract.feature_tables import FeatureTable, window_hours
from training.domain import feature_grid
from training.domain.feature_engine import SqlError, TimedRows
from training.domain.feature_grid_sql import table_queries
from training.domain.feature_sql import ADDED, LabelFeed, feature_sql

START = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = {
    "id": Column(type="int64"),
    "at": Column(type="timestamp"),
    "shop": Column(type="string", nullable=True),
    "amount": Column(type="float64", nullable=True),
    "pieces": Column(type="int64", nullable=True),
    "order": Column(type="string"),
}
LABEL = LabelFeed("outcomes", "late", "event", "id", "told", 2, Column(type="int64", nullable=True))

Row = dict[str, Any]


def all_functions(**extra: Any) -> dict[str, Any]:
    """One aggregation of each function, some with a condition."""
    return {
        "seen": {"function": "count"},
        "web": {"function": "count", "condition": "\"order\" = 'web' AND pieces > 1"},
        "total": {"function": "sum", "column": "amount"},
        "pieces_total": {"function": "sum", "column": "pieces", "condition": "Amount >= 5"},
        "average": {"function": "mean", "column": "amount", "default": None},
        "least": {"function": "min", "column": "amount", "default": -1},
        "most": {"function": "max", "column": "pieces"},
        "spread": {"function": "std", "column": "amount"},
        "pieces_spread": {"function": "std", "column": "pieces", "default": None},
        "kinds": {"function": "distinct_count", "column": "order"},
        "prices": {"function": "distinct_count", "column": "amount", "condition": "pieces < 3"},
        "dear": {"function": "share", "condition": "amount > 5"},
        "idle": {"function": "time_since_last"},
        "idle_web": {"function": "time_since_last", "condition": "\"order\" = 'web'", "default": None},
        **extra,
    }


#: The condition of each aggregation above, in Python. None: null.
CONDITIONS: dict[str, Callable[[Row], bool | None]] = {
    "web": lambda row: row["order"] == "web" and (row["pieces"] or 0) > 1,
    "pieces_total": lambda row: row["amount"] is not None and row["amount"] >= 5,
    "prices": lambda row: row["pieces"] is not None and row["pieces"] < 3,
    "dear": lambda row: None if row["amount"] is None else row["amount"] > 5,
    "idle_web": lambda row: row["order"] == "web",
    "late_share": lambda row: None if row["late"] is None else row["late"] == 1,
}


def feeds(seed: int, days: int = 12, rows: int = 150) -> tuple[list[Row], list[Row]]:
    """Events with nulls and some exactly on the hour, and labels that are late, missing, null and corrected."""
    random = np.random.default_rng(seed)
    events, labels = list[Row](), list[Row]()
    for i in range(rows):
        at = START + timedelta(seconds=int(random.integers(0, days * 86_400)))
        if random.random() < 0.2:
            at = at.replace(minute=0, second=0, hour=at.hour if random.random() < 0.5 else 0)
        maybe: Callable[[Any], Any] = lambda value: None if random.random() < 0.15 else value  # noqa: E731
        event = {
            "id": i,
            "at": at,
            "shop": maybe(str(random.integers(0, 4))),
            "amount": maybe(int(random.integers(1, 1000)) / 100),
            "pieces": maybe(int(random.integers(0, 5))),
            "order": ["web", "shop", "phone"][random.integers(0, 3)],
        }
        events.append(event)
        told = at
        for _ in range(random.integers(0, 4)):
            told += timedelta(seconds=int(random.integers(0, 4 * 86_400)))
            labels.append({"event": i, "late": maybe(int(random.integers(0, 2))), "told": told})
    return events, labels


def computed(table: FeatureTable, events: list[Row], labels: list[Row], label: LabelFeed | None, days: int) -> pa.Table:
    time, whole = pa.timestamp("us", tz="UTC"), pa.int64()
    kinds = [whole, time, pa.string(), pa.float64(), whole, pa.string()]
    relations = {
        "events": pa.Table.from_pylist(events, pa.schema(list(zip(COLUMNS, kinds, strict=True)))),
        "outcomes": pa.Table.from_pylist(labels, pa.schema([("event", whole), ("late", whole), ("told", time)])),
    }
    limits = {"start": START.date(), "end": START.date() + timedelta(days=days)}
    found = DuckDb().execute(feature_sql(table, COLUMNS, "at", label), limits, relations)
    sums = {name: each for name, each in table.aggregations.items() if each.function in ADDED}
    if sums:
        check_grid(table.model_copy(update={"aggregations": sums}), found, relations, label, limits["end"])
    return found


def check_grid(
    table: FeatureTable, rows: pa.Table, relations: dict[str, pa.Table], label: LabelFeed | None, end: date
) -> None:
    """The grid makes the same rows, bit for bit, also in blocks of entities, and so does its SQL. `table`: without its
    other features."""
    queries, engine = table_queries(table, COLUMNS, "at", label), DuckDb()
    parts = engine.execute(queries.parts_of(relations), {}, relations)
    order = [(name, "ascending") for name in ("day", "feature_timestamp", "shop") if name in rows.column_names]
    select = engine.execute(queries.select, {"start": START.date(), "end": end}, relations).sort_by(order)
    same = rows.filter(pc.field("shop").is_valid()).select(select.column_names).sort_by(order)
    assert select.schema == same.schema
    assert select.to_pandas().equals(same.to_pandas())
    for cells in (feature_grid.CELLS, 30):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(feature_grid, "CELLS", cells)
            try:
                sums = feature_grid.window_sums(parts, queries.grid, START.date(), end)
            except feature_grid.TooLargeError:
                return
        found = engine.execute(queries.features, {}, {"grid": sums})
        assert found == found.sort_by(order)
        assert found.schema == same.schema
        assert found.to_pandas().equals(same.to_pandas())


def known_rows(events: list[Row], labels: list[Row], moment: datetime, label: LabelFeed | None) -> list[Row]:
    """The events that count at `moment`, each with its label."""
    if label is None:
        return [event for event in events if event["at"] < moment]
    found, told = [], defaultdict[int, list[Row]](list)
    for each in labels:
        if each["told"] < moment:
            told[each["event"]].append(each)
    for event in events:
        reports = told[event["id"]]
        if reports and event["at"] < moment - timedelta(days=label.delay_days):
            found.append({**event, "late": max(reports, key=lambda each: each["told"])["late"]})
    return found


def expected(table: FeatureTable, rows: list[Row], moment: datetime, delay_days: int) -> dict[str, float | None]:
    """The features of one entity at `moment`, of the `rows` (events) that are known."""
    found: dict[str, float | None] = {}
    for feature in table.features():
        each = table.aggregations[feature.aggregation]
        since = moment - timedelta(days=delay_days, hours=window_hours(feature.window))
        inside = [row for row in rows if row["at"] >= since]
        judged = CONDITIONS.get(feature.aggregation, lambda _: True)
        if each.function == "share":
            answers = [answer for row in inside if (answer := judged(row)) is not None]
            found[feature.name] = sum(answers) / len(answers) if answers else feature.default
            continue
        inside = [row for row in inside if judged(row)]
        values = [row[each.column] for row in inside if each.column and row[each.column] is not None]
        value: float | None = None
        if each.function == "count":
            value = len(inside) or None
        elif each.function == "time_since_last":
            value = (moment - max(row["at"] for row in inside)).total_seconds() / 3600 if inside else None
        elif each.function == "std":
            value = statistics.stdev(values) if len(values) > 1 else None
        elif values:
            functions = {"sum": sum, "mean": statistics.mean, "min": min, "max": max}
            value = len(set(values)) if each.function == "distinct_count" else functions[each.function](values)
        found[feature.name] = feature.default if value is None else value
    return found


def assert_row(row: np.ndarray, want: dict[str, float | None], about: str) -> None:
    """The features of a row, in the order of `want`. None: null."""
    wanted = [np.nan if value is None else value for value in want.values()]
    np.testing.assert_allclose(row, wanted, rtol=1e-5, atol=1e-6, err_msg=f"{about}, of {list(want)}")


@pytest.mark.parametrize("seed", others_long(range(2)))
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize(("every", "windows"), [("1d", ["1d", "3d"]), ("1h", ["1h", "5h", "1d"])])
def test_every_function_is_as_defined(every: str, windows: list[str], labelled: bool, seed: int) -> None:
    extra = {"late_share": {"function": "share", "condition": "late = 1"}} if labelled else {}
    extra |= {"late_mean": {"function": "mean", "column": "late"}} if labelled else {}
    fields = {"entity": "shop", "ttl_days": 7, "every": every, "windows": windows}
    table = FeatureTable.model_validate(
        {**fields, "label": "late" if labelled else None, "aggregations": all_functions(**extra)}
    )
    label = LABEL if labelled else None
    # Each hour of more days would be looked up row by row.
    of_events = 4 if every == "1h" else 12
    events, labels = feeds(seed, of_events)
    days = of_events + table.days_of_history(LABEL.delay_days if labelled else 0) + 1
    found = computed(table, events, labels, label, days).to_pandas()
    found = found[found["shop"].notna()]
    times = pd.to_datetime(found["feature_timestamp" if every == "1h" else "day"], utc=True)
    names = [feature.name for feature in table.features()]
    nothing = {feature.name: feature.default for feature in table.features()}
    values = found[names].to_numpy(float)
    rows = {(shop, time): row for shop, time, row in zip(found["shop"], times, values, strict=True)}
    assert len(rows) == len(found)
    delay, checked, last = (LABEL.delay_days if labelled else 0), 0, dict[str, datetime]()
    for step in range(1, days * 24 // table.step_hours):
        moment = START + step * timedelta(hours=table.step_hours)
        known = known_rows(events, labels, moment, label)
        for shop in "0123":
            want = expected(table, [row for row in known if row["shop"] == shop], moment, delay)
            row = rows.get((shop, pd.Timestamp(moment)))
            if row is None:
                assert want == nothing
                continue
            last[shop], checked = moment, checked + 1
            assert_row(row, want, f"{shop} {moment}")
    assert checked == len(rows) > 50
    # The last row of each entity is one of defaults: the entity has left the longest window.
    for shop, moment in last.items():
        assert_row(rows[(shop, pd.Timestamp(moment))], nothing, f"{shop} {moment}")


@pytest.mark.parametrize("every", others_in_ci(["1d", "1h"]))
def test_the_order_of_rows_and_the_days_computed_together_do_not_matter(every: str) -> None:
    fields = {"entity": "shop", "ttl_days": 7, "every": every, "windows": ["1d", "2d"], "label": "late"}
    table = FeatureTable.model_validate({**fields, "aggregations": all_functions()})
    events, labels = feeds(3, rows=400)
    for event in events:
        event["amount"] = event["amount"] and event["amount"] * 1e5 / 3
    order = ["day", "shop"] if every == "1d" else ["feature_timestamp", "shop"]
    once = computed(table, events, labels, LABEL, 14).to_pandas().sort_values(order, ignore_index=True)
    again = computed(table, events[::-1], labels[::-1], LABEL, 14).to_pandas().sort_values(order, ignore_index=True)
    pd.testing.assert_frame_equal(once, again, check_exact=True)
    one = START.date() + timedelta(days=9)
    since = one - timedelta(days=table.days_of_history(LABEL.delay_days))
    recent = [event for event in events if event["at"].date() >= since]
    alone = computed(table, recent, labels, LABEL, 10).to_pandas().sort_values(order, ignore_index=True)
    same = [frame[pd.to_datetime(frame["day"]).dt.date == one].reset_index(drop=True) for frame in (once, alone)]
    assert len(same[0]) > 3
    pd.testing.assert_frame_equal(*same, check_exact=True)


def test_deviations_of_close_numbers_do_not_cancel() -> None:
    table = FeatureTable.model_validate(
        {
            "entity": "shop",
            "ttl_days": 7,
            "windows": ["1d"],
            "aggregations": {"s": {"function": "std", "column": "amount"}},
        }
    )
    amounts = [1e9 + 0.25, 1e9 + 0.5, 1e9 + 0.75]
    events = [
        {"id": i, "at": START, "shop": "a", "amount": amount, "pieces": 1, "order": "web"}
        for i, amount in enumerate(amounts)
    ]
    found = computed(table, events, [], None, 3).to_pandas()
    assert found["s_1d"].tolist() == [0.25, 0.0]


def test_deviations_of_large_numbers_with_few_digits_do_not_overflow() -> None:
    aggregation = {"function": "std", "column": "amount", "decimals": 0}
    fields = {"entity": "shop", "ttl_days": 7, "windows": ["1d"], "aggregations": {"s": aggregation}}
    events = [
        {"id": i, "at": START, "shop": "a", "amount": 1e13 + i % 2, "pieces": 1, "order": "web"} for i in range(1000)
    ]
    found = computed(FeatureTable.model_validate(fields), events, [], None, 3).to_pandas()
    assert found["s_1d"][0] == pytest.approx(0.50025, abs=1e-5)
    aggregation["decimals"] = 4
    with pytest.raises(SqlError, match="INT128"):
        computed(FeatureTable.model_validate(fields), events, [], None, 3)


def test_a_label_that_stands_in_the_events_needs_no_join() -> None:
    table = FeatureTable.model_validate(
        {
            "entity": "shop",
            "ttl_days": 7,
            "windows": ["1d"],
            "aggregations": {"s": {"function": "mean", "column": "pieces"}},
        }
    )
    assert "JOIN" not in feature_sql(table, COLUMNS, "at")


def test_the_sql_is_readable() -> None:
    table = FeatureTable.model_validate(
        {"entity": "shop", "ttl_days": 7, "windows": ["1d", "7d"], "aggregations": {"visits": {"function": "count"}}}
    )
    assert feature_sql(table, COLUMNS, "at") == (
        """WITH buckets AS (
    SELECT
        events."shop" AS entity,
        CAST(events."at" AS DATE) AS bucket,
        count(*) AS "n"
    FROM events
    GROUP BY ALL
), spread AS (
    SELECT
        entity,
        bucket + age AS moment,
        age AS age,
        "n"
    FROM buckets, (SELECT CAST(range AS INTEGER) AS age FROM range(1, 9))
    WHERE bucket + age >= $start AND bucket + age < $end
), summed AS (
    SELECT
        entity,
        moment,
        coalesce(sum("n") FILTER (WHERE age <= 1), 0)::FLOAT AS "visits_1d",
        coalesce(sum("n") FILTER (WHERE age <= 7), 0)::FLOAT AS "visits_7d"
    FROM spread
    GROUP BY entity, moment
)
SELECT
    entity AS "shop",
    moment AS day,
    "visits_1d",
    "visits_7d"
FROM summed
"""
    )


def test_days_of_history() -> None:
    def history(every: str, windows: list[str], delay: int = 0) -> int:
        fields = {"entity": "shop", "ttl_days": 1, "every": every, "windows": windows}
        return FeatureTable.model_validate({**fields, "aggregations": {"n": {"function": "count"}}}).days_of_history(
            delay
        )

    assert history("1d", ["1d", "30d"]) == 31
    assert history("1d", ["30d"], 7) == 38
    assert history("1h", ["1h"]) == 1
    assert history("1h", ["23h"]) == 1
    assert history("1h", ["24h"]) == 2
    assert date(2026, 1, 1) - timedelta(days=history("1h", ["1d"], 2)) == date(2025, 12, 28)


@pytest.mark.parametrize(
    ("every", "windows", "labelled"),
    others_in_ci(
        [
            ("1d", ["1d", "3d"], False),
            ("1h", ["1h", "5h", "1d"], True),
            ("1d", ["1d", "3d"], True),
            ("1h", ["1h", "5h", "1d"], False),
        ],
        first=2,
    ),
)
def test_an_event_is_joined_to_what_was_known_at_its_day_or_hour(
    every: str, windows: list[str], labelled: bool
) -> None:
    fields = {
        "entity": "shop",
        "ttl_days": 30,
        "every": every,
        "windows": windows,
        "label": "late" if labelled else None,
    }
    table = FeatureTable.model_validate({**fields, "aggregations": all_functions()})
    label, delay = (LABEL, LABEL.delay_days) if labelled else (None, 0)
    events, labels = feeds(5)
    rows = computed(table, events, labels, label, 14)
    if every == "1d":
        rows = rows.append_column("feature_timestamp", rows["day"].cast(pa.timestamp("us")))
    times = rows["feature_timestamp"].cast(pa.timestamp("us", tz="UTC"))
    rows = rows.set_column(rows.schema.get_field_index("feature_timestamp"), "feature_timestamp", times)
    names = [feature.name for feature in table.features()]
    asked = pa.table(
        {"at": pa.array([event["at"] for event in events], times.type), "shop": [event["shop"] for event in events]}
    )
    timed = TimedRows(rows=rows, keys={"shop": "shop"}, time="feature_timestamp", columns=names, ttl=timedelta(days=30))
    found, known = DuckDb().newest(asked, "at", timed).to_pylist(), 0
    for event, row in zip(events, found, strict=True):
        at = event["at"].replace(minute=0, second=0)
        moment = at.replace(hour=0) if every == "1d" else at
        past = known_rows(events, labels, moment, label)
        want = expected(table, [each for each in past if each["shop"] == event["shop"]], moment, delay)
        if event["shop"] is None:
            assert set(row.values()) == {None}
        elif row["seen_" + windows[0]] is None:  # The entity has no row yet.
            assert want == {feature.name: feature.default for feature in table.features()}
        else:
            known += want[f"seen_{windows[-1]}"] > 0
            values = [np.nan if row[name] is None else row[name] for name in names]
            wanted = [np.nan if want[name] is None else want[name] for name in names]
            np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-6, err_msg=f"{event} {moment}")
    assert known > 30
