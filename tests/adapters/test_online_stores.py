"""Which online store a value of CT_ONLINE_STORE selects, and its reader."""

import asyncio
import math
import threading
from pathlib import Path

import pytest
import redis

from testing.redis_server import running_redis
from tests.feature_repo.payments_and_features import compute, payments, put
from training.adapters.databases import copy_sqlite
from training.adapters.features import Features, OnlineRows
from training.adapters.features.online_stores import ONLINE_STORES, ConcurrentReader, online_config, online_store
from training.adapters.features.online_stores._marks import CompleteViews, marks_key
from training.adapters.features.online_stores.redis import SharedRoundTrips
from training.adapters.features.online_stores.sqlite import SqliteReader, SqliteStore
from training.adapters.features.views import View, ViewRows
from training.contract.errors import ConfigError, StepError, TransientError
from training.contract.model_spec import load_model_spec
from training.contract.source_spec import load_source_spec
from training.settings import Settings


@pytest.mark.parametrize(
    ("online", "name"),
    [("/state/online.db", "sqlite"), ("redis://host:6379/0", "redis"), ("rediss://host", "redis")],
)
def test_the_scheme_decides(online: str, name: str) -> None:
    assert type(online_store(Settings(online_store=online))) is ONLINE_STORES.find(name)


def test_an_unknown_store_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no online store 'abacus'") as error:
        online_store(Settings(online_store="abacus://host"))
    assert "redis, sqlite" in error.value.hint


def test_concurrent_lookups_in_sqlite_find_what_feast_finds(settings: Settings) -> None:
    put(settings, *payments(10))
    features = Features(settings, load_model_spec("card_fraud"))
    OnlineRows(settings, load_source_spec("card_payments")).materialize(compute(settings, 1, 10))
    rows = [{"customer_id": i, "terminal_id": 100 + i} for i in range(8)]
    plan = features.plan()

    async def look_up() -> list:
        reader = online_store(settings).reader(60.0)
        try:
            return await asyncio.gather(*(reader.find([row], plan.views) for row in rows))
        finally:
            reader.close()

    for row, found in zip(rows, asyncio.run(look_up()), strict=True):
        for one, other in zip(found, features.reader.look_up([row], plan.views), strict=True):
            assert repr(one) == repr(other)


def test_lookups_in_sqlite_that_wait_share_one_and_an_unreadable_one_fails_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = [View("customer_features", "customer_id", "INT64", ("customer_spend",))]
    asked: list[list[int]] = []

    async def look_up() -> list:
        reader = online_store(settings).reader(60.0)
        assert isinstance(reader, SqliteReader)

        def answer(rows: list[dict[str, int]], views: list[View]) -> list[ViewRows]:
            asked.append([row["customer_id"] for row in rows])
            if any(row["customer_id"] < 0 for row in rows):
                raise ValueError("cannot be read")
            return [ViewRows([[float(row["customer_id"])] for row in rows], [1.0] * len(rows))]

        monkeypatch.setattr(reader, "_look_up", answer)
        free = threading.Event()
        reader._thread.submit(free.wait)
        finds = [asyncio.ensure_future(reader.find([{"customer_id": i}] * i, views)) for i in (1, 2, 3)]
        await asyncio.sleep(0)
        free.set()
        found = await asyncio.gather(*finds)
        free.clear()
        reader._thread.submit(free.wait)
        finds = [asyncio.ensure_future(reader.find([{"customer_id": i}], views)) for i in (4, -1)]
        await asyncio.sleep(0)
        free.set()
        found += await asyncio.gather(*finds, return_exceptions=True)
        reader.close()
        return found

    *found, failed = asyncio.run(look_up())
    assert [part.values for [part] in found] == [[[1.0]], [[2.0]] * 2, [[3.0]] * 3, [[4.0]]]
    assert isinstance(failed, ValueError)
    assert asked == [[1, 2, 2, 3, 3, 3], [4, -1], [4], [-1]]


class Gate(asyncio.Event):
    """Round trips wait for it."""

    def __init__(self) -> None:
        super().__init__()
        #: The number of keys of each round trip.
        self.trips: list[int] = []


