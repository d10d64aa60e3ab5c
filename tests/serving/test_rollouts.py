"""Rollouts of good and of bad models on the real service: MLflow, the online store, callers that never stop.

The tests run in order on one stack, whose champion is version 1.
"""

import gc
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from serving.load_guard import LoadGuard
from serving.metrics import Metrics
from serving.registry_poll import RegistryPoll
from serving.signals import RolloutSignals
from serving.watcher import Watcher
from testing.onnx_attacks import endless_loop
from testing.serving_artifacts import EVENT
from testing.serving_stack import (
    Service,
    Stack,
    changed,
    fill_online_store,
    running_mlflow,
    running_stack,
    service_process,
)
from testing.waiting import eventually
from tests.cases import others_long
from training.contract.errors import RolloutAborted, StepError
from training.contract.messages import RollbackInputs, RolloutInputs
from training.contract.traffic import FIRST, FirstLoad
from training.steps import rollback, rollout

pytestmark = pytest.mark.ci

SOURCE, MODEL = "card_payments", "card_fraud"
SHADOW = {"mode": "shadow", "requests": 200, "maximum_minutes": 8, "on_silence": "fail"}
CANARY = {"mode": "canary", "weight": 30, "requests": 60, "maximum_minutes": 8, "on_silence": "fail"}
FULL = {"mode": "full"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    # Several replicas and a rollout ask at once: as in production, a server answers them.
    with running_mlflow(folder) as mlflow, running_stack(folder, tracking_uri=mlflow.url) as running:
        fill_online_store(running.settings, running.spec)
        # Flags amounts from about 90 on: a tenth of the payments below.
        running.promote(running.register(bias=-0.92))
        yield running


class Callers:
    """Two callers that pay amounts from 0 to 100 with a thousand cards, and keep what they were told."""

    def __init__(self, urls: list[str]) -> None:
        self.statuses: Counter[int] = Counter()
        self.versions: dict[int, set[int]] = {}
        self._urls, self._stop = urls, threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(seed,)) for seed in range(2)]

    def _call(self, seed: int) -> None:
        chance = random.Random(seed)
        clients = [httpx.Client(base_url=url, timeout=30) for url in self._urls]
        while not self._stop.is_set():
            card = chance.randrange(1000) + 1000 * seed
            body = EVENT | {"customer_id": card, "amount": chance.uniform(0, 100)}
            answer = chance.choice(clients).post("/predict", json=body)
            self.statuses[answer.status_code] += 1
            if answer.is_success:
                self.versions.setdefault(card, set()).add(answer.json()["model_version"])
            time.sleep(0.01)

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_good_model_passes_its_stages_and_nobody_notices(stack: Stack) -> None:
    version = stack.register(bias=-0.9).version
    settings = stack.planned([SHADOW, CANARY, FULL], {"maximum_p99_ms": 1000})
    with Callers([stack.service.url]) as callers:
        result = rollout.run(RolloutInputs(model=MODEL, version=version, reason="better"), settings)
        time.sleep(0.5)
    assert set(callers.statuses) == {200}
    assert [stage.stage.partition("-")[2] for stage in result.stages] == ["shadow", "canary-30"]
    assert all(stage.requests >= spec["requests"] for stage, spec in zip(result.stages, (SHADOW, CANARY), strict=True))
    assert (result.version, result.previous_version) == (version, 1)
    assert stack.service.serves(version)
    # Back, so that the next tests start from version 1.
    rollback.run(RollbackInputs(model=MODEL, version=1), stack.planned([FULL]))


