"""The point-in-time join of the feature engines against Feast's, and its rules one by one."""

import tempfile
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.adapters.engines import ENGINES, engine_of
from training.adapters.features.history import look_up, timed_rows
from training.compat.feast import quick_import
from training.domain.feature_engine import FeatureEngine, TimedRows

pytestmark = pytest.mark.ci

START = datetime(2026, 1, 5, tzinfo=UTC)
HOUR, MICROSECOND = timedelta(hours=1), timedelta(microseconds=1)
TIME = pa.timestamp("us", tz="UTC")

#: Every view's ttl is a difference of two of these times, give or take a microsecond.
TIMES = st.builds(
    lambda hours, micros: START + timedelta(hours=hours) + micros * MICROSECOND,
    st.sampled_from([0, 1, 2, 3, 26, 27]),
    st.integers(-1, 1),
)
CARDS = st.sampled_from([1, 2, 2**53, 2**53 + 1])
SHOPS = st.sampled_from(["a", "A", "", "ü", "1"])
FEATURE_ROWS = st.lists(st.tuples(CARDS | st.none(), SHOPS | st.none(), TIMES, st.none() | TIMES), max_size=40)
EVENTS = st.lists(
    st.tuples(CARDS | st.none() | st.just(99), SHOPS | st.none() | st.just("nobody"), TIMES), min_size=1, max_size=40
)
VIEWS = {
    "by_card": (["card"], timedelta(hours=2), "created"),
    "by_shop": (["shop"], timedelta(days=1), ""),
    "by_both": (["card", "shop"], timedelta(0), "created"),
}


@pytest.fixture(scope="module")
def feast_store() -> Iterator[Any]:
    """A feast.FeatureStore with the views; they read Parquet files in its folder."""
    with quick_import():
        from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    import ibis
    from feast.repo_config import RepoConfig
    from feast.types import Float32, Int64

    # The files are written anew for every example, and the cache could return parts of the one before.
    ibis.get_backend().raw_sql("SET enable_external_file_cache = false")

    with tempfile.TemporaryDirectory() as folder:
        registry = {"registry_type": "file", "path": f"{folder}/registry.db"}
        offline, online = {"type": "duckdb"}, {"type": "sqlite", "path": f"{folder}/online.db"}
        config = RepoConfig(
            project="p", provider="local", registry=registry, offline_store=offline, online_store=online,
            entity_key_serialization_version=3, repo_path=Path(folder),
        )  # fmt: skip
        entities = {
            "card": Entity(name="card", join_keys=["card"], value_type=ValueType.INT64),
            "shop": Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING),
        }
        views = []
        for name, (keys, ttl, created) in VIEWS.items():
            path = f"{folder}/{name}.parquet"
            pq.write_table(table_of([], name), path)
            source = FileSource(
                name=name, path=path, timestamp_field="feature_timestamp", created_timestamp_column=created
            )
            fields = [Field(name=f"{name}_value", dtype=Float32), Field(name=f"{name}_count", dtype=Int64)]
            views.append(
                FeatureView(name=name, entities=[entities[key] for key in keys], ttl=ttl, schema=fields, source=source)
            )
        store = FeatureStore(config=config)
        store.apply([*entities.values(), *views])
        yield store


def table_of(rows: list[tuple], view: str) -> pa.Table:
    """The rows as a feature table. Rows of one entity, time and creation time have the same values: Feast takes any."""
    keys, _, created = VIEWS[view]
    given = [
        (card if "card" in keys else 0, shop if "shop" in keys else "", time, made) for card, shop, time, made in rows
    ]
    values = [zlib.crc32(repr(row if created else row[:3]).encode()) % 1000 for row in given]
    columns = {
        "card": pa.array([row[0] for row in given], pa.int64()),
        "shop": pa.array([row[1] for row in given], pa.string()),
        "feature_timestamp": pa.array([row[2] for row in given], TIME),
        "created": pa.array([row[3] for row in given], TIME),
        f"{view}_value": pa.array([value / 8 for value in values], pa.float32()),
        f"{view}_count": pa.array([value + 1 for value in values], pa.int64()),
    }
    return pa.table(columns)


def by_feast(store: Any, events: pd.DataFrame, tables: dict[str, pa.Table]) -> pd.DataFrame:
    refs = [f"{name}:{column}" for name in VIEWS for column in (f"{name}_value", f"{name}_count")]
    for view in store.list_feature_views():
        pq.write_table(tables[view.name], view.batch_source.path)
    found = store.get_historical_features(events.assign(place=np.arange(len(events))), refs).to_df()
    return found.sort_values("place", ignore_index=True)


