"""What is online equals what history has, after every correction and change of definitions: SQLite and Redis."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from testing.redis_server import running_redis
from tests.adapters.redis_reads import read_from_redis
from tests.cases import others_in_ci
from tests.feature_repo.payments_and_features import MODEL, SOURCE, compute, midnight, payments, put
from tests.feature_repo.written_by_hand import copy_by_hand
from training.adapters.features import Features, OnlineFeatures, OnlineRows
from training.adapters.lake import Lake
from training.contract.base import TableVersions
from training.contract.errors import ConfigError, InputError, TransientError
from training.contract.model_spec import MODELS_DIR, load_model_spec
from training.contract.source_spec import load_source_spec
from training.settings import Settings

DAYS = 12
MICROSECOND = timedelta(microseconds=1)


@dataclass
class World:
    """The reference model's files, to be edited, over a lake of twelve days of payments."""

    settings: Settings

    @property
    def features(self) -> Features:
        """As a process of its own would have it."""
        return Features(self.settings, load_model_spec(MODEL, self.settings.models_dir, self.settings.feature_repo))

    @property
    def online_rows(self) -> OnlineRows:
        return OnlineRows(self.settings, load_source_spec(SOURCE, self.settings.feature_repo))

    @property
    def lake(self) -> Lake:
        return Lake(self.settings.lake, SOURCE, MODEL)

    def deliver(self, events: pd.DataFrame, labels: pd.DataFrame) -> TableVersions:
        """All of the lake's events anew, their feature rows, and those online. Returns the versions."""
        put(self.settings, events, labels)
        versions = compute(self.settings, 0, DAYS + 38)
        self.online_rows.materialize(versions)
        return versions

    def edit(self, ending: str, old: str, new: str) -> None:
        path = self.settings.feature_repo / f"{SOURCE}.{ending}"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def online(self, rows: pd.DataFrame) -> OnlineFeatures:
        """By Feast and, where the store is Redis, as the service reads it: both must be the same."""
        found, records = self.features.online(rows.to_dict("records")), rows.to_dict("records")
        if "://" in self.settings.online:
            read = read_from_redis(self.settings, self.features, records)
            np.testing.assert_array_equal(read.values, found.values)
            assert read.timestamps == found.timestamps
        return found

    def check_equal(self, rows: pd.DataFrame, versions: TableVersions) -> OnlineFeatures:
        """The features of `rows` online, after a comparison with history."""
        online = self.online(rows)
        past = self.features.historical(rows, versions)[self.features.names()].to_numpy()
        np.testing.assert_array_equal(online.values, past)
        return online


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running_redis(tmp_path_factory.mktemp("redis")) as port:
        yield port


def copied(folder: Path, **fields: str) -> World:
    copy_by_hand(folder / "repo")
    shutil.copytree(MODELS_DIR, folder / "models")
    places = {"feature_repo": folder / "repo", "models_dir": folder / "models"}
    return World(Settings(home=folder / "home", **places, **fields))


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "sqlite":
        return copied(tmp_path)
    url = f"redis://127.0.0.1:{request.getfixturevalue('redis_port')}/1"
    from redis import Redis

    with Redis.from_url(url) as client:
        client.flushdb()
    return copied(tmp_path, online_store=url)


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TableVersions]:
    """What `World.deliver` makes of `payments(DAYS)` on a disk, to be copied, and the versions."""
    world = copied(tmp_path_factory.mktemp("delivered"))
    versions = world.deliver(*payments(DAYS))
    return Path(world.settings.home), versions


@pytest.fixture
def filled(world: World, request: pytest.FixtureRequest) -> TableVersions:
    """`payments(DAYS)` are in the world, and the rows that they make are online. The versions."""
    if "://" in world.settings.online:
        return world.deliver(*payments(DAYS))
    home, versions = request.getfixturevalue("delivered")
    shutil.copytree(home, world.settings.home, dirs_exist_ok=True)
    return dict(versions)


NOW = midnight(DAYS) + timedelta(hours=5)


