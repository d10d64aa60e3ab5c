"""Features through Feast: history, online values, and that both are the same."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from testing.feast_join import join_with_feast
from testing.redis_server import running_redis
from testing.spec_files import Raw, spec_files
from tests.adapters.redis_reads import read_from_redis
from tests.cases import others_in_ci
from tests.feature_repo.payments_and_features import (
    MODEL,
    SOURCE,
    compute,
    day,
    expected,
    midnight,
    payments,
    put,
    rows_of,
)
from tests.feature_repo.written_by_hand import copy_by_hand
from training.adapters.features import (
    FeaturePlan,
    Features,
    MergedViews,
    OnlineRows,
    check_golden_features,
    definitions_digest,
    request_code,
    request_column,
)
from training.adapters.features.history import event_columns
from training.adapters.lake import Lake
from training.adapters.tables import Events
from training.contract.artifact import Golden
from training.contract.base import Days, TableVersions
from training.contract.errors import ConfigError, DataContractError, InputError, TransientError
from training.contract.feature_definitions import FeatureDefinitions
from training.contract.model_spec import Column, ModelSpec, load_model_spec
from training.domain.arrow_types import arrow_type, as_exact_pandas
from training.settings import Settings

DAYS = 50


@dataclass
class World:
    settings: Settings
    spec: ModelSpec
    events: pd.DataFrame
    labels: pd.DataFrame
    versions: TableVersions

    @property
    def features(self) -> Features:
        """As a process of its own would have it."""
        return Features(self.settings, self.spec)

    @property
    def online_rows(self) -> OnlineRows:
        return OnlineRows(self.settings, self.spec.source)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Fifty days of payments with labels of any delay; feature rows for all of them."""
    settings = Settings(home=tmp_path_factory.mktemp("features"))
    events, labels = payments(DAYS, per_day=6, delays=(2, 7, 12, -1))
    put(settings, events, labels)
    versions = compute(settings, 0, DAYS + 1)
    return World(settings, load_model_spec(MODEL), events, labels, versions)


@pytest.fixture
def world(filled: World, tmp_path: Path) -> World:
    """The filled lake, to be changed at will; nothing online yet."""
    home = tmp_path / "home"
    shutil.copytree(filled.settings.home / "lake", home / "lake")
    settings = Settings(home=home)
    return World(settings, filled.spec, filled.events, filled.labels, dict(filled.versions))


def requests(world: World, n: int, **changes: object) -> list[dict]:
    """Payments of day n, as a client would send them."""
    rows = world.events[world.events["event_time"].dt.date == day(n)]
    return rows.assign(**changes).to_dict("records")


def today(world: World) -> list[dict]:
    """The payments of the last day, made a day later: after the midnight of the newest feature rows."""
    rows = world.events[world.events["event_time"].dt.date == day(DAYS - 1)]
    return rows.assign(event_time=rows["event_time"] + timedelta(days=1)).to_dict("records")


def test_names_are_those_of_the_service_in_its_order(filled: World) -> None:
    names = filled.features.names()
    assert names[0] == "customer_count_1d"
    assert names[-5:] == ["payment_amount", "weekend", "night", "amount_over_mean_7d", "amount_over_mean_30d"]
    assert len(names) == len(set(names)) == 17


def test_history_is_what_was_known_at_the_midnight_before(filled: World) -> None:
    rows = filled.events.sample(40, random_state=1)
    found = filled.features.historical(rows, filled.versions)
    want = expected(filled.events, filled.labels, rows)
    pd.testing.assert_frame_equal(found[list(rows)], rows)
    assert list(found) == list(rows) + filled.features.names()
    assert set(found[filled.features.names()].dtypes) == {np.dtype(np.float32)}
    np.testing.assert_allclose(found[list(want)], want, rtol=1e-5)
    assert found["terminal_fraud_share_30d"].max() > 0


@pytest.mark.long
def test_history_is_what_feast_itself_joins(filled: World) -> None:
    rows = filled.events.sample(frac=0.7, random_state=2)
    rows.loc[rows.index[::10], "customer_id"] = 999
    later = rows["event_time"] + pd.to_timedelta(np.arange(len(rows)) % 20, unit="D")
    rows = rows.assign(event_time=later.dt.as_unit("us"))
    want = join_with_feast(filled.settings, filled.spec, rows, filled.versions)
    pd.testing.assert_frame_equal(filled.features.historical(rows, filled.versions)[filled.features.names()], want)


