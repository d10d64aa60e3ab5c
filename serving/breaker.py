"""A circuit breaker: a store that fails is left alone for a while, so that nobody waits for it in vain."""

import time
from collections import deque
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half-open"]

#: It opens when at least FAILURES of the last WINDOW calls failed and they are at least half of them.
WINDOW, FAILURES = 10, 5
REST_SECONDS = 1.0


class Breaker:
    """Closed: calls go through. Open: none does, for REST_SECONDS. Half-open: one does, and decides what is next.

    What becomes of calls from before it opened decides nothing any more.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: deque[bool] = deque(maxlen=WINDOW)
        self._opened: float | None = None
        self._trying = False

    @property
    def state(self) -> State:
        if self._opened is None:
            return "closed"
        return "half-open" if self._clock() - self._opened >= REST_SECONDS else "open"

    def allows(self) -> bool:
        """Whether a call may be made now. Who is allowed tells the outcome: `succeeded`, `failed` or `undecided`."""
        if self._opened is None:
            return True
        if self._trying or self.state == "open":
            return False
        self._trying = True
        return True

    def succeeded(self) -> None:
        if self._opened is None:
            self._failed.append(False)
        elif self._trying:
            self._opened, self._trying = None, False
            self._failed.clear()

    def failed(self) -> None:
        if self._opened is None:
            self._failed.append(True)
            failures = sum(self._failed)
            if failures >= FAILURES and 2 * failures >= len(self._failed):
                self._opened = self._clock()
        elif self._trying:
            self._opened, self._trying = self._clock(), False

    def undecided(self) -> None:
        """The call said nothing about the store: it was cancelled, or failed because of what was asked."""
        self._trying = False
