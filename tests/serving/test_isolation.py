"""The troubles of one model do not hurt the others: during each fault they answer every request, about as fast.

`victim` has the fault; requests to `one` and `other` are measured before it and during it. The bounds on their time are
wide, because the tests run on busy machines.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

from serving.limits import REFUSAL_SECONDS
from testing.callers import calling
from testing.many_models import ManyModels, running_models
from testing.serving_artifacts import EVENT, NAN_FROM
from testing.waiting import eventually

pytestmark = pytest.mark.long

VICTIM, OTHERS = "victim", ("one", "other")
SECONDS, PER_SECOND = 3.0, 20
#: Of the 99th percentile during a fault: a multiple of that before, and seconds beside it.
FACTOR, ALLOWANCE = 10, 1.0
#: No limit of time is reached because the machine is busy.
PATIENT = {"serving_deadline_seconds": 60, "serving_lookup_seconds": 30, "serving_maximum_lag_seconds": 60}
IN_FLIGHT = 32


class Seen(NamedTuple):
    p99: float
    failed: list[str]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyModels]:
    kinds = dict.fromkeys((VICTIM, *OTHERS), "binary")
    fields: dict[str, Any] = PATIENT | {"serving_maximum_in_flight": IN_FLIGHT}
    with running_models(tmp_path_factory.mktemp("isolation"), kinds, **fields) as made:
        yield made


def measured(models: ManyModels) -> Seen:
    """Requests to the others, one after another, for SECONDS."""
    seconds, failed = list[float](), list[str]()
    with httpx.Client(timeout=120) as client:
        began = time.monotonic()
        for number in range(int(SECONDS * PER_SECOND)):
            time.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
            sent = time.monotonic()
            name = OTHERS[number % len(OTHERS)]
            answer = client.post(f"{models.service.url}/models/{name}/predict", json=EVENT)
            seconds.append(time.monotonic() - sent)
            if answer.status_code != 200:
                failed.append(f"{name}: {answer.status_code} {answer.text}")
    return Seen(float(np.percentile(seconds, 99)), failed)


def check_others(models: ManyModels, before: Seen, during: Seen) -> None:
    assert during.failed == before.failed == []
    assert during.p99 <= FACTOR * before.p99 + ALLOWANCE
    assert [models.of(name).ready for name in OTHERS] == ["yes"] * len(OTHERS)
    assert models.service.ready()


@contextmanager
def calls(models: ManyModels, callers: int = 4, **changes: Any) -> Iterator[list[int]]:
    """Requests to the victim meanwhile, by so many callers. Yields the statuses of the answers."""
    statuses = list[int]()

    def call(number: int, stop: threading.Event) -> None:
        with httpx.Client(timeout=120) as client:
            while not stop.is_set():
                url = f"{models.service.url}/models/{VICTIM}/predict"
                statuses.append(client.post(url, json=EVENT | changes).status_code)

    with calling(callers, call):
        yield statuses


def seconds_until_refused(models: ManyModels) -> float:
    """How long a refused request to the victim takes. Requests are sent until one is refused."""
    while True:
        sent = time.monotonic()
        answer = httpx.post(f"{models.service.url}/models/{VICTIM}/predict", json=EVENT, timeout=120)
        if answer.status_code == 503:
            return time.monotonic() - sent


def test_a_version_that_cannot_be_loaded(models: ManyModels) -> None:
    before, good = measured(models), models.champion(VICTIM)
    bad = models.register(VICTIM, golden_error=0.5)
    models.set_champion(VICTIM, bad)
    during = measured(models)
    eventually(lambda: bad in models.of(VICTIM).refused)
    check_others(models, before, during)
    assert models.champion(VICTIM) == good
    assert models.predict(VICTIM).status_code == 200
    models.promote(VICTIM, models.register(VICTIM))


@pytest.mark.parametrize("fault", ["nan", "raises"])
def test_a_version_that_cannot_score(models: ManyModels, fault: str) -> None:
    before = measured(models)
    models.promote(VICTIM, models.register(VICTIM, **{fault: True}))
    with calls(models, amount=NAN_FROM + 1) as statuses:
        during = measured(models)
    check_others(models, before, during)
    assert set(statuses) == {503}
    models.promote(VICTIM, models.register(VICTIM))


def test_a_slow_model(models: ManyModels) -> None:
    before = measured(models)
    models.promote(VICTIM, models.register(VICTIM, slow=150))
    with calls(models) as statuses:
        during = measured(models)
    check_others(models, before, during)
    assert set(statuses) == {200}
    models.promote(VICTIM, models.register(VICTIM))


def test_a_flood(models: ManyModels) -> None:
    """More callers than the service works for at a time, and requests that take long."""
    before = measured(models)
    models.promote(VICTIM, models.register(VICTIM, slow=20))
    with calls(models, 2 * IN_FLIGHT) as statuses:
        during = measured(models)
        # Nobody who asks again at once can fill the service with refusals.
        waited = seconds_until_refused(models)
    check_others(models, before, during)
    assert 503 in statuses, "the flood did not reach the limit"
    assert waited >= REFUSAL_SECONDS
    models.promote(VICTIM, models.register(VICTIM))


def test_a_prediction_log_that_cannot_be_written(models: ManyModels) -> None:
    folder = models.spool(VICTIM)
    eventually(lambda: not list(folder.glob("*.jsonl")))
    before = measured(models)
    numbers = [int(path.stem) for path in folder.iterdir() if path.stem.isdigit()]
    in_the_way = [folder / f"{number:012d}.open" for number in range(max(numbers) + 1, max(numbers) + 50)]
    for path in in_the_way:
        path.mkdir(exist_ok=True)
    with calls(models, 1) as statuses:
        eventually(lambda: "could not be written" in models.of(VICTIM).ready)
        during = measured(models)
    check_others(models, before, during)
    assert set(statuses) == {200}
    for path in in_the_way:
        if path.is_dir():
            path.rmdir()
    eventually(lambda: models.of(VICTIM).ready == "yes")
