"""The circuit breaker leaves a failing store alone, and tries it again."""

from itertools import count

import pytest

from serving.breaker import FAILURES, OPEN_SECONDS, Breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


TRIPS = count(1)


def fail(breaker: Breaker) -> None:
    """A call fails, in a round trip of its own."""
    breaker.failed(next(TRIPS))


def succeed(breaker: Breaker) -> None:
    breaker.succeeded(next(TRIPS))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_it_opens_after_failures_and_rests(clock: Clock) -> None:
    breaker = Breaker(clock)
    for _ in range(FAILURES):
        assert breaker.allows()
        fail(breaker)
    assert (breaker.state, breaker.allows()) == ("open", False)


def test_half_open_one_call_decides(clock: Clock) -> None:
    breaker = Breaker(clock)
    for _ in range(FAILURES):
        fail(breaker)
    clock.now += OPEN_SECONDS
    assert breaker.state == "half-open"
    assert [breaker.allows(), breaker.allows()] == [True, False]
    fail(breaker)
    assert not breaker.allows()
    clock.now += OPEN_SECONDS
    assert breaker.allows()
    succeed(breaker)
    assert breaker.state == "closed"
    assert [breaker.allows(), breaker.allows()] == [True, True]
    fail(breaker)  # the failures before are forgotten
    assert breaker.state == "closed"


def test_now_and_then_a_failure_does_not_open_it(clock: Clock) -> None:
    breaker = Breaker(clock)
    for i in range(200):
        fail(breaker) if i % 3 == 0 else succeed(breaker)
        assert breaker.state == "closed"


def test_every_other_call_failing_opens_it(clock: Clock) -> None:
    breaker = Breaker(clock)
    for i in range(20):
        succeed(breaker) if i % 2 else fail(breaker)
    assert breaker.state == "open"


def test_a_call_that_says_nothing_of_the_store_decides_nothing(clock: Clock) -> None:
    breaker = Breaker(clock)
    for _ in range(3 * FAILURES):
        assert breaker.allows()
        breaker.undecided()
    assert breaker.state == "closed"
    for _ in range(FAILURES):
        fail(breaker)
    clock.now += OPEN_SECONDS
    assert breaker.allows()
    breaker.undecided()
    assert (breaker.state, breaker.allows()) == ("half-open", True)


def test_a_round_trip_that_fails_many_calls_does_not_open_it_alone(clock: Clock) -> None:
    breaker = Breaker(clock)
    for trip in range(1, FAILURES + 1):
        assert breaker.state == "closed"
        for _ in range(50):
            breaker.failed(trip)
    assert breaker.state == "open"


def test_round_trips_count_and_not_the_calls_that_share_them(clock: Clock) -> None:
    breaker = Breaker(clock)
    for trip in range(2 * FAILURES):
        for _ in range(50):
            breaker.failed(trip) if trip % 2 else breaker.succeeded(trip)
    assert breaker.state == "open", "half of them failed"


def test_an_answer_to_a_call_that_did_not_ask_closes_it(clock: Clock) -> None:
    breaker = Breaker(clock)
    for _ in range(FAILURES):
        fail(breaker)
    breaker.recovered()
    assert (breaker.state, breaker.allows(), breaker.allows()) == ("closed", True, True)
