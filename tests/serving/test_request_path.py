"""The request path with everything on: Redis, keys, pinning, explanations; and a Redis that hangs, dies and comes back.

A real `bentoml serve` and a real redis-server; the tests run in order. The registry is an SQLite file.
"""

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from serving.keys import new_key
from serving.limits import MAXIMUM_BODY_BYTES
from testing.ports import free_port
from testing.serving_artifacts import CUSTOMER, EVENT, artifact
from testing.serving_stack import Service, fill_online_store, registered, service_process
from testing.waiting import eventually
from training.adapters.features import Features
from training.adapters.lake import PREDICTIONS, Lake
from training.adapters.registry import Registry
from training.contract.model_spec import load_model_spec
from training.contract.traffic import Desired
from training.settings import Settings

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not on the PATH"),
]


@dataclass
class World:
    settings: Settings
    service: Service
    redis: "subprocess.Popen[bytes]"
    redis_command: list[str]
    names: list[str]
    key: str
    admin: str

    def predict(self, query: str = "", key: str | None = None, headers: Any = None, **changes: Any) -> httpx.Response:
        given = {"Authorization": f"Bearer {self.key if key is None else key}"} | (headers or {})
        return httpx.post(f"{self.service.url}/predict{query}", json=EVENT | changes, headers=given, timeout=30)

    def get(self, path: str, key: str) -> httpx.Response:
        return httpx.get(f"{self.service.url}{path}", headers={"Authorization": f"Bearer {key}"}, timeout=5)

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.service.url}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def log(self) -> list[dict[str, Any]]:
        lake = Lake(self.settings.lake, "card_payments", "card_fraud")
        return [] if lake.version(PREDICTIONS) is None else lake.scan(PREDICTIONS).to_table().to_pylist()


def _register(settings: Settings, folder: Path, names: list[str], bias: float, alias: str) -> int:
    version = registered(settings, artifact(folder, names, bias)).version
    Registry(settings.tracking_uri).set_alias("card_fraud", alias, version)
    return version


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("path")
    port = free_port()
    redis_command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    redis_command += ["--appendonly", "yes"]
    redis = subprocess.Popen(redis_command, stdout=subprocess.DEVNULL)
    settings = Settings(
        home=folder / "home",
        tracking_uri=f"sqlite:///{folder}/mlflow.db",
        online_store=f"redis://127.0.0.1:{port}/0",
        serving_models="card_fraud",
    )
    spec = load_model_spec("card_fraud")
    names = Features(settings, spec).names()
    time.sleep(0.5)
    fill_online_store(settings, spec)
    _register(settings, folder / "one", names, -1.0, "champion")
    (key, line), (admin, admins) = new_key("test", "predict"), new_key("ops", "admin")
    (folder / "keys").write_text(f"{line}\n{admins}\n")
    service = service_process(settings)
    service.env |= {
        "CT_ONLINE_STORE": settings.online,
        "CT_SERVING_KEYS_FILE": str(folder / "keys"),
        "CT_SERVING_PINNING": "true",
        "CT_SERVING_EXPLAIN": "true",
        "CT_SERVING_STORE_DOWN": "defaults",
        "CT_SERVING_LOOKUP_SECONDS": "2",
        "CT_SERVING_DRAIN_SECONDS": "6",
    }
    made = World(settings, service, redis, redis_command, names, key, admin)
    try:
        with service:
            eventually(made.ready, 90)
            yield made
    finally:
        made.redis.kill()
        made.redis.wait()


def test_a_payment_is_answered_from_redis(world: World) -> None:
    said = world.predict().json()
    assert (said["role"], said["features_defaulted"], said["model_version"]) == ("champion", False, 1)
    assert world.predict(customer_id=999).json()["features_defaulted"]


def test_many_at_a_time_get_their_own_answers(world: World) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: world.predict(amount=i).json()["score"], range(100)))
    assert answers == sorted(answers)
    assert len(set(answers)) == 100