def round_trips(gate: Gate) -> SharedRoundTrips:
    class Layout:
        def reads(self, views: object, rows: list) -> list:
            return [(b"key", [b"field"])] * len(rows)

        def decoded(self, views: object, rows: int, answers: list) -> list:
            return answers

    class Reader:
        async def read(self, reads: list) -> list:
            gate.trips.append(len(reads))
            await gate.wait()
            return [[b"value"]] * len(reads)

    trips = object.__new__(SharedRoundTrips)
    trips._layout, trips._reader, trips._seconds = Layout(), Reader(), 30.0
    trips._waiting, trips._trip, trips._marks = [], None, CompleteViews("perennial", "here", None)
    trips.trips = 0
    return trips


def test_lookups_during_a_round_trip_share_the_next_one() -> None:
    async def go() -> tuple[list, list[int]]:
        gate = Gate()
        trips = round_trips(gate)
        finds = []
        for rows in (1, 2, 3):
            finds.append(asyncio.create_task(trips.find([{}] * rows, [])))
            await asyncio.sleep(0.01)
        gate.set()
        return await asyncio.wait_for(asyncio.gather(*finds), 120), gate.trips

    found, trips = asyncio.run(go())
    assert found == [[[b"value"]] * rows for rows in (1, 2, 3)]
    assert trips == [1, 5]


def test_a_lookup_that_starts_when_the_round_trip_ends_is_answered() -> None:
    """The trip has ended, but the loop has not yet run the callbacks of its task."""

    async def go() -> list:
        gate = Gate()
        trips = round_trips(gate)
        first = asyncio.create_task(trips.find([{}], []))
        await asyncio.sleep(0.01)
        assert gate.trips == [1]

        async def late() -> list:
            await gate.wait()  # Woken after the trip, in the same turn.
            return await trips.find([{}], [])

        last = asyncio.create_task(late())
        await asyncio.sleep(0)
        gate.set()
        await first
        return await asyncio.wait_for(last, 120)

    assert asyncio.run(go()) == [[b"value"]]


@pytest.mark.redis
def test_redis_that_was_emptied_is_told_from_an_unknown_entity(tmp_path: Path) -> None:
    with running_redis(tmp_path) as port:
        settings = Settings(home=tmp_path / "home", online_store=f"redis://127.0.0.1:{port}/0")
        client, seen = redis.Redis(port=port), tmp_path / "seen.json"
        put(settings, *payments(10))
        views = Features(settings, load_model_spec("card_fraud")).plan().views
        online_rows, versions = OnlineRows(settings, load_source_spec("card_payments")), compute(settings, 1, 10)
        online_rows.materialize(versions)
        client.delete(marks_key(online_config(settings).project))  # As an earlier version has left it.

        def stamps(reader: ConcurrentReader, customer: int) -> list[float]:
            row = {"customer_id": customer, "terminal_id": 100}
            return [found.stamps[0] for found in runner.run(reader.find([row], views))]

        with asyncio.Runner() as runner:
            reader = online_store(settings).reader(60.0, seen)
            assert stamps(reader, 0)[0] > 0
            assert math.isnan(stamps(reader, 999)[0]), "without marks it is as before"
            online_rows.materialize(versions)
            assert math.isnan(stamps(reader, 999)[0])
            client.flushall()
            later = online_store(settings).reader(60.0, seen)
            for each in (reader, later):
                with pytest.raises(TransientError, match=r"has lost the rows of customer\w*, terminal"):
                    stamps(each, 0)
            online_rows.materialize(versions)
            assert stamps(later, 0)[0] > 0
            assert math.isnan(stamps(later, 999)[0])


@pytest.mark.redis
def test_redis_that_was_restored_from_an_older_copy_is_named_until_it_is_filled_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_redis(tmp_path) as port:
        settings = Settings(home=tmp_path / "home", online_store=f"redis://127.0.0.1:{port}/0")
        client, seen = redis.Redis(port=port), tmp_path / "seen.json"
        put(settings, *payments(10))
        views = Features(settings, load_model_spec("card_fraud")).plan().views
        online_rows, versions = OnlineRows(settings, load_source_spec("card_payments")), compute(settings, 1, 10)
        online_rows.materialize(versions)
        copy = {key: client.dump(key) for key in client.scan_iter()}
        marks = marks_key(online_config(settings).project)
        for view in client.hkeys(marks):  # A later materialization.
            client.hset(marks, view, "9999-01-05T00:00:00+00:00")

        def look_up() -> str:
            """With a service that has just started: a running one looks every minute. Returns what it logs."""
            caplog.clear()
            reader = online_store(settings).reader(60.0, seen)
            found = runner.run(reader.find([{"customer_id": 0, "terminal_id": 100}], views))
            assert found[0].stamps[0] > 0
            return caplog.text

        with asyncio.Runner() as runner:
            assert "restored" not in look_up()
            client.flushall()
            for key, content in copy.items():
                client.restore(key, 0, content)
            said = look_up()
            assert said.count("it was restored from an older copy") == len({view.name for view in views})
            assert "make restore-online" in said
            for view in client.hkeys(marks):  # As make restore-online leaves it.
                client.hset(marks, view, "9999-01-06T00:00:00+00:00")
            assert "restored" not in look_up()


