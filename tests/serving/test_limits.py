"""Load shedding: what is beyond the bounds is told at once to come again."""

import asyncio
import time

import orjson
import pytest

from serving.endpoint import PredictEndpoint
from serving.limits import LOOK_SECONDS, Limits, Overloaded
from training.contract.model_spec import load_model_spec
from training.settings import Settings


def test_a_request_beyond_the_bound_is_refused_with_503_and_retry_after() -> None:
    limits = Limits(2, 1.0)
    limits.enter()
    limits.enter()
    with pytest.raises(Overloaded) as refused:
        limits.enter()
    assert limits.in_flight == 2
    limits.leave()
    limits.enter()
    status, body, headers = PredictEndpoint(Settings(), load_model_spec("card_fraud")).refuse(refused.value)
    assert (status, headers) == (503, ((b"retry-after", b"1"),))
    assert "2 requests are under way" in orjson.loads(body)["error"]


def test_requests_are_refused_while_the_event_loop_is_behind_and_taken_once_it_is_not() -> None:
    async def go() -> None:
        limits = Limits(10, 0.1)
        limits.open()
        await asyncio.sleep(0)
        time.sleep(0.3)
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded, match="wait"):
            limits.enter()
        await asyncio.sleep(3 * LOOK_SECONDS)
        limits.enter()
        limits.close()

    asyncio.run(go())