def asked(at: datetime = NOW) -> pd.DataFrame:
    """Requests of all pairs of the customers and terminals, and of strangers, at one moment."""
    rows = [(c, t) for c in (*range(7), 999) for t in (*range(100, 107), 998)]
    found = pd.DataFrame(rows, columns=["customer_id", "terminal_id"])
    found.insert(0, "transaction_id", range(len(found)))
    return found.assign(event_time=pd.Timestamp(at).as_unit("us"), amount=20.0)


def test_an_entity_that_a_correction_removed_has_the_defaults_again(world: World) -> None:
    events, labels = payments(DAYS)
    last = events["event_time"] >= midnight(DAYS - 1)
    wrong = events.assign(customer_id=events["customer_id"].mask(last & (events.index % 2 == 0), 999))
    world.check_equal(asked(), world.deliver(wrong, labels))
    online = world.check_equal(asked(), world.deliver(events, labels))
    strangers = asked()["customer_id"] == 999
    assert {online.timestamps[i] for i in np.flatnonzero(strangers)} == {None}


@pytest.mark.ci
def test_a_newest_row_that_moved_to_an_earlier_day_is_the_one_online(world: World) -> None:
    events, labels = payments(DAYS, per_day=60)
    world.deliver(events, labels)
    # Without the last five days all rows end earlier, and without terminal 100 before day 3 its row expires.
    fewer = events[events["event_time"] < midnight(DAYS - 5)]
    fewer = fewer[(fewer["terminal_id"] != 100) | (fewer["event_time"] < midnight(3))]
    versions = world.deliver(fewer, labels)
    for at in (midnight(DAYS - 5), midnight(DAYS - 5) + timedelta(hours=1), midnight(DAYS)):
        world.check_equal(asked(at), versions)


def test_an_emptied_table_leaves_nothing_online(world: World, filled: TableVersions) -> None:
    assert any(world.online(asked()).timestamps)
    for table in ("customer_features", "terminal_features"):
        world.lake.replace(table, world.lake.scan(table).head(0), "true", ["day"])
    versions = world.lake.versions(*filled)
    assert world.online_rows.materialize(versions) == (None, {"customer_features": 0, "terminal_features": 0})
    assert not any(world.check_equal(asked(), versions).timestamps)


def test_a_feature_row_counts_from_its_midnight_on_to_the_end_of_its_ttl(world: World) -> None:
    versions = world.deliver(*payments(DAYS, entities=2))
    ttl = timedelta(days=7)
    for age, counts in (
        (timedelta(0), True),
        (MICROSECOND, True),
        (ttl, True),
        (ttl + MICROSECOND, False),
    ):
        online = world.check_equal(asked(midnight(DAYS) + age), versions)
        assert any(online.timestamps) == counts, age
    # Before the newest midnight history has older rows. Online has none, and must not take one from after the event.
    for age in (MICROSECOND, timedelta(seconds=1), timedelta(days=3)):
        online = world.online(asked(midnight(DAYS) - age))
        assert not any(online.timestamps)
        batch = [i for i, name in enumerate(world.features.names()) if name.startswith(("customer", "terminal"))]
        assert not online.values[:, batch].any()


@pytest.mark.parametrize("kind", others_in_ci(["large integer", "string", "integer"]))
def test_null_entities_have_the_defaults_among_others(world: World, kind: str) -> None:
    events, labels = payments(DAYS)
    rows = asked()
    wanted = "string" if kind == "string" else "int64"
    world.edit("yaml", "customer_id: {type: int64, minimum: 0,", f"customer_id: {{type: {wanted}, nullable: true,")
    if kind == "string":
        world.edit(
            "py",
            'join_keys=["customer_id"], value_type=ValueType.INT64',
            'join_keys=["customer_id"], value_type=ValueType.STRING',
        )
        events, rows = (frame.assign(customer_id="c" + frame["customer_id"].astype(str)) for frame in (events, rows))
    if kind == "large integer":  # float64 takes all of these customers for one
        events, rows = (frame.assign(customer_id=frame["customer_id"] + 2**60) for frame in (events, rows))
    versions = world.deliver(events, labels)
    rows = rows.astype({"customer_id": "Int64" if kind == "large integer" else object})
    rows.loc[rows.index % 3 == 0, "customer_id"] = None
    online = world.check_equal(rows, versions)
    known = [stamp is not None for stamp in online.timestamps]
    assert any(known)
    assert not any(known[::3])
    nobody = rows[rows["customer_id"].isna()]
    assert set(world.check_equal(nobody, versions).timestamps) == {None}


