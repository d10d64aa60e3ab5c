"""Load shedding: what is beyond the bounds is told at once to come again."""

import asyncio
import time

import orjson
import pytest

from serving.endpoint import refusal
from serving.limits import LOOK_SECONDS, REFUSAL_SECONDS, Limits, ModelLimits, Overloaded


def test_a_request_beyond_the_bound_is_refused_with_503_and_retry_after() -> None:
    shared = Limits(2, 1.0)
    limits = ModelLimits(shared)
    limits.enter()
    limits.enter()
    with pytest.raises(Overloaded) as refused:
        limits.enter()
    assert limits.in_flight == shared.in_flight == 2
    limits.leave()
    limits.enter()
    status, body, headers, *_ = refusal(refused.value)
    assert (status, headers) == (503, ((b"retry-after", b"1"),))
    assert "2 requests are under way" in orjson.loads(body)["error"]


def test_only_the_refusals_of_a_model_among_several_wait() -> None:
    """A model alone hurts no other, and a full service is not the fault of the model that is asked."""
    shared = Limits(4, 1.0)
    flooded, other = ModelLimits(shared), ModelLimits(shared)
    for models, pause in ((1, 0.0), (2, REFUSAL_SECONDS)):
        shared.models, shared.lag = models, 2.0
        flooded.in_flight = shared.in_flight = 1
        with pytest.raises(Overloaded) as refused:
            flooded.enter()
        assert refused.value.pause == pause
    shared.lag = 0.0
    flooded.in_flight = shared.in_flight = 2
    with pytest.raises(Overloaded) as refused:
        flooded.enter()
    assert refused.value.pause == REFUSAL_SECONDS
    shared.in_flight = 4
    with pytest.raises(Overloaded) as refused:
        other.enter()
    assert refused.value.pause == 0.0


def test_requests_are_refused_while_the_event_loop_is_behind_and_taken_once_it_is_not() -> None:
    async def go() -> None:
        shared = Limits(10, 0.1)
        limits = ModelLimits(shared)
        shared.open()
        await asyncio.sleep(0)
        time.sleep(0.3)
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded, match="wait"):
            limits.enter()
        await asyncio.sleep(3 * LOOK_SECONDS)
        limits.enter()
        shared.close()

    asyncio.run(go())


def test_while_the_event_loop_is_behind_only_the_models_that_ask_most_are_refused() -> None:
    shared = Limits(64, 1.0)
    flooded, other = ModelLimits(shared), ModelLimits(shared)
    shared.models = 2
    flooded.enter()
    shared.lag = 2.0
    with pytest.raises(Overloaded, match="wait"):
        flooded.enter()
    other.enter()
    with pytest.raises(Overloaded, match="wait"):
        other.enter()


def held(limits: ModelLimits, most: int) -> int:
    """How many requests the model may have under way now, up to `most`."""
    for number in range(most):
        try:
            limits.enter()
        except Overloaded:
            return number
    return most


def test_a_flood_on_one_model_leaves_places_for_the_others() -> None:
    shared = Limits(64, 1.0)
    flooded, second, other = (ModelLimits(shared) for _ in range(3))
    shared.models = 3
    assert held(flooded, 64) == 32
    assert held(second, 64) == 16
    assert held(other, 4) == 4
    for _ in range(16):
        second.leave()
    assert held(flooded, 64) == 0
    shared.models = 1
    assert held(flooded, 64) == 64 - 32 - 4