@pytest.mark.parametrize("name", ENGINES)
def test_the_join_is_that_of_feast(name: str, feast_store: Any, request: pytest.FixtureRequest) -> None:
    engine = engine_of(name, request)

    @settings(max_examples=3 if name == "spark" else 25, deadline=None)
    @given(EVENTS, FEATURE_ROWS)
    def equal(asked: list[tuple], rows: list[tuple]) -> None:
        events = pd.DataFrame(
            {
                "card": pd.array([row[0] for row in asked], "Int64"),
                "shop": pd.array([row[1] for row in asked], object),
                "event_timestamp": pd.DatetimeIndex([row[2] for row in asked]).as_unit("us"),
            }
        )
        tables = {view: table_of(rows, view) for view in VIEWS}
        want = by_feast(feast_store, events, tables)
        views = [
            timed_rows(view, view.join_keys, [f.name for f in view.features], tables[view.name])
            for view in feast_store.list_feature_views()
        ]
        found = look_up(engine, events, pd.DatetimeIndex(events["event_timestamp"]), views)
        assert len(found) == 2 * len(VIEWS)
        for column, values in found.items():
            np.testing.assert_array_equal(values, want[column].astype(np.float32), err_msg=column)

    equal()


def newest(engine: FeatureEngine, asked: list[tuple], rows: list[tuple], **rules: Any) -> list[float | None]:
    """`asked`: (key, hour); `rows`: (key, hour, value, hour of creation). The values that are found."""
    events = pa.table(
        {
            "key_0": [row[0] for row in asked],
            "time": pa.array([None if row[1] is None else START + row[1] * HOUR for row in asked], TIME),
        }
    )
    features = pa.table(
        {
            "row": pa.array([row[0] for row in rows], pa.int64()),
            "key_0": pa.array([None if row[1] is None else START + row[1] * HOUR for row in rows], TIME),
            "time": pa.array([row[2] for row in rows], pa.float64()),
            "created": pa.array([None if row[3] is None else START + row[3] * HOUR for row in rows], TIME),
        }
    )
    # Of the names, each is a name that a join may use itself.
    given = TimedRows(features, keys={"key_0": "row"}, time="key_0", columns=["time"], **rules)
    found = engine.newest(events, "time", given)
    assert found.column_names == ["time"]
    values: list[float | None] = found["time"].to_pylist()
    return values


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> FeatureEngine:
    return engine_of(request.param, request)


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
class TestAnEngine:
    def test_takes_the_newest_row_that_is_not_after_the_event(self, engine: FeatureEngine) -> None:
        rows = [(1, 3, 3.0, None), (1, 1, 1.0, None), (2, 2, 2.0, None), (1, None, 4.0, None), (None, 1, 5.0, None)]
        asked = [(1, 0), (1, 1), (1, 2), (1, 3), (1, 9000), (2, 2), (3, 2), (None, 2), (1, None)]
        assert newest(engine, asked, rows) == [None, 1.0, 1.0, 3.0, 3.0, 2.0, None, None, None]

    def test_takes_no_row_that_is_older_than_the_ttl(self, engine: FeatureEngine) -> None:
        rows = [(1, 0, 1.0, None)]
        assert newest(engine, [(1, 2)], rows, ttl=2 * HOUR) == [1.0]
        assert newest(engine, [(1, 2)], rows, ttl=2 * HOUR - MICROSECOND) == [None]

    def test_takes_the_row_that_was_made_last(self, engine: FeatureEngine) -> None:
        rows = [(1, 0, 1.0, 5), (1, 0, 2.0, 9), (1, 0, 3.0, 7), (1, 0, 4.0, None)]
        assert newest(engine, [(1, 2)], rows, created="created") == [2.0]

    def test_takes_no_row_for_an_event_without_one_of_the_keys(self, engine: FeatureEngine) -> None:
        keys = {"card": pa.array([1, 1, None, None], pa.int64()), "shop": pa.array(["a", None, "a", None])}
        rows = pa.table(keys | {"time": pa.array([START] * 4, TIME), "value": [1.0, 2.0, 3.0, 4.0]})
        features = TimedRows(rows, {"card": "card", "shop": "shop"}, time="time", columns=["value"])
        found = engine.newest(rows.drop_columns("value"), "time", features)
        assert found["value"].to_pylist() == [1.0, None, None, None]

    def test_takes_the_same_of_equal_rows_whatever_their_order(self, engine: FeatureEngine) -> None:
        rows = [(1, 0, float(value), 1) for value in range(5)]
        for created in ("created", None):
            ways = (rows, rows[::-1], rows[2:] + rows[:2])
            assert len({tuple(newest(engine, [(1, 2)], way, created=created)) for way in ways}) == 1

    def test_takes_nothing_from_an_empty_table_and_for_no_events(self, engine: FeatureEngine) -> None:
        assert newest(engine, [(1, 2), (1, 2)], []) == [None, None]
        assert newest(engine, [], [(1, 0, 1.0, None)]) == []
