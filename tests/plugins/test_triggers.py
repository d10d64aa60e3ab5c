"""The landing watcher against a real folder: when it rings, and when it keeps still."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import perennial_airflow.triggers as triggers
import pytest
import structlog
from airflow.sdk.observability.stats import Stats
from airflow.triggers.shared_stream import SharedStreamManager
from perennial_airflow.assets import landing_asset
from perennial_airflow.deliveries import Announced, Delivery, Reported, landing_folder, scan, strays
from perennial_airflow.operators import StartDataRunsOperator
from perennial_airflow.triggers import LandingTrigger

from training.contract.source_spec import load_source_spec

FEEDS = ["events", "labels"]


class Store:
    """Airflow's asset state store, as the trigger sees it."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.broken = False

    async def aget(self, key: str, default: Any = None) -> Any:
        if self.broken:
            raise RuntimeError("the API server does not answer")
        return self.values.get(key, default)


Watch = Callable[[Store, Callable[[list[Any]], Awaitable[None]]], list[Any]]


@pytest.fixture
def watch(step_settings: Path) -> Watch:
    """Runs a watcher beside `what_happens`, which sees the events so far; gives all events."""

    def run(store: Store, what_happens: Callable[[list[Any]], Awaitable[None]]) -> list[Any]:
        async def both() -> list[Any]:
            trigger = LandingTrigger("card_payments", FEEDS, poll_seconds=0.01, settle_seconds=0, stray_seconds=0.02)
            trigger.asset_state_store = store  # type: ignore[assignment]
            events: list[Any] = []

            async def listen() -> None:
                async for event in trigger.run():
                    events.append(event.payload)

            listening = asyncio.create_task(listen())
            await what_happens(events)
            listening.cancel()
            return events

        return asyncio.run(asyncio.wait_for(both(), 120))

    return run


def test_the_store_is_used_before_anything_lands(watch: Watch) -> None:
    """Airflow makes what answers at the first use, which takes seconds: the first delivery does not wait for it."""
    store, read = Store(), list[str]()
    ask = store.aget
    store.aget = lambda key, default=None: (read.append(key), ask(key, default))[1]  # type: ignore[method-assign]

    async def nothing(events: list[Any]) -> None:
        while not read:
            await asyncio.sleep(0.01)

    assert watch(store, nothing) == []


@pytest.fixture
def land(step_settings: Path) -> Callable[[str], None]:
    def write(name: str) -> None:
        path = step_settings / "landing" / "card_payments" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)

    return write


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def taken(*names: str) -> dict[str, Any]:
    """The landing DAG's account after it has started runs for these."""
    announced = Announced()
    for name in names:
        feed, partition = name.split("/")
        announced.add(Delivery(feed, partition, "any", f"{partition}.parquet"))
    return {Announced.KEY: announced.stored()}


def test_it_rings_for_each_change_and_is_silent_between(watch: Watch, land: Callable[[str], None]) -> None:
    async def happens(events: list[Any]) -> None:
        await asyncio.sleep(0.1)
        assert events == []
        land("events/2026-01-05")
        await until(lambda: len(events) == 1)
        land("events/2026-01-06")
        await until(lambda: len(events) == 2)
        await asyncio.sleep(0.2)

    events = watch(Store(), happens)
    assert [event["files"] for event in events] == [1, 2]
    assert events[1]["reason"] == "Landed: events/2026-01-05, events/2026-01-06"


def test_it_rings_again_until_the_landing_dag_has_taken_the_file_up(
    watch: Watch, land: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triggers, "REPEAT_SECONDS", 0.1)
    store = Store()
    land("events/2026-01-05")

    async def happens(events: list[Any]) -> None:
        await until(lambda: len(events) == 3)
        announced = Announced()
        for delivery in scan(landing_folder("card_payments"), FEEDS, 2**40):
            announced.add(delivery)
        store.values[Announced.KEY] = announced.stored()
        await asyncio.sleep(0.1)
        heard = len(events)
        await asyncio.sleep(1)
        assert len(events) == heard

    watch(store, happens)


def test_a_new_watcher_rings_for_what_landed_while_none_was_there(watch: Watch, land: Callable[[str], None]) -> None:
    land("events/2026-01-05")
    store = Store()
    store.values = taken("events/2026-01-05")  # with another fingerprint: this file was delivered again

    async def happens(events: list[Any]) -> None:
        await until(lambda: len(events) == 1)

    assert watch(store, happens)[0]["reason"] == "Landed: events/2026-01-05"


