"""How much work is taken on at a time: refused early, a request costs its caller nothing and the others little."""

import asyncio
import time

from serving.schema import BadRequest, Problem

LOOK_SECONDS = 0.05


class Limits:
    """`with limits:` around the work of a request. Raises BadRequest (503, Retry-After) when there is too much of it.

    Two things are bounded: requests that have begun and wait for the store or a thread, and how far the event loop is
    behind, which is what requests that have not begun wait for.
    """

    def __init__(self, maximum: int, maximum_lag: float) -> None:
        self.in_flight = 0
        self.lag = 0.0
        #: The service is ending, or was asked to take itself out of the rotation.
        self.draining = False
        self._maximum, self._maximum_lag = maximum, maximum_lag

    def open(self) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    def close(self) -> None:
        self._watching.cancel()

    def __enter__(self) -> None:
        if self.in_flight >= self._maximum:
            raise _overloaded(f"{self.in_flight} requests are under way")
        if self.lag > self._maximum_lag:
            raise _overloaded(f"requests wait {self.lag:.2f} s for their turn")
        self.in_flight += 1

    def __exit__(self, *_: object) -> None:
        self.in_flight -= 1

    async def _watch(self) -> None:
        while True:
            due = time.monotonic() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            self.lag = max(0.0, time.monotonic() - due)


class Overloaded(BadRequest):
    """Counted as shed."""


def _overloaded(why: str) -> Overloaded:
    return Overloaded(503, Problem(error=f"The service is overloaded: {why}"), retry_after=1)
