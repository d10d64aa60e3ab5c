"""What callers get while Redis fails: killed, restarted with and without its data, loading, paused, cut off.

A real redis-server, and a real `bentoml serve` for each value of CT_SERVING_STORE_DOWN. Callers ask at a constant rate
for an entity that the store knows. The registry is an SQLite file.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import redis

from testing.redis_server import RedisServer
from testing.serving_artifacts import EVENT, artifact
from testing.serving_stack import Service, fill_online_store, registered, service_process
from testing.waiting import eventually
from training.adapters.features import Features
from training.adapters.registry import Registry
from training.contract.model_spec import ModelSpec, load_model_spec
from training.settings import Settings

pytestmark = [pytest.mark.redis, pytest.mark.long]

CALLERS, PAUSE = 3, 0.05
#: Most seconds until a replica that refuses requests is not ready: the check of each second, a lookup, a busy machine.
NOT_READY_SECONDS = 4.0


@dataclass
class Answers:
    """(seconds since the beginning, status, whether it is made of defaults) of each request; (seconds, status) of
    each look at readiness."""

    began: float = field(default_factory=time.monotonic)
    requests: list[tuple[float, int, bool]] = field(default_factory=list)
    readiness: list[tuple[float, int]] = field(default_factory=list)

    @property
    def statuses(self) -> Counter[int]:
        return Counter(status for _, status, _ in self.requests)

    def since(self) -> float:
        return time.monotonic() - self.began

    def by_second(self) -> dict[int, dict[str, int]]:
        """For a person who reads a failure: second → what was answered how often."""
        found: dict[int, Counter[str]] = {}
        for at, status, defaulted in self.requests:
            found.setdefault(int(at), Counter())[f"{status}{' defaults' if defaulted else ''}"] += 1
        for at, status in self.readiness:
            found.setdefault(int(at), Counter())[f"readyz {status}"] += 1
        return {second: dict(found[second]) for second in sorted(found)}


@dataclass
class World:
    settings: Settings
    spec: ModelSpec
    redis: RedisServer
    service: Service

    def predict(self) -> httpx.Response:
        return httpx.post(f"{self.service.url}/predict", json=EVENT, timeout=30)

    def answers_from_the_store(self) -> bool:
        answer = self.predict()
        return answer.status_code == 200 and not answer.json()["features_defaulted"]

    def recovers(self) -> None:
        eventually(lambda: self.service.ready() and self.answers_from_the_store(), 120)

    @contextmanager
    def load(self) -> Iterator[Answers]:
        """Requests from CALLERS, and looks at readiness."""
        answers, stop = Answers(), threading.Event()

        def call() -> None:
            with httpx.Client(timeout=30) as client:
                while not stop.wait(PAUSE):
                    answer = client.post(f"{self.service.url}/models/card_fraud/predict", json=EVENT)
                    defaulted = answer.status_code == 200 and answer.json()["features_defaulted"]
                    answers.requests.append((answers.since(), answer.status_code, defaulted))

        def look() -> None:
            with httpx.Client(timeout=30) as client:
                while not stop.wait(PAUSE):
                    status = client.get(f"{self.service.url}/readyz").status_code
                    answers.readiness.append((answers.since(), status))

        threads = [threading.Thread(target=work) for work in (*[call] * CALLERS, look)]
        for thread in threads:
            thread.start()
        try:
            yield answers
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            print(answers.by_second())


@contextmanager
def running_world(folder: Path, policy: str) -> Iterator[World]:
    (folder / "redis").mkdir()
    server = RedisServer(folder / "redis", ("--appendonly", "yes", "--appendfsync", "always"))
    server.start()
    settings = Settings(
        home=folder / "home",
        tracking_uri=f"sqlite:///{folder}/mlflow.db",
        online_store=server.url,
        serving_models="card_fraud",
        serving_store_down=policy,
    )
    spec = load_model_spec("card_fraud")
    fill_online_store(settings, spec)
    features = Features(settings, spec)
    version = registered(settings, artifact(folder / "one", features.names(), -1.0, features=features)).version
    Registry(settings.tracking_uri).set_alias("card_fraud", "champion", version)
    world = World(settings, spec, server, service_process(settings))
    try:
        with world.service:
            world.recovers()
            yield world
    finally:
        server.kill()


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory.mktemp("refuse"), "refuse") as world:
        yield world


@pytest.fixture(scope="module")
def defaulting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory.mktemp("defaults"), "defaults") as world:
        yield world


def killed(world: World) -> None:
    world.redis.kill()
    time.sleep(3)
    world.redis.start()


def restarted_without_data(world: World) -> None:
    world.redis.kill()
    world.redis.forget()
    world.redis.start()
    time.sleep(2)
    fill_online_store(world.settings, world.spec)


def flushed(world: World) -> None:
    world.redis.client.flushall()
    time.sleep(2)
    fill_online_store(world.settings, world.spec)


def stopped_without_saving(world: World) -> None:
    world.redis.client.shutdown(nosave=True)
    time.sleep(1)
    world.redis.start()


def loading_slowly(world: World) -> None:
    client = world.redis.client
    with client.pipeline() as pipe:
        for number in range(3_000):
            pipe.set(f"filler:{number}", number)
        pipe.execute()
    client.bgrewriteaof()
    eventually(lambda: b"aof_rewrite_in_progress:0" in client.execute_command("INFO persistence"), 30)
    world.redis.kill()
    world.redis.start("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024", wait=False)
    eventually(lambda: _is_loading(world.redis), 30)
    world.redis.wait_until_it_answers()
    world.redis.client.config_set("key-load-delay", 0)


def _is_loading(server: RedisServer) -> bool:
    try:
        server.client.ping()
    except redis.exceptions.BusyLoadingError:
        return True
    except redis.RedisError:
        return False
    raise AssertionError("Redis was not seen loading")


def paused(world: World) -> None:
    world.redis.client.client_pause(2_000)
    time.sleep(2)


FAULTS = [killed, restarted_without_data, flushed, stopped_without_saving, loading_slowly, paused]


@pytest.mark.parametrize("fault", FAULTS)
def test_with_defaults_every_request_is_answered(defaulting: World, fault: Callable[[World], None]) -> None:
    defaulting.recovers()
    with defaulting.load() as answers:
        fault(defaulting)
        defaulting.recovers()
    assert set(answers.statuses) == {200}, answers.by_second()
    assert {status for _, status in answers.readiness} == {200}, answers.by_second()
    assert any(defaulted for _, _, defaulted in answers.requests), answers.by_second()


@pytest.mark.parametrize("fault", FAULTS)
def test_with_refuse_no_answer_is_made_of_defaults(refusing: World, fault: Callable[[World], None]) -> None:
    refusing.recovers()
    with refusing.load() as answers:
        fault(refusing)
        refusing.recovers()
    assert set(answers.statuses) == {200, 503}, answers.by_second()
    assert not any(defaulted for _, _, defaulted in answers.requests), answers.by_second()


def test_with_refuse_a_replica_is_soon_not_ready(refusing: World) -> None:
    refusing.recovers()
    with refusing.load() as answers:
        refusing.redis.kill()
        lost = answers.since()
        eventually(lambda: not refusing.service.ready(), 60)
        seconds = answers.since() - lost
        refusing.redis.start()
        refusing.recovers()
    assert seconds < NOT_READY_SECONDS, answers.by_second()


def test_a_connection_that_is_cut_fails_no_request(refusing: World) -> None:
    """As a proxy in between does, or a failover to a Redis that has the data."""
    refusing.recovers()
    with refusing.load() as answers:
        for _ in range(5):
            refusing.redis.client.client_kill_filter(_type="normal", skipme=True)
            time.sleep(0.3)
    assert set(answers.statuses) == {200}, answers.by_second()
    assert not any(defaulted for _, _, defaulted in answers.requests), answers.by_second()


def test_an_emptied_store_is_named(refusing: World) -> None:
    refusing.recovers()
    refusing.redis.client.flushall()
    answer = refusing.predict()
    assert (answer.status_code, "has lost the rows of" in answer.json()["error"]) == (503, True)
    eventually(lambda: not refusing.service.ready(), 60)
    assert "has lost the rows" in httpx.get(f"{refusing.service.url}/readyz", timeout=30).text
    fill_online_store(refusing.settings, refusing.spec)
    refusing.recovers()
    unknown = httpx.post(f"{refusing.service.url}/predict", json=EVENT | {"customer_id": 999_999}, timeout=30)
    assert (unknown.status_code, unknown.json()["features_defaulted"]) == (200, True)


def test_a_replica_that_starts_without_the_store_answers_when_it_is_back(refusing: World) -> None:
    refusing.recovers()
    refusing.service.stop()
    refusing.redis.kill()
    refusing.service.start()
    try:
        eventually(lambda: refusing.service.serves(1), 120)
        assert not refusing.service.ready()
        assert refusing.predict().status_code == 503
    finally:
        refusing.redis.start()
    refusing.recovers()


def test_a_replica_that_starts_with_an_emptied_store_knows_it(refusing: World) -> None:
    refusing.recovers()
    refusing.service.stop()
    refusing.redis.client.flushall()
    refusing.service.start()
    eventually(lambda: refusing.service.serves(1), 120)
    assert refusing.predict().status_code == 503
    fill_online_store(refusing.settings, refusing.spec)
    refusing.recovers()