@pytest.mark.parametrize(
    ("fault", "stage", "guard"),
    others_long(
        [
            ({"bias": -0.92, "worse": True}, SHADOW, "agreement"),
            ({"bias": -0.4}, CANARY, "alert_rate"),
            ({"bias": -0.92, "nan": True}, SHADOW, "nan_share"),
            ({"bias": -0.92, "nan": True}, CANARY, "nan_share"),
            ({"bias": -0.92, "slow": 200}, CANARY, "p99"),
            # Last: up to a thousand payments that still wait for this shadow are scored before those for the next one.
            ({"bias": -0.92, "slow": 200}, SHADOW, "p99"),
        ],
        first=2,
    ),
    ids=["worse", "alerts", "NaN", "NaN canary", "slow canary", "slow"],
)
def test_a_bad_model_is_rolled_back_by_the_guard_that_should(
    stack: Stack, fault: dict[str, Any], stage: dict[str, Any], guard: str
) -> None:
    version = stack.register(**fault).version
    # On a busy machine a good model may be late, too: times are looked at where they are the point.
    guards: dict[str, Any] = {} if guard == "p99" else {"maximum_p99_ms": None, "maximum_p99_ratio": None}
    # Whoever flags more also decides otherwise.
    guards |= {"minimum_agreement": None} if guard == "alert_rate" else {}
    settings = stack.planned([{**stage, "requests": 5000}, FULL], guards)
    with Callers([stack.service.url]) as callers, pytest.raises(RolloutAborted) as failed:
        rollout.run(RolloutInputs(model=MODEL, version=version), settings)
    assert guard in failed.value.message.partition(" tripped")[0], failed.value.message
    eventually(lambda: stack.service.serves(1) and stack.service.mode() == "full")
    state = stack.registry.state(MODEL)
    assert (state.aliases["champion"], state.tags) == (1, {})
    assert "challenger" not in state.aliases
    assert set(callers.statuses) == {200}


@pytest.mark.long
def test_a_canary_is_sticky(stack: Stack) -> None:
    version = stack.register(bias=-0.91).version
    settings = stack.planned([{**CANARY, "requests": 300}, FULL])
    with Callers([stack.service.url]) as callers:
        stack.registry.set_alias(MODEL, "challenger", version)
        for tag, value in (("rollout.weight", "30"), ("rollout.mode", "canary")):  # as a person does in the MLflow UI
            stack.registry._client.set_registered_model_tag(MODEL, tag, value)
        eventually(lambda: stack.service.mode() == "canary")
        callers.versions.clear()
        time.sleep(3)
    seen = callers.versions.values()
    assert all(len(versions) == 1 for versions in seen)
    share = sum(versions == {version} for versions in seen) / len(seen)
    assert 0.2 < share < 0.4
    rollback.run(RollbackInputs(model=MODEL, version=1), settings)


@pytest.mark.long
@pytest.mark.parametrize(
    ("tag", "value", "said"),
    [("rollout.mode", "chaos", "not one of full"), ("rollout.weight", "many", "not a percentage")],
)
def test_tags_that_make_no_sense_leave_the_champion_alone(stack: Stack, tag: str, value: str, said: str) -> None:
    stack.registry.set_alias(MODEL, "challenger", 2)
    for name, sense in {"rollout.weight": "100", "rollout.mode": "canary", tag: value}.items():
        stack.registry._client.set_registered_model_tag(MODEL, name, sense)
    eventually(lambda: said in stack.service.problem())
    assert {stack.predict(customer_id=card).json()["model_version"] for card in range(20)} == {1}
    rollback.run(RollbackInputs(model=MODEL, version=1), stack.planned([FULL]))
    stack.registry.remove_alias(MODEL, "challenger")
    for name in ("rollout.weight", "rollout.mode"):
        stack.registry._client.delete_registered_model_tag(MODEL, name)
    eventually(lambda: stack.service.models().problem is None)


@contextmanager
def more_replicas(stack: Stack, count: int) -> Iterator[list[Service]]:
    """Services beside the stack's own, each with a state of its own."""
    states = [str(stack.folder / f"replica{number}") for number in range(count)]
    with ExitStack() as running:
        services = [service_process(changed(stack.settings, serving_state=state)) for state in states]
        yield [running.enter_context(service) for service in services]


@pytest.mark.long
def test_three_replicas_pass_stages_together_and_roll_back_in_five_seconds(stack: Stack) -> None:
    version = stack.register(bias=-0.93).version
    with more_replicas(stack, 2) as others:
        services = [stack.service, *others]
        urls = [service.url for service in services]
        for service in services:
            eventually(lambda service=service: service.serves(1))
        settings = stack.planned([SHADOW, CANARY, FULL], {"maximum_p99_ms": 1000}, ",".join(urls))
        with Callers(urls) as callers:
            result = rollout.run(RolloutInputs(model=MODEL, version=version), settings)
            assert len(result.replicas) == 3
            assert result.stages[0].requests >= SHADOW["requests"]
            begun = time.monotonic()
            back = rollback.run(RollbackInputs(model=MODEL, reason="complaints"), settings)
            seconds = time.monotonic() - begun
        print(f"rolled back on three replicas in {seconds:.2f} s")
        assert (back.version, {replica.version for replica in back.replicas}) == (1, {1})
        assert all(service.serves(1) for service in services)
        assert seconds < 5
        assert set(callers.statuses) == {200}


