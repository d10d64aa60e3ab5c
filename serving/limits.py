"""Limits on the work that the service accepts. A request that is refused early costs little."""

import asyncio
import time

from serving.schema import BadRequest, Problem

LOOK_SECONDS = 0.05
#: Seconds before a refusal is sent for a model that uses its whole share. Callers that ask again at once would
#: otherwise fill the event loop with refusals, and the other models' requests would wait for it.
REFUSAL_SECONDS = 0.2
#: How long a caller may take to send a body, and how large it may be: a thousand events with long strings.
BODY_SECONDS, MAXIMUM_BODY_BYTES = 10.0, 2 * 1024 * 1024


class Limits:
    """What all models of the service share.

    Two things have a limit: the number of requests under way, which wait for the store or a thread; and the lag of the
    event loop, in seconds, for which new requests wait.
    """

    def __init__(self, maximum: int, maximum_lag: float) -> None:
        self.in_flight = 0
        self.lag = 0.0
        #: The service is ending, or an admin took it out of the rotation.
        self.draining = False
        self.maximum, self.maximum_lag = maximum, maximum_lag
        #: How many models share the limits.
        self.models = 0

    def open(self) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    def close(self) -> None:
        self._watching.cancel()

    async def _watch(self) -> None:
        while True:
            due = time.monotonic() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            self.lag = max(0.0, time.monotonic() - due)


class ModelLimits:
    """The limits of one model of several. `enter` before the work of a request, `leave` after it.

    A model may use as many places for requests under way as all models together leave free. So a flood on one model
    takes half of the places at most, floods on two a third each, and the others find free ones (the dynamic threshold
    of Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998). A model that is
    alone may use all. While the event loop lags, models with fewer requests under way than the mean of all models, or
    with none, still get in: the lag comes from the others.
    """

    def __init__(self, shared: Limits) -> None:
        self.in_flight = 0
        #: The model is not served any more, or by another host.
        self.closed = False
        self._shared = shared

    def enter(self) -> None:
        """Raises BadRequest (503, Retry-After) when there is too much to do."""
        shared = self._shared
        if self.closed:
            raise Overloaded("the model has just been replaced or removed")
        if shared.in_flight >= shared.maximum:
            raise Overloaded(f"{shared.in_flight} requests are under way")
        if shared.models > 1 and self.in_flight >= shared.maximum - shared.in_flight:
            why = f"{self.in_flight} requests to this model are under way, as many as it may have now"
            raise Overloaded(why, REFUSAL_SECONDS)
        if shared.lag > shared.maximum_lag and not self._asks_little:
            why = f"requests wait {shared.lag:.2f} s for their turn"
            raise Overloaded(why, REFUSAL_SECONDS if shared.models > 1 else 0.0)
        self.in_flight += 1
        shared.in_flight += 1

    @property
    def _asks_little(self) -> bool:
        """Whether other models cause the load."""
        shared = self._shared
        return shared.models > 1 and (not self.in_flight or self.in_flight * shared.models < shared.in_flight)

    def leave(self) -> None:
        self.in_flight -= 1
        self._shared.in_flight -= 1


class Overloaded(BadRequest):
    """The service has too much to do. Metrics count it as shed. `pause`: seconds until the caller is told."""

    def __init__(self, why: str, pause: float = 0.0) -> None:
        super().__init__(503, Problem(error=f"The service is overloaded: {why}"), retry_after=1)
        self.pause = pause


def late() -> BadRequest:
    """For a body that was not sent in time."""
    return BadRequest(408, Problem(error=f"body: not sent within {BODY_SECONDS:g} s"))


def check_length(body: bytes | bytearray) -> None:
    """Raises BadRequest (413) when `body` is too long."""
    if len(body) > MAXIMUM_BODY_BYTES:
        raise BadRequest(413, Problem(error=f"body: more than {MAXIMUM_BODY_BYTES} bytes"))