def test_it_rings_once_for_what_is_not_understood(watch: Watch, step_settings: Path) -> None:
    store = Store()
    folder = step_settings / "landing" / "card_payments"
    (folder / "Labels").mkdir(parents=True)
    (folder / "events").mkdir()
    (folder / "events" / "2026-01-05.csv").write_text("x")

    async def happens(events: list[Any]) -> None:
        await until(lambda: len(events) == 1)
        store.values = {Reported.KEY: Reported.stored(strays("card_payments", FEEDS))}
        await asyncio.sleep(0.3)
        assert len(events) == 1, "told, and not again"
        (folder / "notes.txt").write_text("x")
        await until(lambda: len(events) == 2)

    events = watch(store, happens)
    assert events[0]["reason"] == "Not understood: card_payments/Labels/, card_payments/events/2026-01-05.csv"
    assert events[1]["reason"] == "Not understood: card_payments/notes.txt"


def test_it_survives_a_store_that_does_not_answer(watch: Watch, land: Callable[[str], None]) -> None:
    store = Store()
    store.broken = True
    land("events/2026-01-05")

    async def happens(events: list[Any]) -> None:
        await asyncio.sleep(0.1)
        assert events == []
        store.broken = False
        await until(lambda: len(events) == 1)

    watch(store, happens)


def test_it_can_be_made_again_from_what_airflow_stores() -> None:
    trigger = LandingTrigger("card_payments", FEEDS, poll_seconds=2)
    path, kwargs = trigger.serialize()
    assert path == f"{LandingTrigger.__module__}.{LandingTrigger.__qualname__}"
    assert LandingTrigger(**kwargs).serialize() == (path, kwargs)


def test_one_scan_of_the_landing_folder_serves_all_sources(
    land: Callable[[str], None], step_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through Airflow's own manager of shared streams."""
    scans: list[str] = []
    scan_all = triggers.scan_all
    monkeypatch.setattr(
        triggers, "scan_all", lambda landing, settle: (scans.append(landing), scan_all(landing, settle))[1]
    )
    heard: dict[str, list[Any]] = {}

    async def listen(trigger: LandingTrigger, stream: Any) -> None:
        trigger.asset_state_store = Store()  # type: ignore[assignment]
        async for event in trigger.filter_shared_stream(stream):
            heard.setdefault(trigger.source, []).append(event.payload["reason"])

    async def both() -> None:
        manager = SharedStreamManager(log=structlog.get_logger())
        sources = ["card_payments", *(f"source_{number}" for number in range(20))]
        made = [LandingTrigger(source, FEEDS, poll_seconds=0.05, settle_seconds=0) for source in sources]
        tasks = []
        for number, trigger in enumerate(made):
            stream = manager.subscribe(trigger_id=number, trigger=trigger, key=trigger.shared_stream_key())
            tasks.append(asyncio.create_task(listen(trigger, stream)))
        land("events/2026-01-05")
        folder = step_settings / "landing" / "source_7" / "labels"
        folder.mkdir(parents=True)
        (folder / "2026-01-06.parquet").write_text("x")
        (folder / "2026-01-06.csv").write_text("x")
        began = len(scans)
        await until(lambda: len(heard) == 2)
        await until(lambda: len(scans) >= began + 5)
        for task in tasks:
            task.cancel()
        await manager.stop_all()

    asyncio.run(asyncio.wait_for(both(), 120))
    assert heard == {"card_payments": ["Landed: events/2026-01-05"], "source_7": ["Landed: labels/2026-01-06"]}
    assert set(scans) == {str(step_settings / "landing")}
    assert len(scans) < 21 * 5, "one scan for all, not one for each"


class StoreOfATask(dict[str, Any]):
    """Airflow's asset state store, as the landing DAG's task sees it."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


def test_the_landing_run_tells_once_of_what_is_not_understood(
    step_settings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Stats, "gauge", lambda name, value, **kwargs: metrics.append((name, value, kwargs["tags"])))
    (step_settings / "landing" / "card_payments" / "Labels").mkdir(parents=True)
    asset, store = landing_asset(load_source_spec("card_payments")), StoreOfATask()
    task = StartDataRunsOperator(task_id="start_data_runs", source="card_payments", feeds=FEEDS, landing=asset)
    for lines in (1, 0):
        assert task.execute({"asset_state_store": {asset: store}}) == []
        assert capsys.readouterr().out.count("card_payments/Labels/: the feeds' folders are") == lines
    assert metrics == [("perennial.landing.not_understood", 1, {"source": "card_payments"})] * 2


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["forkserver", "pod"])
def test_the_triggerer_imports_the_triggers_before_its_event_loop_runs(launcher: str) -> None:
    """Airflow imports a trigger's class in the event loop; a plugin is loaded before the loop starts."""
    code = "import sys; sys.argv = ['airflow', 'triggerer']; import perennial_preload; print(*sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CT_LAUNCHER": launcher}
    done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    imported = done.stdout.split()
    assert "perennial_airflow.triggers" in imported
    assert ("perennial_airflow.pod_trigger" in imported) == (launcher == "pod")