def _at_once(world: World, customers: list[int]) -> list[bool]:
    """Whether each customer's answer is from defaults; the requests wait together for a large one to be read."""
    host, port = world.service.url.removeprefix("http://").split(":")
    lines = [socket.create_connection((host, int(port)), timeout=30) for _ in range(len(customers) + 1)]

    def send(line: socket.socket, path: str, content: Any) -> None:
        body = json.dumps(content).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.key}\r\nConnection: close\r\n"
        line.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    send(lines[0], "/predict_batch", [EVENT] * 1000)
    for line, customer in zip(lines[1:], customers, strict=True):
        send(line, "/predict", EVENT | {"customer_id": customer})
    answers = []
    for line in lines:
        with line.makefile("rb") as read:
            answers.append(json.loads(read.read().partition(b"\r\n\r\n")[2]))
        line.close()
    return [answer["features_defaulted"] for answer in answers[1:]]


def test_a_row_that_cannot_be_read_is_the_trouble_of_its_customer_alone(world: World) -> None:
    store = redis.Redis.from_url(world.settings.online)
    seven, damaged = struct.pack("<q", CUSTOMER), struct.pack("<q", 666)
    [key] = [key for key in store.scan_iter() if seven in key and b"customer_id" in key]
    store.hset(key.replace(seven, damaged), mapping=dict.fromkeys(store.hkeys(key), b"\xff"))
    customers = [CUSTOMER, 666, CUSTOMER, CUSTOMER]
    assert _at_once(world, customers) == [customer == 666 for customer in customers]
    store.delete(key.replace(seven, damaged))


def test_a_champion_that_answers_is_not_probed(world: World) -> None:
    store = redis.Redis.from_url(world.settings.online)

    def read() -> int:
        return int(store.info("commandstats")["cmdstat_hmget"]["calls"])

    def read_beside(requests: int, pause: float) -> int:
        """What is read in the store while there are so many requests, without what they read."""
        before = read()
        for _ in range(requests):
            assert world.predict().status_code == 200
            time.sleep(pause)
        return read() - before - requests * 2  # customer and terminal

    # On a busy machine a second may pass between two answers.
    eventually(lambda: read_beside(30, pause=0.1) == 0)
    assert read_beside(1, pause=4) > 0, "without requests it is probed"


def test_callers_need_a_key_and_admins_theirs(world: World) -> None:
    answer = world.predict(key="wrong")
    assert (answer.status_code, "API key" in answer.json()["error"]) == (401, True)
    assert world.get("/models", world.key).status_code == 200
    assert world.get("/models/card_fraud/signals", world.key).status_code == 200
    assert world.get("/models", "wrong").status_code == 401
    assert world.get("/admin/state", world.key).status_code == 403
    state = world.get("/admin/state", world.admin).json()
    model = state["models"]["card_fraud"]
    assert (state["ready"], model["ready"], model["online_store"]["breaker"]) == ("yes", "yes", "closed")


def test_a_request_may_pin_a_version(world: World) -> None:
    for wanted in ("1", "champion"):
        said = world.predict(headers={"X-Perennial-Version": wanted}).json()
        assert (said["role"], said["model_version"]) == ("pinned", 1)
    answer = world.predict(headers={"X-Perennial-Version": "77"})
    assert (answer.status_code, "'77'" in answer.json()["error"]) == (404, True)


def test_an_explanation_sums_to_the_score(world: World) -> None:
    said = world.predict("?explain=true").json()
    parts = said["explanation"]
    assert parts["base_score"] + sum(parts["contributions"].values()) == pytest.approx(said["score"], abs=1e-5)
    assert list(parts["contributions"]) == world.names
    assert "explanation" not in world.predict().json()
    assert world.predict("?explain=perhaps").status_code == 422


