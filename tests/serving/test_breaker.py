"""The circuit breaker leaves a failing store alone, and tries it again."""

import pytest

from serving.breaker import FAILURES, OPEN_SECONDS, Breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_it_opens_after_failures_and_rests(clock: Clock) -> None:
    breaker = Breaker(clock)
    for _ in range(FAILURES):
        assert breaker.allows()
        breaker.failed()
    assert (breaker.state, breaker.allows()) == ("open", False)


def test_half_open_one_call_decides(clock: Clock) -> None:
    breaker = Breaker(clock)
    for _ in range(FAILURES):
        breaker.failed()
    clock.now += OPEN_SECONDS
    assert breaker.state == "half-open"
    assert [breaker.allows(), breaker.allows()] == [True, False]
    breaker.failed()
    assert not breaker.allows()
    clock.now += OPEN_SECONDS
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.state == "closed"
    assert [breaker.allows(), breaker.allows()] == [True, True]
    breaker.failed()  # the failures before are forgotten
    assert breaker.state == "closed"


def test_now_and_then_a_failure_does_not_open_it(clock: Clock) -> None:
    breaker = Breaker(clock)
    for i in range(200):
        (breaker.failed if i % 3 == 0 else breaker.succeeded)()
        assert breaker.state == "closed"


def test_every_other_call_failing_opens_it(clock: Clock) -> None:
    breaker = Breaker(clock)
    for i in range(20):
        (breaker.succeeded if i % 2 else breaker.failed)()
    assert breaker.state == "open"


def test_a_call_that_says_nothing_of_the_store_decides_nothing(clock: Clock) -> None:
    breaker = Breaker(clock)
    for _ in range(3 * FAILURES):
        assert breaker.allows()
        breaker.undecided()
    assert breaker.state == "closed"
    for _ in range(FAILURES):
        breaker.failed()
    clock.now += OPEN_SECONDS
    assert breaker.allows()
    breaker.undecided()
    assert (breaker.state, breaker.allows()) == ("half-open", True)