def test_history_takes_equal_rows_apart_and_other_clocks(filled: World) -> None:
    rows = pd.concat([filled.events.iloc[[200, 200, 40]]] * 2)
    elsewhere = rows.assign(event_time=rows["event_time"].dt.tz_convert("Asia/Tokyo").dt.as_unit("ns"))
    names = filled.features.names()
    found = filled.features.historical(elsewhere, filled.versions)
    assert found.index.tolist() == [200, 200, 40] * 2
    np.testing.assert_array_equal(found[names], filled.features.historical(rows, filled.versions)[names])


def test_unknown_entities_have_defaults_in_history_and_online(world: World) -> None:
    stranger = pd.DataFrame(requests(world, 40)[:1]).assign(customer_id=999, terminal_id=998, amount=20.0)
    past = world.features.historical(stranger, world.versions)[world.features.names()]
    world.online_rows.materialize(world.versions)
    online = world.features.online(stranger.to_dict("records"))
    assert online.timestamps == [None]
    np.testing.assert_array_equal(online.values, past)
    batch = [n for n in past if n.startswith(("customer", "terminal"))]
    assert not past[batch].to_numpy().any()
    assert past["amount_over_mean_7d"].tolist() == [1.0]


def test_online_and_history_give_the_same_bits(world: World) -> None:
    """The pledge of training and serving: the same entities in the same state have the same features."""
    as_of, written = world.online_rows.materialize(world.versions)
    assert as_of == day(DAYS)
    assert written == {"customer_features": 6, "terminal_features": 6}
    rng = np.random.default_rng(3)
    n = 60
    rows = pd.DataFrame(
        {
            "transaction_id": np.arange(n),
            "event_time": pd.DatetimeIndex(
                [midnight(DAYS) + timedelta(seconds=int(s)) for s in rng.integers(0, 86_400, n)]
            ),
            "customer_id": rng.integers(0, 8, n),
            "terminal_id": rng.integers(100, 108, n),
            "amount": rng.random(n) * 300,
        }
    )
    online = world.features.online(rows.to_dict("records"))
    past = world.features.historical(rows, world.versions)[world.features.names()].to_numpy()
    assert online.values.dtype == np.float32
    np.testing.assert_array_equal(online.values, past)
    known = (rows["customer_id"] < 6) & (rows["terminal_id"] < 106)
    assert online.timestamps == [midnight(DAYS) if k else None for k in known]
    assert known.any()
    assert not known.all()


def test_times_may_be_text_and_no_rows_are_no_values(world: World) -> None:
    world.online_rows.materialize(world.versions)
    (row, *_) = today(world)
    text = row | {"event_time": row["event_time"].isoformat().replace("+00:00", "Z")}
    features = world.features
    np.testing.assert_array_equal(features.online([text]).values, features.online([row]).values)
    assert features.online([]).values.shape == (0, 17)


def test_a_null_beside_large_ids_does_not_bend_them(tmp_path: Path) -> None:
    def nullable(model: Raw, source: Raw) -> None:
        source["feeds"]["events"]["columns"]["customer_id"]["nullable"] = True

    settings = Settings(home=tmp_path / "home", **spec_files(tmp_path, nullable))
    spec = load_model_spec(MODEL, settings.models_dir, settings.feature_repo)
    events, labels = payments(10, per_day=6)
    ids = events["customer_id"].astype("Int64") + 2**53
    put(settings, events.assign(customer_id=ids.where(events.index % 7 != 0)), labels)
    versions = compute(settings, 0, 11)
    rows = rows_of(settings, "customer_features").set_index(["customer_id", "day"])["customer_count_7d"]
    read = Events(Lake(settings.lake, SOURCE), spec.source, versions["events"]).within(Days(start=day(5), end=day(10)))
    assert read["customer_id"].isna().any()
    found = Features(settings, spec).historical(read, versions)
    keys = zip(read["customer_id"], read["event_time"].dt.date, strict=True)
    wanted = [0.0 if pd.isna(one) else rows.get((one, on), 0.0) for one, on in keys]
    assert found["customer_count_7d"].tolist() == wanted