def test_an_sqlite_file_from_an_older_copy_and_a_lost_one_are_named_until_they_are_filled_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings, seen = Settings(home=tmp_path / "home"), tmp_path / "seen.json"
    put(settings, *payments(10))
    views = Features(settings, load_model_spec("card_fraud")).plan().views
    online_rows, versions = OnlineRows(settings, load_source_spec("card_payments")), compute(settings, 1, 10)
    file = Path(settings.online)

    def look_up(customer: int = 0) -> str:
        """With a service that has just started: a running one looks every minute. Returns what it logs."""
        caplog.clear()
        reader = online_store(settings).reader(60.0, seen)
        found = runner.run(reader.find([{"customer_id": customer, "terminal_id": 100}], views))
        assert (found[0].stamps[0] > 0) == (customer == 0)
        return caplog.text

    def materialized() -> str:
        caplog.clear()
        online_rows.materialize(versions)
        return caplog.text

    def remove() -> None:
        for each in file.parent.glob(f"{file.name}*"):
            each.unlink()

    with asyncio.Runner() as runner:
        assert "rows were last written" not in materialized()
        copy_sqlite(file, tmp_path / "copy.db")
        online_rows.materialize(versions, restore=True)  # With later marks.
        assert "restored" not in look_up() + look_up(999)
        remove()
        copy_sqlite(tmp_path / "copy.db", file)
        said = look_up()
        assert said.count("it was restored from an older copy") == len({view.name for view in views})
        assert "make restore-online" in said
        assert materialized().count("was restored from an older copy. All are written again") == 2
        assert "restored" not in look_up()
        remove()
        with pytest.raises(TransientError, match=r"has lost the rows of customer\w*, terminal"):
            look_up()
        assert materialized().count("has lost them. All are written again") == 2
        assert "restored" not in look_up() + look_up(999)


def test_an_earlier_services_list_of_complete_views_is_read(tmp_path: Path) -> None:
    (tmp_path / "seen.json").write_text('["customers", "terminals"]')
    marks = CompleteViews("perennial", "here", tmp_path / "seen.json")
    assert marks.lost(["customers"], [b"2026-01-05T00:00:00+00:00"]) is None
    later = CompleteViews("perennial", "here", tmp_path / "seen.json")
    error = later.lost(["customers", "terminals"], [None, None])
    assert "lost the rows of customers, terminals" in str(error)


class Unplugged(Exception):
    """An error that only the store below raises."""


@ONLINE_STORES.register("drawer")
class Drawer(SqliteStore):
    """Another kind of store: a URL of its own, and an error of its own."""

    unplugged = False

    def __init__(self, settings: Settings) -> None:
        path = settings.online.removeprefix("drawer://")
        super().__init__(Settings(home=settings.home, online_store=path))

    def contract_error(self, error: Exception) -> StepError | None:
        return TransientError("The drawer is unplugged") if isinstance(error, Unplugged) else None

    def mark(self, *arguments) -> str | None:
        if self.unplugged:
            raise Unplugged
        return super().mark(*arguments)


def test_another_store_needs_no_change_of_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path, online_store=f"drawer://{tmp_path}/drawer/online.db")
    put(settings, *payments(10))
    features = Features(settings, load_model_spec("card_fraud"))
    versions, online_rows = compute(settings, 1, 10), OnlineRows(settings, load_source_spec("card_payments"))
    online_rows.materialize(versions)
    [customers, _] = features.reader.look_up([{"customer_id": 0, "terminal_id": 100}], features.plan().views)
    assert customers.stamps[0] > 0
    assert (tmp_path / "drawer" / "online.db").is_file()
    monkeypatch.setattr(Drawer, "unplugged", True)
    with pytest.raises(TransientError, match="The drawer is unplugged"):
        online_rows.materialize(versions)
