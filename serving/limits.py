"""Limits on the work that the service accepts. A request that is refused early costs little."""

import asyncio
import time

from serving.schema import BadRequest, Problem

LOOK_SECONDS = 0.05
#: How long a caller may take to send a body, and how large it may be: a thousand events with long strings.
BODY_SECONDS, MAXIMUM_BODY_BYTES = 10.0, 2 * 1024 * 1024


class Limits:
    """`enter` before the work of a request, `leave` after it.

    Two things have a limit: the number of requests under way, which wait for the store or a thread; and the lag of the
    event loop, in seconds, for which new requests wait.
    """

    def __init__(self, maximum: int, maximum_lag: float) -> None:
        self.in_flight = 0
        self.lag = 0.0
        #: The service is ending, or an admin took it out of the rotation.
        self.draining = False
        self._maximum, self._maximum_lag = maximum, maximum_lag

    def open(self) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    def close(self) -> None:
        self._watching.cancel()

    def enter(self) -> None:
        """Raises BadRequest (503, Retry-After) when there is too much to do."""
        if self.in_flight >= self._maximum:
            raise _overloaded(f"{self.in_flight} requests are under way")
        if self.lag > self._maximum_lag:
            raise _overloaded(f"requests wait {self.lag:.2f} s for their turn")
        self.in_flight += 1

    def leave(self) -> None:
        self.in_flight -= 1

    async def _watch(self) -> None:
        while True:
            due = time.monotonic() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            self.lag = max(0.0, time.monotonic() - due)


class Overloaded(BadRequest):
    """The service has too much to do. Metrics count it as shed."""


def _overloaded(why: str) -> Overloaded:
    return Overloaded(503, Problem(error=f"The service is overloaded: {why}"), retry_after=1)


def late() -> BadRequest:
    """For a body that was not sent in time."""
    return BadRequest(408, Problem(error=f"body: not sent within {BODY_SECONDS:g} s"))


def check_length(body: bytes | bytearray) -> None:
    """Raises BadRequest (413) when `body` is too long."""
    if len(body) > MAXIMUM_BODY_BYTES:
        raise BadRequest(413, Problem(error=f"body: more than {MAXIMUM_BODY_BYTES} bytes"))
