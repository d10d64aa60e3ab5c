"""A circuit breaker: after failures the store is not called for a while, so that requests do not wait for it."""

import time
from collections import deque
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half-open"]

#: It opens when at least FAILURES of the last WINDOW round trips have failed, and at least half of them. Many calls
#: share a round trip, so a single interruption fails one.
WINDOW, FAILURES = 10, 3
OPEN_SECONDS = 1.0


class Breaker:
    """Closed: calls are allowed. Open: none is, for OPEN_SECONDS. Half-open: one is, and its outcome decides.

    Outcomes of calls that began before it opened are ignored.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: For each of the last round trips whether it failed.
        self._failed: deque[bool] = deque(maxlen=WINDOW)
        self._last_trip: int | None = None
        self._opened: float | None = None
        self._probing = False

    @property
    def state(self) -> State:
        if self._opened is None:
            return "closed"
        return "half-open" if self._clock() - self._opened >= OPEN_SECONDS else "open"

    def allows(self) -> bool:
        """Whether a call may be made now. Report its outcome: `succeeded`, `failed` or `undecided`."""
        if self._opened is None:
            return True
        if self._probing or self.state == "open":
            return False
        self._probing = True
        return True

    def succeeded(self, trip: int) -> None:
        """`trip`: the number of the round trip. The calls that share it count once."""
        if self._opened is None:
            self._count(trip, failed=False)
        elif self._probing:
            self.recovered()

    def recovered(self) -> None:
        """Close it: the store has answered a call that was made without asking `allows`."""
        self._opened, self._probing = None, False
        self._failed.clear()

    def failed(self, trip: int) -> None:
        """`trip`: as of `succeeded`."""
        if self._opened is None:
            self._count(trip, failed=True)
            failures = sum(self._failed)
            if failures >= FAILURES and 2 * failures >= len(self._failed):
                self._opened = self._clock()
        elif self._probing:
            self._opened, self._probing = self._clock(), False

    def _count(self, trip: int, failed: bool) -> None:
        if trip != self._last_trip:
            self._last_trip = trip
            self._failed.append(failed)

    def undecided(self) -> None:
        """The call says nothing about the store: it was cancelled, or the request itself caused the error."""
        self._probing = False