@pytest.mark.long
def test_a_version_that_takes_down_the_first_replica_reaches_no_other(stack: Stack) -> None:
    bad = stack.register(bias=-0.94, attack=endless_loop).version
    with more_replicas(stack, 1) as [other]:
        services = [stack.service, other]
        for service in services:
            eventually(lambda service=service: service.serves(1))
        # As the step `register` does.
        stack.registry.load_first(MODEL, FirstLoad(version=bad))
        stack.registry.set_alias(MODEL, "challenger", bad)
        for service in services:
            eventually(lambda service=service: "waits for its rollout" in (service.models().held_back or ""))
        first, second = sorted(services, key=lambda service: service.models().replica)
        settings = stack.planned([{"mode": "full"}], urls=",".join(service.url for service in services))
        with ThreadPoolExecutor() as pool, Callers([second.url]) as callers:
            rolling = pool.submit(rollout.run, RolloutInputs(model=MODEL, version=bad), settings)
            records = Path(settings.serving if first is stack.service else stack.folder / "replica0", "loads.json")
            eventually(lambda: '"loading":true' in records.read_text())
            first.kill()
            first.start()
            with pytest.raises(StepError):  # The refusal, or on a slow machine the time limit.
                rolling.result()
            refusal = eventually(lambda: first.refused(bad))
            assert "The service ended while it was loading the version" in refusal.reason
            # The same replica is the first again, and it refuses the version.
            with pytest.raises(StepError, match=f"{first.url} .* is refused"):
                rollout.run(RolloutInputs(model=MODEL, version=bad), settings)
        assert set(callers.statuses) == {200}
        assert bad not in {*second.models().loaded_versions, *second.models().refused}
        assert f"{MODEL} version {bad} is" not in second.log.read_text().replace("is loaded by replica", "")
        good = stack.register(bias=-0.94).version
        stack.registry.load_first(MODEL, FirstLoad(version=good))
        stack.registry.set_alias(MODEL, "challenger", good)
        patient = stack.planned([{"mode": "full"}], urls=settings.serving_urls, timeout=300)
        rollout.run(RolloutInputs(model=MODEL, version=good), patient)
        assert all(service.serves(good) for service in services)
        assert FIRST not in stack.registry.state(MODEL).tags
        rollback.run(RollbackInputs(model=MODEL, version=1), patient)


@pytest.mark.long
def test_what_no_longer_serves_is_freed(stack: Stack) -> None:
    settings = changed(stack.settings, serving_state=str(stack.folder / "watched"))
    poll = RegistryPoll(stack.registry, settings.serving_poll_seconds)
    metrics = Metrics(CollectorRegistry()).of(MODEL)
    watcher = Watcher(settings, stack.spec, metrics, RolloutSignals(stack.spec), LoadGuard(settings), poll.wake)
    poll.add(watcher)
    poll.start()
    try:
        eventually(lambda: watcher.traffic.champion)
        models = []
        versions = [stack.register(bias=-0.9 - i / 1000) for i in range(3)]
        for version in versions:
            stack.registry.set_alias(MODEL, "champion", version.version)
            loaded = eventually(lambda v=version: (s := watcher.traffic.champion) and s.version == v.version and s)
            models.append(weakref.ref(loaded.model))
        held, loaded = loaded, None  # a request under way
        stack.registry.set_alias(MODEL, "champion", 1)
        eventually(lambda: watcher.traffic.champion and watcher.traffic.champion.version == 1)

        def left() -> list[bool]:
            gc.collect()
            return [model() is not None for model in models]

        eventually(lambda: left() == [False, False, True])
        del held
        eventually(lambda: left() == [False, False, False])
        copies = stack.folder / "watched" / "models" / MODEL
        gone = {str(version.version) for version in versions}
        eventually(lambda: not gone & {path.name for path in copies.glob("[0-9]*")})
    finally:
        poll.stop()