def test_an_entity_that_its_type_cannot_hold_has_the_defaults_among_others(world: World, filled: TableVersions) -> None:
    rows = asked().head(4).astype({"customer_id": object})
    known = world.online(rows)
    for entity in ("c7", "\ud800", 2**70):
        rows.loc[rows.index[0], "customer_id"] = entity
        online = world.online(rows)
        assert online.timestamps == [None, *known.timestamps[1:]], entity
        np.testing.assert_array_equal(online.values[1:], known.values[1:])


def test_a_feature_that_was_removed_reads_as_its_default_and_is_flagged(world: World, filled: TableVersions) -> None:
    rows = asked()[lambda r: (r["customer_id"] < 6) & (r["terminal_id"] < 106)].to_dict("records")
    old = world.features  # a version that was trained on the old definitions
    plan = old.plan(["customer_count_7d"])
    assert all(plan.assemble(rows, old.reader.look_up(rows, plan.views)).timestamps)
    world.edit("sql", "    coalesce(sum(n) FILTER (WHERE age <= 7), 0)::FLOAT AS customer_count_7d,\n", "")
    world.edit("py", '        Field(name="customer_count_7d", dtype=Float32, description="… in the 7 days"),\n', "")
    versions = world.deliver(*payments(DAYS))
    found = plan.assemble(rows, old.reader.look_up(rows, plan.views))
    assert not found.values.any()
    assert set(found.timestamps) == {None}
    world.check_equal(asked(), versions)


def test_a_new_feature_is_flagged_until_it_is_online(world: World, filled: TableVersions) -> None:
    count = "    coalesce(sum(n) FILTER (WHERE age <= 7), 0)::FLOAT AS customer_count_7d,\n"
    field = '        Field(name="customer_count_7d", dtype=Float32, description="… in the 7 days"),\n'
    world.edit("sql", count, count + count.replace("7", "3"))
    world.edit("py", field, field + field.replace("7", "3"))
    assert not any(world.online(asked()).timestamps)
    assert any(world.check_equal(asked(), world.deliver(*payments(DAYS))).timestamps)


@pytest.mark.ci
def test_another_meaning_of_the_same_name_is_online_after_recomputing(world: World, filled: TableVersions) -> None:
    before = world.online(asked()).values
    world.edit(
        "sql",
        "FILTER (WHERE age <= 7), 0)::FLOAT AS customer_count_7d",
        "FILTER (WHERE age <= 2), 0)::FLOAT AS customer_count_7d",
    )
    versions = world.deliver(*payments(DAYS))
    assert not np.array_equal(world.check_equal(asked(), versions).values, before)


@pytest.mark.ci
def test_another_entity_of_a_table_leaves_no_row_of_the_one_before(world: World, filled: TableVersions) -> None:
    old = world.features
    rows = asked()[lambda r: (r["customer_id"] < 6) & (r["terminal_id"] < 106)].to_dict("records")
    plan = old.plan(["customer_count_1d"])
    world.edit("yaml", "customer_features: {entity: customer_id", "customer_features: {entity: terminal_id")
    sql = world.settings.feature_repo / f"{SOURCE}.sql"
    head, tail = sql.read_text().split("-- Labels are about")
    sql.write_text(head.replace("customer_id", "terminal_id") + "-- Labels are about" + tail)
    world.edit(
        "py",
        'name="customer_features",\n    entities=[customer],',
        'name="customer_features",\n    entities=[terminal],',
    )
    versions = world.deliver(*payments(DAYS))
    assert set(plan.assemble(rows, old.reader.look_up(rows, plan.views)).timestamps) == {None}
    world.check_equal(asked(), versions)


@pytest.mark.ci
def test_a_table_that_was_created_anew_is_put_online(world: World) -> None:
    events, labels = payments(DAYS)
    for _ in range(3):
        world.deliver(events, labels)
    shutil.rmtree(world.lake.uri("customer_features"))
    versions = world.deliver(events.assign(amount=7.0), labels)
    names = world.features.names()
    values = dict(zip(names, world.check_equal(asked(), versions).values.T, strict=True))
    assert values["customer_mean_7d"].max() == 7.0