def test_rows_too_old_do_not_count_in_history_nor_online(world: World) -> None:
    world.online_rows.materialize(world.versions)
    for age, counts in ((timedelta(days=7), True), (timedelta(days=7, seconds=1), False)):
        rows = pd.DataFrame(today(world)).assign(event_time=pd.Timestamp(midnight(DAYS) + age).as_unit("us"))
        online = world.features.online(rows.to_dict("records"))
        past = world.features.historical(rows, world.versions)[world.features.names()]
        np.testing.assert_array_equal(online.values, past)
        assert (past["customer_count_30d"] > 0).all() == counts
        assert all(stamp is not None for stamp in online.timestamps) == counts


def test_history_reads_the_pinned_versions_only(world: World) -> None:
    rows = world.events.tail(20)
    before = world.features.historical(rows, world.versions)
    put(world.settings, world.events.assign(amount=1.0), world.labels)
    newer = compute(world.settings, 0, DAYS + 1)
    assert newer["customer_features"] > world.versions["customer_features"]
    pd.testing.assert_frame_equal(world.features.historical(rows, world.versions), before)
    assert (world.features.historical(rows, newer)["customer_mean_30d"] == 1).all()


def test_a_missing_version_is_an_input_error(world: World) -> None:
    with pytest.raises(InputError, match="terminal_features"):
        world.features.historical(world.events.tail(2), {"customer_features": 0})
    with pytest.raises(InputError, match="99"):
        world.online_rows.materialize({**world.versions, "customer_features": 99})


def test_an_older_version_never_undoes_a_newer_one_online(world: World) -> None:
    old = world.versions
    put(world.settings, world.events.assign(amount=7.0), world.labels)
    new = compute(world.settings, DAYS, DAYS + 1)
    world.online_rows.materialize(new)
    as_of, written = world.online_rows.materialize(old)
    assert as_of == day(DAYS)
    assert set(written.values()) == {0}
    values = dict(zip(world.features.names(), world.features.online(today(world)).values.T, strict=True))
    assert set(values["customer_mean_30d"]) == {7.0}
    assert world.online_rows.materialize(new)[1] == {"customer_features": 6, "terminal_features": 6}


@pytest.mark.ci
def test_an_entity_that_falls_silent_does_not_keep_its_values_online(world: World) -> None:
    world.online_rows.materialize(world.versions)
    # Customer 0 stops; the others go on for longer than any window.
    more, labels = payments(DAYS + 33, per_day=6, seed=5)
    kept = more[(more["customer_id"] != 0) & (more["event_time"] >= midnight(DAYS))]
    put(world.settings, kept.assign(transaction_id=kept["transaction_id"] + 10_000), labels.iloc[:0], "more")
    versions = compute(world.settings, DAYS, DAYS + 34)
    rows = [row | {"customer_id": 0} for row in today(world)]
    world.online_rows.materialize(versions)
    online = world.features.online([row | {"event_time": midnight(DAYS + 33)} for row in rows])
    values = dict(zip(world.features.names(), online.values.T, strict=True))
    assert set(values["customer_count_30d"]) == {0.0}


def test_materialize_without_rows_is_no_error(world: World) -> None:
    lake = Lake(world.settings.lake, SOURCE, MODEL)
    for table in world.spec.source.entities:
        empty = lake.scan(table).head(0)
        lake.replace(table, empty, "true", ["day"])
    versions = lake.versions(*world.spec.source.entities)
    assert world.online_rows.materialize(versions) == (None, {"customer_features": 0, "terminal_features": 0})


def test_online_before_anything_was_materialized_knows_nobody(world: World) -> None:
    online = world.features.online(requests(world, 40))
    assert set(online.timestamps) == {None}


def test_an_online_store_that_cannot_be_read_is_transient(world: World) -> None:
    world.online_rows.materialize(world.versions)
    features = world.features
    features.online(requests(world, 40))
    with sqlite3.connect(world.settings.online) as connection:
        connection.execute("DROP TABLE perennial_customer_features")
    with pytest.raises(TransientError, match=r"online\.db"):
        features.online(requests(world, 40))