def test_a_canary_answers_its_share_and_both_are_logged(world: World) -> None:
    registry = Registry(world.settings.tracking_uri)
    # It takes fewer features than the champion: one lookup serves both.
    version = _register(world.settings, world.settings.home / "two", world.names[8:], 1.0, "challenger")
    registry.set_traffic("card_fraud", Desired(mode="canary", weight=50, stage="canary"))
    eventually(lambda: world.get("/models/card_fraud", world.key).json()["traffic"]["mode"] == "canary")
    said = [world.predict(customer_id=i, transaction_id=10_000 + i).json() for i in range(60)]
    again = [world.predict(customer_id=i).json()["role"] for i in range(60)]
    assert [each["role"] for each in said] == again
    assert 10 < again.count("challenger") < 50
    ids = {each["prediction_id"]: each for each in said}

    def logged() -> list[dict[str, Any]] | None:
        found = [row for row in world.log() if row["prediction_id"] in ids]
        return found if len(found) == 60 + again.count("challenger") else None

    for row in eventually(logged):
        answered = ids[row["prediction_id"]]
        if row["role"] == "shadow":
            assert (answered["role"], row["model_version"]) == ("challenger", 1)
        else:
            assert (row["role"], dict(row["outputs"])["score"]) == (answered["role"], pytest.approx(answered["score"]))
            assert row["latency_seconds"] > 0
    text = httpx.get(f"{world.service.url}/metrics").text
    assert f'role="challenger",version="{version}"' in text
    assert "perennial_request_seconds_bucket" in text
    registry.set_traffic("card_fraud", Desired())


def _online_store(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.get("/admin/state", world.admin).json()["models"]["card_fraud"]["online_store"]
    return found


def test_a_store_that_hangs_costs_a_deadline_and_then_nothing(world: World) -> None:
    world.redis.send_signal(signal.SIGSTOP)
    try:
        said = [world.predict().json() for _ in range(20)]
        assert {each["features_defaulted"] for each in said} == {True}
        assert _online_store(world)["breaker"] in ("open", "half-open")
        state = eventually(lambda: (found := _online_store(world))["problem"] and found)
        assert "did not answer" in state["problem"]
        assert world.ready(), "it answers without the store"
    finally:
        world.redis.send_signal(signal.SIGCONT)
    eventually(lambda: not world.predict().json()["features_defaulted"])
    eventually(world.ready)


def test_a_store_that_restarts_is_found_again(world: World) -> None:
    world.redis.kill()
    world.redis.wait()
    assert world.predict().json()["features_defaulted"]
    world.redis = subprocess.Popen(world.redis_command, stdout=subprocess.DEVNULL)
    eventually(lambda: not world.predict().json()["features_defaulted"])


def test_admins_drain_a_replica(world: World) -> None:
    headers = {"Authorization": f"Bearer {world.admin}"}
    assert httpx.post(f"{world.service.url}/admin/drain", headers=headers).json()["draining"]
    assert not world.ready()
    assert world.predict().status_code == 200
    assert not httpx.post(f"{world.service.url}/admin/resume", headers=headers).json()["draining"]
    eventually(world.ready, 60)  # On a busy machine a lookup of the probe may have been late.


def test_a_caller_that_expects_100_continue_has_the_same_limits(world: World) -> None:
    headers = {"Authorization": f"Bearer {world.key}", "Expect": "100-continue"}
    url = f"{world.service.url}/predict"
    assert httpx.post(url, json=EVENT, headers=headers).status_code == 200
    answer = httpx.post(url, content=b" " * (MAXIMUM_BODY_BYTES + 1), headers=headers)
    assert (answer.status_code, "body: more than" in answer.json()["error"]) == (413, True)


def test_a_hidden_duplicate_is_refused(world: World) -> None:
    headers = {"Authorization": f"Bearer {world.key}"}
    body = '{"transaction_id": 1, "event_time": "2026-01-05T12:30:00Z", "customer_id": 7, "terminal_id": 11, '
    answer = httpx.post(f"{world.service.url}/predict", content=body + '"amount": 1, "amount": 2}', headers=headers)
    assert (answer.status_code, list(answer.json()["fields"])) == (422, ["amount"])


def test_sigterm_first_takes_it_out_of_the_rotation_and_loses_no_answer(world: World) -> None:
    assert world.service.process is not None
    os.kill(world.service.worker(), signal.SIGTERM)
    eventually(lambda: not world.ready(), 5.5)
    assert world.predict(transaction_id=717171).status_code == 200
    eventually(lambda: any(row["event"]["transaction_id"] == 717171 for row in world.log()), 30)