@pytest.mark.ci
@pytest.mark.parametrize("then", ["at once", "after as many commits as were lost"])
def test_a_table_that_was_restored_from_an_older_copy_is_put_online(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture, then: str
) -> None:
    """The record of what is online is newer than the lake, and names a version that is lost."""
    events, labels = payments(DAYS)
    old = world.deliver(events, labels)
    shutil.copytree(world.settings.lake, tmp_path / "kept")
    for amount in (7.0, 8.0):
        lost = world.deliver(events.assign(amount=amount), labels)
    shutil.rmtree(world.settings.lake)
    shutil.copytree(tmp_path / "kept", world.settings.lake)
    versions = old
    if then != "at once":
        put(world.settings, events.assign(amount=9.0), labels)
        versions = compute(world.settings, 0, DAYS + 38)
        put(world.settings, events.assign(amount=10.0), labels)
        newest = compute(world.settings, 0, DAYS + 38)
        assert versions["customer_features"] < lost["customer_features"] <= newest["customer_features"]
    caplog.clear()
    with caplog.at_level("WARNING"):
        _, written = world.online_rows.materialize(versions)
    lost_version = f"customer_features: version {lost['customer_features']} is online, and the lake does not have it"
    assert lost_version in caplog.text
    assert set(written.values()) == {6}
    world.check_equal(asked(), versions)


def test_a_version_that_lacks_a_feature_is_named(world: World, filled: TableVersions) -> None:
    field = '        Field(name="customer_count_7d", dtype=Float32, description="… in the 7 days"),\n'
    world.edit("py", field, field + field.replace("7", "3"))
    for call in (lambda: world.online_rows.materialize(filled), lambda: world.features.historical(asked(), filled)):
        with pytest.raises(InputError, match=r"Version \d+ of 'customer_features' .*has no \['customer_count_3d'\]"):
            call()


@pytest.mark.ci
def test_a_materialization_that_failed_half_way_is_completed_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.adapters.features.online_stores import online_store

    events, labels = payments(DAYS)
    world.deliver(events.assign(customer_id=999), labels)
    world.edit("sql", "    coalesce(sum(n) FILTER (WHERE age <= 7), 0)::FLOAT AS customer_count_7d,\n", "")
    world.edit("py", '        Field(name="customer_count_7d", dtype=Float32, description="… in the 7 days"),\n', "")
    put(world.settings, events, labels)
    versions = compute(world.settings, 0, DAYS + 38)
    old, rows = world.features, asked()
    with monkeypatch.context() as patched:
        patched.setattr(
            type(online_store(world.settings)), "keep_only", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            world.online_rows.materialize(versions)
    world.online_rows.materialize(versions)
    online = world.check_equal(rows, versions)
    assert not any(stamp for stamp, row in zip(online.timestamps, rows["customer_id"], strict=True) if row == 999)
    assert old.names() == world.features.names()


def second_source(world: World, change) -> None:
    """Another source and model in the same folders: the reference's files with names of its own, but for `change`."""
    folder, models = world.settings.feature_repo, world.settings.models_dir
    for path in (folder / f"{SOURCE}.py", folder / f"{SOURCE}.sql", folder / f"{SOURCE}.yaml"):
        text = path.read_text().replace(SOURCE, "other").replace("_features", "_facts")
        (path.parent / f"other{path.suffix}").write_text(change(text))
    text = (models / f"{MODEL}.yaml").read_text().replace(SOURCE, "other").replace(MODEL, "other")
    (models / "other.yaml").write_text(text)


def both(world: World, change) -> tuple[OnlineRows, TableVersions]:
    """In a world that is filled: the online rows of the second source, and the versions of its tables."""
    second_source(world, change)
    lake = Lake(world.settings.lake, "other")
    source = load_source_spec("other", world.settings.feature_repo)
    for table in ("customer", "terminal"):
        rows = world.lake.scan(f"{table}_features").to_table()
        lake.replace(next(t for t in source.entities if t.startswith(table)), rows, "true", ["day"])
    return OnlineRows(world.settings, source), lake.versions(*source.entities)


def test_two_sources_may_share_an_entity_but_no_view(world: World, filled: TableVersions) -> None:
    other, versions = both(world, lambda text: text)
    other.materialize(versions)
    spec = load_model_spec("other", world.settings.models_dir, world.settings.feature_repo)
    assert any(Features(world.settings, spec).online(asked().to_dict("records")).timestamps)
    world.online_rows.materialize(world.lake.versions("customer_features", "terminal_features"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("customer_facts", "customer_features"), "feature view 'customer_features'"),
        pytest.param(
            lambda text: text.replace("request_facts", "request_features"),
            "feature view 'request_features'",
            marks=pytest.mark.ci,
        ),
        pytest.param(
            lambda text: text.replace(
                'value_type=ValueType.INT64, description="The card', 'value_type=ValueType.INT32, description="The card'
            ),
            "entity 'customer'",
            marks=pytest.mark.ci,
        ),
    ],
)
def test_names_that_two_sources_use_are_refused_to_the_second(
    world: World, filled: TableVersions, change, said: str
) -> None:
    other, versions = both(world, change)
    before = world.online(asked())
    expected = f"other.py: Sources '{SOURCE}' and 'other' both define .*{said}"
    for call in (lambda: other.materialize(versions), other.publish):
        with pytest.raises(ConfigError, match=expected):
            call()
    # The first goes on.
    world.online_rows.materialize(world.lake.versions("customer_features", "terminal_features"))
    after = world.online(asked())
    np.testing.assert_array_equal(after.values, before.values)