@pytest.mark.ci
def test_lookups_go_on_while_rows_are_written(world: World) -> None:
    world.online_rows.materialize(world.versions)
    features, rows = world.features, today(world)
    want = features.online(rows).values
    writer = threading.Thread(target=lambda: [world.online_rows.materialize(world.versions) for _ in range(3)])
    writer.start()
    slowest = 0.0
    while writer.is_alive():
        began = time.monotonic()
        np.testing.assert_array_equal(features.online(rows).values, want)
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 2


PROCESS = """
import json, sys
from training.adapters.features import OnlineRows
from training.contract.source_spec import load_source_spec
from training.settings import load_settings
rows = OnlineRows(load_settings(), load_source_spec("card_payments"))
print(rows.materialize(json.loads(sys.argv[1]))[0], flush=True)
"""


def process(world: World) -> subprocess.Popen:
    environment = os.environ | {"CT_HOME": str(world.settings.home)}
    command = [sys.executable, "-c", PROCESS, json.dumps(world.versions)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.long
def test_two_processes_may_materialize_at_once(world: World) -> None:
    running = [process(world) for _ in range(2)]
    assert [p.communicate()[0].strip() for p in running] == [str(day(DAYS))] * 2
    assert [p.returncode for p in running] == [0, 0]
    assert set(world.features.online(today(world)).timestamps) == {midnight(DAYS)}


@pytest.mark.long
def test_a_killed_materialization_is_done_by_the_next(world: World) -> None:
    want = world.features.historical(pd.DataFrame(today(world)), world.versions)
    for seconds in (0.5, 1.5, 2.0, 2.5):
        running = process(world)
        time.sleep(seconds)
        running.kill()
        running.communicate()
    assert world.online_rows.materialize(world.versions)[0] == day(DAYS)
    rows = pd.DataFrame(today(world)).assign(event_time=pd.Timestamp(midnight(DAYS)).as_unit("us"))
    want = world.features.historical(rows, world.versions)[world.features.names()]
    np.testing.assert_array_equal(world.features.online(rows.to_dict("records")).values, want)


def test_definitions_that_do_not_fit_the_spec_are_named(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "repo"
    copy_by_hand(folder)
    settings = Settings(home=world.settings.home, feature_repo=folder)
    good = (folder / "card_payments.py").read_text()
    spec = load_model_spec(MODEL, sources_dir=folder)
    before = definitions_digest(folder, spec.source)
    for change, said in (
        (
            good.replace('join_keys=["customer_id"]', 'join_keys=["card"]'),
            "customer_features by card instead of customer_id",
        ),
        (good.replace("    ttl=TTL,\n", ""), "no ttl"),
        (good + "\nraise RuntimeError('boom')\n", "boom"),
    ):
        assert change != good
        (folder / "card_payments.py").write_text(change)
        with pytest.raises(ConfigError, match=said):
            Features(settings, spec).names()
    assert definitions_digest(folder, spec.source) != before
    # The tables of the spec itself are declared: a view by hand would be a second definition.
    (folder / "card_payments.py").write_text(good)
    with pytest.raises(ConfigError, match=r"defines the feature views .*customer_features.* have aggregations"):
        Features(settings, world.spec).names()
    (folder / "card_payments.py").unlink()
    with pytest.raises(ConfigError, match=r"card_payments\.py does not exist, but the tables"):
        Features(settings, spec).names()


def test_a_plan_makes_what_is_wanted_and_nothing_else(world: World) -> None:
    world.online_rows.materialize(world.versions)
    features, rows = world.features, today(world)
    plan = features.plan(["terminal_count_7d", "payment_amount"])
    assert [(view.name, view.names) for view in plan.views] == [
        ("customer_features", tuple(n for n in features.names() if n.startswith("customer"))),  # the ratios' means
        ("terminal_features", ("terminal_count_7d",)),
    ]
    made = plan.assemble(rows, MergedViews([plan]).missing(len(rows)))
    assert set(made.timestamps) == {None}
    assert made.values.shape == (len(rows), 2)
    assert made.values[:, 1].all()


@pytest.mark.redis
def test_redis_gives_the_same_values(world: World, tmp_path: Path) -> None:
    with running_redis(tmp_path) as port:
        settings = Settings(home=world.settings.home, online_store=f"redis://127.0.0.1:{port}/1")
        rows = today(world)
        world.online_rows.materialize(world.versions)
        features = Features(settings, world.spec)
        OnlineRows(settings, world.spec.source).materialize(world.versions)
        there, here = features.online(rows), world.features.online(rows)
        np.testing.assert_array_equal(there.values, here.values)
        assert there.timestamps == here.timestamps
        strangers = [row | {"customer_id": nobody} for row, nobody in zip(rows, (999, None), strict=False)]
        read_directly = read_from_redis(settings, features, [*rows, *strangers])
        want = features.online([*rows, *strangers])
        np.testing.assert_array_equal(read_directly.values, want.values)
        assert read_directly.timestamps == want.timestamps
        # The same day with other values must arrive too.
        put(settings, world.events.assign(amount=7.0), world.labels)
        OnlineRows(settings, world.spec.source).materialize(compute(settings, DAYS, DAYS + 1))
        assert not np.array_equal(features.online(rows).values, here.values)
    with pytest.raises(TransientError, match=r"127\.0\.0\.1"):
        features.online(rows)


def test_the_feature_rows_are_in_the_lake_as_float32(filled: World) -> None:
    rows = rows_of(filled.settings, "customer_features")
    assert rows["customer_mean_30d"].dtype == np.float32
    assert not rows.duplicated(["customer_id", "day"]).any()


def changed_repo(folder: Path, *changes: tuple[str, str]) -> Path:
    """A copy of the feature repo in which card_payments.py is changed: old text → new text."""
    copy_by_hand(folder)
    text = (folder / "card_payments.py").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "card_payments.py").write_text(text)
    return folder


def test_the_definitions_hold_what_the_features_need(filled: World) -> None:
    definitions = filled.features.definitions
    assert [(view.name, view.entity, view.entity_type, view.ttl_seconds) for view in definitions.views] == [
        ("customer_features", "customer_id", "INT64", 7 * 86_400),
        ("terminal_features", "terminal_id", "INT64", 7 * 86_400),
    ]
    [made] = definitions.request_views
    assert (made.name, set(made.event_columns)) == ("request_features", {"amount", "event_time"})
    assert definitions.made() == set(filled.features.names())
    needed = definitions.needed_for(["terminal_count_7d"])
    assert ([len(view.columns) for view in needed.views], needed.request_views) == ([1], ())
    assert FeatureDefinitions.model_validate_json(definitions.model_dump_json()) == definitions


def test_events_and_their_feature_rows_give_the_features_of_history(world: World) -> None:
    strangers = pd.DataFrame(requests(world, 30)).assign(customer_id=999)
    rows = pd.concat([world.events.sample(60, random_state=4), strangers], ignore_index=True)
    past, batch = world.features.historical_with_batch(rows, world.versions)
    found = json.loads(batch.to_json(orient="records", double_precision=15))
    replayed = world.features.plan().replay(rows.to_dict("records"), found)
    np.testing.assert_array_equal(replayed.values, past[world.features.names()].to_numpy())
    assert batch["customer_mean_7d"].isna().sum() >= len(strangers)


def test_request_features_may_take_columns_that_are_no_features(world: World, tmp_path: Path) -> None:
    names = [name for name in world.features.names() if not name.startswith("customer_")]
    files = spec_files(tmp_path, lambda model, source: model.update(features=names))
    features = Features(world.settings, load_model_spec(MODEL, files["models_dir"]))
    assert features.names() == names
    assert "customer_mean_7d" not in features.names()
    past, batch = features.historical_with_batch(world.events.tail(20), world.versions)
    assert (batch["customer_mean_7d"] > 0).any()
    replayed = features.plan().replay(world.events.tail(20).to_dict("records"), batch.to_dict("records"))
    np.testing.assert_array_equal(replayed.values, past[features.names()].to_numpy())


def test_an_event_column_may_have_the_name_of_any_column_of_ours(world: World, tmp_path: Path) -> None:
    """Of those that a join or a feature table has beside the features."""
    names = ["row", "day", "feature_timestamp", "event_expire_timestamp", "rn", "position_y"]
    fields = "".join(f', Field(name="{name}", dtype=Float64)' for name in names)
    total = " + ".join(f'np.asarray(inputs["{name}"])' for name in names)
    folder = changed_repo(
        tmp_path / "repo",
        ('schema=[Field(name="amount", dtype=Float64)', f'schema=[Field(name="amount", dtype=Float64){fields}'),
        ('"payment_amount": amount', f'"payment_amount": {total}'),
    )
    text = yaml.safe_load((folder / f"{SOURCE}.yaml").read_text())
    text["feeds"]["events"]["columns"] |= {name: {"type": "float64"} for name in names}
    (folder / f"{SOURCE}.yaml").write_text(yaml.safe_dump(text))
    spec = load_model_spec(MODEL, sources_dir=folder)
    features = Features(Settings(home=world.settings.home, feature_repo=folder), spec)
    rows = world.events.sample(20, random_state=3)
    rows = rows.assign(**{name: np.arange(20.0)[::-1] * 10**i for i, name in enumerate(names)})
    found = features.historical(rows, world.versions)
    np.testing.assert_array_equal(found[names], rows[names])
    np.testing.assert_array_equal(found["payment_amount"], rows[names].sum(axis=1).astype(np.float32))
    want = world.features.historical(rows[list(world.events)], world.versions)
    np.testing.assert_array_equal(found["customer_mean_7d"], want["customer_mean_7d"])


def test_versions_with_other_features_share_one_read(world: World) -> None:
    world.online_rows.materialize(world.versions)
    features, rows = world.features, requests(world, DAYS - 1)
    wishes = (["terminal_count_7d", "weekend"], ["night", "customer_count_1d"], ["terminal_fraud_share_1d"])
    plans = [features.plan(), *(features.plan(names) for names in wishes)]
    for together in (plans, plans[1:], plans[:1]):
        merged = MergedViews(together)
        assert len(merged.views) == 2
        found = features.reader.look_up(rows, merged.views)
        for plan in together:
            alone = plan.assemble(rows, features.reader.look_up(rows, plan.views))
            shared = plan.assemble(rows, merged.rows_for(plan, found))
            np.testing.assert_array_equal(shared.values, alone.values)
            assert shared.timestamps == alone.timestamps
            nothing = plan.assemble(rows, merged.rows_for(plan, merged.missing(len(rows))))
            defaults = plan.assemble(rows, MergedViews([plan]).missing(len(rows)))
            np.testing.assert_array_equal(nothing.values, defaults.values)


def test_an_event_without_an_entity_has_its_defaults_and_the_others_theirs(world: World) -> None:
    world.online_rows.materialize(world.versions)
    rows = requests(world, DAYS - 1)
    want = world.features.online(rows)
    nobody = world.features.online([rows[0], rows[1] | {"customer_id": None}, rows[2] | {"terminal_id": None}])
    assert nobody.timestamps == [want.timestamps[0], None, None]
    np.testing.assert_array_equal(nobody.values[0], want.values[0])
    names = np.array(world.features.names())
    customers = np.char.startswith(names, "customer")
    assert not nobody.values[1, customers].any()
    assert not nobody.values[2, np.char.startswith(names, "terminal")].any()
    np.testing.assert_array_equal(nobody.values[2, customers], want.values[2, customers])


def test_a_column_that_the_store_does_not_have_has_its_default_and_is_named(world: World) -> None:
    world.online_rows.materialize(world.versions)
    rows = today(world)
    want = world.features.online(rows)
    with sqlite3.connect(world.settings.online) as connection:
        connection.execute("DELETE FROM perennial_customer_features WHERE feature_name = 'customer_mean_7d'")
    plan = world.features.plan()
    found = plan.assemble(rows, world.features.reader.look_up(rows, plan.views))
    assert (found.lacking, set(found.timestamps)) == ({"customer_mean_7d"}, {None})
    names = np.array(world.features.names())
    np.testing.assert_array_equal(found.values[:, names == "customer_mean_7d"], 0)
    np.testing.assert_array_equal(found.values[:, names == "amount_over_mean_7d"], 1)
    others = ~np.isin(names, ["customer_mean_7d", "amount_over_mean_7d"])
    np.testing.assert_array_equal(found.values[:, others], want.values[:, others])


@pytest.mark.parametrize(
    ("change", "said"),
    others_in_ci(
        [
            (
                ("hours % 24 <= 6", "hours % 24 <= 5"),
                r"other values of night \(request_features\).*night of golden event",
            ),
            (
                ("hours % 24 <= 6", "np.random.random(len(hours))"),
                "compute other values of night each time for the same golden events",
            ),
            (('"night": hours % 24 <= 6,', ""), "fail on the golden events: KeyError: 'night'"),
            (("amount = np.asarray(inputs", 'amount = inputs["fee"] + np.asarray(inputs'), "KeyError: 'fee'"),
            (('name="request_features"', 'name="others"'), r"no request view request_features, only \['others'\]"),
        ],
        first=2,
    ),
)
def test_feature_code_that_is_not_the_versions_is_found(
    world: World, tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    rows = world.events[world.events["event_time"].dt.hour == 6].head(5)
    past, batch = world.features.historical_with_batch(rows, world.versions)
    names = world.features.names()
    golden = Golden(
        features=past[names].to_numpy().tolist(),
        scores=[0.0] * len(rows),
        events=json.loads(rows.to_json(orient="records", date_format="iso")),
        batch=batch.astype(object).where(batch.notna(), None).to_dict("records"),
    )
    check_golden_features(world.features.plan(), golden, world.spec)
    code = request_code(changed_repo(tmp_path / "repo", change), world.spec.source)

    def load() -> None:
        plan = FeaturePlan(world.features.definitions, code.functions, world.spec, names)
        check_golden_features(plan, golden, world.spec)

    with pytest.raises(DataContractError, match=said) as refused:
        load()
    assert ("random" if "random" in change[1] else "commit") in refused.value.hint


@pytest.mark.parametrize("kind", ["STRING", "DOUBLE"])
def test_a_version_whose_rows_lie_under_keys_of_another_type(filled: World, kind: str) -> None:
    features = filled.features
    views = tuple(view.model_copy(update={"entity_type": kind}) for view in features.definitions.views)
    definitions = features.definitions.model_copy(update={"views": views})
    with pytest.raises(DataContractError, match=f"customer_id as {kind}, but events have it as int64"):
        FeaturePlan(definitions, features.plan().functions, filled.spec, features.names())


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *[
            ("int64", 3),
            ("int8", 3),
            ("uint64", 3),
            ("float64", 2.5),
            ("float32", 2.5),
            ("decimal(5, 2)", Decimal("0.1")),
        ],
        *[("bool", True), ("string", "n\0"), ("category", "a"), ("timestamp", datetime(2026, 1, 5, 12, 30))],
        ("date", date(2026, 1, 5)),
    ],
)
@pytest.mark.parametrize(("nullable", "null"), [(False, False), (True, True), (True, False)])
def test_request_columns_are_what_training_has(kind: Any, value: Any, nullable: bool, null: bool) -> None:
    values, column = [value, None if null else value], Column(type=kind, nullable=nullable)
    given = [each.replace(tzinfo=UTC) if isinstance(each, datetime) else each for each in values]
    found = request_column(given, column)
    lake = pa.table({"given": pa.array(given, arrow_type(column))})
    trained = event_columns(as_exact_pandas(lake), {"given": column})["given"]
    assert found.dtype == trained.dtype
    assert (found[0], pd.isna(found[1])) == (trained[0], null)


def test_a_version_that_takes_an_event_column_which_the_service_does_not_know(filled: World) -> None:
    definitions = filled.features.definitions
    made = definitions.request_views[0].model_copy(update={"event_columns": ("amount", "colour")})
    definitions = definitions.model_copy(update={"request_views": (made,)})
    with pytest.raises(DataContractError, match="need the event columns colour"):
        FeaturePlan(definitions, filled.features.plan().functions, filled.spec, filled.features.names())
