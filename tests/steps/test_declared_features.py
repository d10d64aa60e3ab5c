"""Declared feature tables through the steps: hourly rows, values that may be missing, string entities, no files."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from local.landing import land_table
from testing.pipeline import Pipeline
from testing.spec_files import raw_specs
from training.adapters.features import Features, OnlineRows
from training.adapters.lake import Lake
from training.contract.base import Days, TableVersions
from training.contract.messages import DatasetInputs, FeaturesInputs
from training.contract.model_spec import ModelSpec, load_model_spec
from training.settings import Settings
from training.steps import check, dataset, features

START = datetime(2026, 1, 5, tzinfo=UTC)
SOURCE, MODEL = "shops", "visits"
TIME = pa.timestamp("us", tz="UTC")
EVENT_COLUMNS = {
    "visit": {"type": "int64", "unique": True},
    "seen_at": {"type": "timestamp"},
    "shop": {"type": "string", "nullable": True},
    "amount": {"type": "float64", "nullable": True},
    "is_member": {"type": "bool"},
}
TABLES: dict[str, Any] = {
    "shop_hours": {
        "entity": "shop",
        "ttl_days": 2,
        "every": "1h",
        "windows": ["1h", "6h"],
        "aggregations": {
            "hour_count": {"function": "count"},
            "hour_mean": {"function": "mean", "column": "amount", "default": None},
            "idle": {"function": "time_since_last", "windows": ["6h"]},
        },
    },
    "shop_days": {
        "entity": "shop",
        "ttl_days": 7,
        "windows": ["2d"],
        "label": "bought",
        "aggregations": {"bought_share": {"function": "share", "condition": "bought = 1 AND amount > 1"}},
    },
}


class World:
    """A source without .py and .sql file, and a model that learns from it."""

    def __init__(self, folder: Path, tables: dict[str, Any]) -> None:
        model, _ = raw_specs()
        model |= {"name": MODEL, "source": SOURCE, "label": "bought", "features": "all"}
        model["evaluation"]["entity"] = model["rollout"]["sticky_by"] = "shop"
        labels = {"visit": EVENT_COLUMNS["visit"], "bought": {"type": "int64", "values": [0, 1]}}
        rows = {"minimum_ratio": 0, "maximum_ratio": 99}
        feeds = {
            "events": {"time_column": "seen_at", "id_column": "visit", "row_count": rows, "columns": EVENT_COLUMNS},
            "labels": {
                "time_column": "told_at",
                "id_column": "visit",
                "row_count": rows,
                "columns": labels | {"told_at": {"type": "timestamp"}},
            },
        }
        source = {
            "name": SOURCE,
            "title": "Visits",
            "owner": "someone",
            "feeds": feeds,
            "labels": {"bought": {"feed": "labels", "delay_days": 1}},
            "features": {"event_columns": ["amount", "is_member", "shop"], "tables": tables},
        }
        for name, fields in (("models", model), ("repo", source)):
            (folder / name).mkdir()
            (folder / name / f"{fields['name']}.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
        (folder / "repo" / "feature_store.yaml").write_text(
            (Settings().feature_repo / "feature_store.yaml").read_text()
        )
        self.settings = Settings(home=folder / "home", models_dir=folder / "models", feature_repo=folder / "repo")
        self.lake = Lake(self.settings.lake, SOURCE)
        self.events, self.labels = visits()

    @property
    def spec(self) -> ModelSpec:
        return load_model_spec(MODEL, self.settings.models_dir, self.settings.feature_repo)

    def put(self, keep: Callable[[pd.DataFrame], Any] = lambda events: events.index >= 0) -> None:
        """The events that `keep` selects, and all labels, into the lake."""
        for table, frame in (("events", self.events[keep(self.events)]), ("labels", self.labels)):
            rows = pa.Table.from_pandas(frame.assign(partition="all"), preserve_index=False)
            fields = [field.with_type(TIME) if pa.types.is_timestamp(field.type) else field for field in rows.schema]
            self.lake.replace(table, rows.cast(pa.schema(fields)), "partition = 'all'", ["partition"])

    def land(self, n: int, keep: Callable[[pd.DataFrame], Any] = lambda rows: rows.index >= 0) -> list[Path]:
        """The files of day n: its events that `keep` selects, and the labels that were told on it."""
        found = []
        for feed, frame, time in (("events", self.events, "seen_at"), ("labels", self.labels, "told_at")):
            rows = frame[(frame[time].dt.date == day(n)) & (keep(frame) if feed == "events" else True)]
            if len(rows):
                table = pa.Table.from_pandas(rows, preserve_index=False)
                found.append(land_table(table, Path(self.settings.landing), SOURCE, feed, Days.ending(day(n + 1), 1)))
        return found

    def compute(self, first: int, end: int) -> TableVersions:
        """The rows of days [first, end) by the features step."""
        days = Days(start=day(first), end=day(end))
        versions = self.lake.versions("events", "labels")
        return features.run(
            FeaturesInputs(source=SOURCE, days=days, table_versions=versions), self.settings
        ).table_versions

    def rows(self, table: str) -> pd.DataFrame:
        return (
            self.lake.scan(table).to_table().to_pandas().sort_values(["feature_timestamp", "shop"], ignore_index=True)
        )


def day(n: int) -> date:
    return START.date() + timedelta(days=n)


def visits(days: int = 5, per_day: int = 30) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng, n = np.random.default_rng(1), days * per_day
    times = pd.Timestamp(START) + pd.to_timedelta(np.sort(rng.integers(0, days * 86_400, n)), unit="s")
    events = pd.DataFrame(
        {
            "visit": np.arange(n),
            "seen_at": times.as_unit("us"),
            "shop": rng.choice(["a", "b", "c", None], n, p=[0.5, 0.3, 0.15, 0.05]),
            "amount": np.where(rng.random(n) < 0.2, np.nan, rng.integers(1, 500, n) / 100),
            "is_member": rng.random(n) < 0.5,
        }
    )
    told = events["seen_at"] + pd.to_timedelta(rng.integers(0, 3 * 86_400, n), unit="s")
    labels = pd.DataFrame({"visit": events["visit"], "bought": rng.integers(0, 2, n), "told_at": told})
    return events, labels


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, TABLES)


def expected_hours(events: pd.DataFrame, shop: str, hour: datetime) -> dict[str, float]:
    """The features of shop_hours, from the events before `hour`."""
    own = events[(events["shop"] == shop) & (events["seen_at"] < hour)]
    found = {}
    for window in (1, 6):
        recent = own[own["seen_at"] >= hour - timedelta(hours=window)]
        found[f"hour_count_{window}h"] = float(len(recent))
        found[f"hour_mean_{window}h"] = recent["amount"].mean()
    last = own["seen_at"].max()
    idle = (hour - last).total_seconds() / 3600 if len(own) else 6.0
    return found | {"idle_6h": min(idle, 6.0)}


def test_the_files_have_no_mistakes(world: World) -> None:
    assert check.find_source_problems(SOURCE, world.settings) == []
    assert check.find_model_problems(MODEL, world.settings) == []


def test_events_get_what_was_known_at_their_hour_in_training_and_online(world: World) -> None:
    world.put()
    versions = world.compute(0, 6)
    names = Features(world.settings, world.spec).names()
    assert names[:3] == ["amount", "is_member", "shop"]
    assert names[3:] == ["hour_count_1h", "hour_count_6h", "hour_mean_1h", "hour_mean_6h", "idle_6h", "bought_share_2d"]
    made = Features(world.settings, world.spec).historical(world.events, versions)
    for (_, event), (_, row) in zip(world.events.iterrows(), made.iterrows(), strict=True):
        hour = event["seen_at"].floor("h").to_pydatetime()
        want = expected_hours(world.events, event["shop"], hour)
        np.testing.assert_allclose(row[list(want)].astype(float), list(want.values()), rtol=1e-5, err_msg=str(event))
    OnlineRows(world.settings, world.spec.source).materialize(versions)
    now = world.events.tail(1).assign(seen_at=world.events["seen_at"].max().ceil("h"))
    asked = pd.concat([now.assign(shop=shop) for shop in ("a", "b", "c", "none")], ignore_index=True)
    online = Features(world.settings, world.spec).online(asked.to_dict("records")).values
    past = Features(world.settings, world.spec).historical(asked, versions)
    numbers = [name for name in names if name != "shop"]
    same = [names.index(name) for name in numbers]
    np.testing.assert_array_equal(online[:, same], past[numbers].to_numpy(np.float32))
    want = [
        expected_hours(world.events, shop, now["seen_at"].item())["hour_count_6h"] for shop in ("a", "b", "c", "none")
    ]
    assert online[:, names.index("hour_count_6h")].tolist() == want
    assert want[0] > 0


def test_hourly_rows_end_at_the_hour_after_the_newest_event(world: World) -> None:
    noon = pd.Timestamp(START) + pd.Timedelta(days=2, hours=12, minutes=30)
    world.put(lambda events: events["seen_at"] < noon)
    world.compute(0, 6)
    newest = world.events["seen_at"][world.events["seen_at"] < noon].max()
    assert world.rows("shop_hours")["feature_timestamp"].max() == newest.floor("h") + pd.Timedelta(hours=1)
    assert world.rows("shop_days")["feature_timestamp"].max() == pd.Timestamp(day(3), tz="UTC")


@pytest.mark.long
def test_hourly_rows_follow_landed_files_through_the_steps(world: World) -> None:
    """Day by day, then a corrected day: as if all had been there from the start. The last hour is online."""
    pipeline = Pipeline(world.settings)
    late = world.events.index % 2 == 0
    for n in range(5):
        pipeline.ingest(SOURCE, world.land(n, lambda events: ~late) if n == 2 else world.land(n))
    partial = world.rows("shop_hours")
    pipeline.ingest(SOURCE, world.land(2))
    step_by_step = {table: world.rows(table) for table in TABLES}
    assert not step_by_step["shop_hours"].equals(partial)

    newest = world.events["seen_at"].max()
    rows = step_by_step["shop_hours"]
    assert rows["feature_timestamp"].max() == newest.floor("h") + pd.Timedelta(hours=1)
    for _, row in rows.sample(40, random_state=1).iterrows():
        want = expected_hours(world.events, row["shop"], row["feature_timestamp"].to_pydatetime())
        np.testing.assert_allclose(row[list(want)].astype(float), list(want.values()), rtol=1e-5, err_msg=str(row))
    world.lake.overwrite("shop_hours", pa.Table.from_pandas(rows.head(0)), ["day"])
    world.compute(0, 6)
    pd.testing.assert_frame_equal(world.rows("shop_hours"), rows, check_exact=True)

    done = pipeline.step("materialize", source=SOURCE, table_versions=world.lake.versions("events", *TABLES))
    assert done.rows == {"shop_hours": 3, "shop_days": 3}
    asked = world.events.tail(1).assign(seen_at=newest.ceil("h") + pd.Timedelta(minutes=5), shop="a")
    features = Features(world.settings, world.spec)
    online = dict(zip(features.names(), features.online(asked.to_dict("records")).values[0], strict=True))
    want = expected_hours(world.events, "a", newest.ceil("h").to_pydatetime())
    np.testing.assert_allclose([online[name] for name in want], list(want.values()), rtol=1e-5)


@pytest.mark.ci
def test_only_the_affected_days_need_to_be_computed_again(world: World) -> None:
    from training.domain.partitions import affected_days

    source = world.spec.source
    world.put()
    world.compute(0, 6)
    want = {table: world.rows(table) for table in TABLES}
    late = (world.events["seen_at"].dt.date == day(2)) & (world.events.index % 2 == 0)
    world.put(lambda events: ~late)
    world.compute(0, 6)
    assert not world.rows("shop_hours").equals(want["shop_hours"])
    world.put()
    changed = Days(start=day(2), end=day(3))
    days = affected_days(changed, source.history_days, day(5), hourly=bool(source.hourly_tables))
    assert days is not None
    assert days.start == day(2)
    world.compute((days.start - day(0)).days, (days.end - day(0)).days)
    for table, rows in want.items():
        pd.testing.assert_frame_equal(world.rows(table), rows, check_exact=True)


def test_a_source_may_have_event_columns_only(tmp_path: Path) -> None:
    world = World(tmp_path, {})
    assert check.find_source_problems(SOURCE, world.settings) == []
    world.put()
    made = Features(world.settings, world.spec).historical(world.events, {})
    assert Features(world.settings, world.spec).names() == ["amount", "is_member", "shop"]
    np.testing.assert_array_equal(made["amount"], world.events["amount"])
    online = Features(world.settings, world.spec).online(world.events.head(3).to_dict("records")).values
    np.testing.assert_array_equal(online[:, :2], made[["amount", "is_member"]].head(3).to_numpy(np.float32))


@pytest.mark.ci
def test_a_dataset_has_an_entity_that_is_a_feature_once(tmp_path: Path) -> None:
    """With hourly tables, a table of labels, event columns, and categories that are learned from training rows."""
    world = World(tmp_path, TABLES)
    world.events, world.labels = visits(days=12, per_day=60)
    world.labels["told_at"] = world.events["seen_at"] + pd.Timedelta(hours=20)
    world.put()
    world.compute(0, 13)
    path = world.settings.models_dir / f"{MODEL}.yaml"
    fields = yaml.safe_load(path.read_text())
    fields["training"] |= {"window_days": 4, "holdout_days": 2, "minimum_rows": 20}
    path.write_text(yaml.safe_dump(fields, sort_keys=False))
    found = dataset.run(DatasetInputs(model=MODEL, as_of=day(12)), world.settings)
    assert found.feature_names[:3] == ["amount", "is_member", "shop"]
    train = pd.read_parquet(found.train.uri)
    assert list(train.columns).count("shop") == 1
    assert set(train["shop"].dropna()) == {"a", "b", "c"}
    assert train["hour_mean_1h"].isna().any()
    assert not train["hour_count_1h"].isna().any()