@pytest.mark.parametrize("url", others_in_ci(["redis://redis.invalid:6379/1", "redis://127.0.0.1:9/1"]))
def test_a_redis_without_address_or_away_is_transient(tmp_path: Path, url: str) -> None:
    world = copied(tmp_path, online_store=url)
    put(world.settings, *payments(3))
    versions = compute(world.settings, 0, 4)
    with pytest.raises(TransientError, match=r"online store at (redis\.invalid:6379|127\.0\.0\.1:9)/1 did not answer"):
        world.online_rows.materialize(versions)
    with pytest.raises(TransientError):
        world.features.online(asked().to_dict("records"))


@pytest.mark.redis
def test_a_wrong_password_is_a_wrong_setting(redis_port: int, tmp_path: Path) -> None:
    world = copied(tmp_path, online_store=f"redis://nobody:secret@127.0.0.1:{redis_port}/1")
    put(world.settings, *payments(3))
    with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{redis_port}/1 refused access") as error:
        world.online_rows.materialize(compute(world.settings, 0, 4))
    assert "secret" not in str(error.value)


def test_a_locked_sqlite_file_is_transient_and_one_that_is_none_is_a_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = copied(tmp_path)
    versions = world.deliver(*payments(3))
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, **{**kwargs, "timeout": 0.2}))
    with connect(world.settings.online, isolation_level=None) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TransientError, match="locked"):
            world.online_rows.materialize(versions)
        holder.execute("ROLLBACK")
    for ending in ("", "-wal", "-shm"):
        Path(world.settings.online + ending).unlink(missing_ok=True)
    Path(world.settings.online).write_bytes(os.urandom(4096))
    with pytest.raises(ConfigError, match="not an SQLite database"):
        world.online_rows.materialize(versions)


KINDS_SQL = """
    max(customer_id % 3 = 0) AS is_third,
    CASE WHEN customer_id % 2 = 0 THEN 2 ** 24 + customer_id END::BIGINT AS even_number,
    CASE WHEN customer_id % 4 = 0 THEN 'web' WHEN customer_id % 4 = 1 THEN 'shop' END AS channel,
"""
KINDS_VIEW = """
        Field(name="is_third", dtype=Bool),
        Field(name="even_number", dtype=Int64, tags={"default": "null"}),
        Field(name="channel", dtype=String),
"""
KINDS_REQUEST = """
@on_demand_feature_view(
    name="channels",
    sources=[customer_features],
    schema=[Field(name="is_web", dtype=Float32), Field(name="has_no_channel", dtype=Float32)],
)
def channels(inputs: pd.DataFrame) -> pd.DataFrame:
    channel = np.asarray(inputs["channel"], object)
    made = {"is_web": channel == "web", "has_no_channel": np.equal(channel, None)}
    return type(inputs)({name: values.astype(np.float32) for name, values in made.items()})
"""


def test_texts_booleans_and_integers_that_may_be_null_are_the_same_online_and_in_history(world: World) -> None:
    world.edit("sql", "    customer_id,\n    day,\n", f"    customer_id,\n    day,{KINDS_SQL}")
    world.edit(
        "py", "import Float32, Float64, UnixTimestamp", "import Bool, Float32, Float64, Int64, String, UnixTimestamp"
    )
    first = '        Field(name="customer_count_1d"'
    world.edit("py", first, f"{KINDS_VIEW}{first}")
    with (world.settings.feature_repo / f"{SOURCE}.py").open("a") as file:
        file.write(KINDS_REQUEST)
    chosen = "[is_third, even_number, is_web, has_no_channel]"
    path = world.settings.models_dir / f"{MODEL}.yaml"
    path.write_text(path.read_text().replace("features: all", f"features: {chosen}"))
    versions = world.deliver(*payments(DAYS))
    online = world.check_equal(asked(), versions)
    assert world.features.names() == ["is_third", "even_number", "is_web", "has_no_channel"]
    known = {c: online.values[i] for i, c in enumerate(asked()["customer_id"])}
    np.testing.assert_array_equal(known[0], [1, 2**24, 1, 0])
    np.testing.assert_array_equal(known[1], [0, np.nan, 0, 0])
    np.testing.assert_array_equal(known[2], [0, 2**24 + 2, 0, 1])
    np.testing.assert_array_equal(known[999], [0, np.nan, 0, 1])
    # A value that may be missing is no sign that the row is incomplete.
    complete = [stamp is not None for stamp in online.timestamps]
    assert complete == (asked()["customer_id"] < 6).tolist()


def written(world: World, versions: TableVersions, monkeypatch: pytest.MonkeyPatch) -> tuple[dict, list[int]]:
    """What `materialize` returns, and of how many entities it wrote rows, view by view."""
    from training.adapters.features.online_stores import online_store

    kind, counts = type(online_store(world.settings)), list[int]()
    write = kind.write
    with monkeypatch.context() as patched:
        patched.setattr(kind, "write", lambda *args: (counts.append(len(args[-1].keys)), write(*args))[1])
        return world.online_rows.materialize(versions)[1], counts


def test_only_entities_whose_rows_changed_are_written(
    world: World, filled: TableVersions, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, labels = payments(DAYS)
    again, counts = written(world, filled, monkeypatch)
    assert (sum(again.values()), counts) == (12, [])
    # Another amount changes the means of one customer; a stranger in the place of customer 0 adds one and removes one.
    changed = events.assign(amount=events["amount"].where(events["customer_id"] != 1, 3.25))
    changed = changed.assign(customer_id=changed["customer_id"].replace(0, 999))
    put(world.settings, changed, labels)
    versions = compute(world.settings, 0, DAYS + 38)
    _, counts = written(world, versions, monkeypatch)
    assert counts == [2]
    world.check_equal(asked(), versions)


@pytest.mark.ci
def test_a_store_that_was_emptied_or_changed_by_others_is_filled_whole(
    world: World, filled: TableVersions, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redis import Redis

    if "://" in world.settings.online:
        with Redis.from_url(world.settings.online) as client:
            client.flushdb()
    else:
        for path in Path(world.settings.online).parent.glob(f"{Path(world.settings.online).name}*"):
            path.unlink()
    assert written(world, filled, monkeypatch)[1] == [6, 6]
    world.check_equal(asked(), filled)


@pytest.mark.ci
def test_a_write_that_was_killed_is_repeated_whole(
    world: World, filled: TableVersions, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.adapters.features.online_stores import online_store

    events, labels = payments(DAYS)
    put(world.settings, events.assign(amount=events["amount"] + 1), labels)
    versions = compute(world.settings, 0, DAYS + 38)
    kind = type(online_store(world.settings))
    with monkeypatch.context() as patched:
        patched.setattr(kind, "mark_complete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            world.online_rows.materialize(versions)
    # All customers again. No terminal has changed, and none was touched.
    assert written(world, versions, monkeypatch)[1] == [6]
    world.check_equal(asked(), versions)
