"""Whether work is so slow that it must be done in a thread: on the event loop it would delay the answers of others."""

import threading

#: Work is slow when the fastest of CALLS calls took longer than SLOW_SECONDS. It is fast again when the fastest takes
#: less than a quarter of that. The fastest counts: on a busy machine any call may have been delayed.
CALLS, SLOW_SECONDS = 8, 0.002
#: One call that takes this long is enough: eight of them would stop the event loop for too long.
VERY_SLOW_SECONDS = 0.025


class Speed:
    """Judges a kind of work by the seconds of its calls. May be used in any thread."""

    def __init__(self) -> None:
        self.slow = False
        self._lock = threading.Lock()
        self._calls, self._fastest = 0, float("inf")

    def judge(self, seconds: float) -> None:
        """One more call took `seconds`."""
        with self._lock:
            self._calls += 1
            self._fastest = min(self._fastest, seconds)
            if seconds > VERY_SLOW_SECONDS and not self.slow:
                self.slow = True
            elif self._calls == CALLS:
                self.slow = self._fastest > (SLOW_SECONDS / 4 if self.slow else SLOW_SECONDS)
            else:
                return
            self._calls, self._fastest = 0, float("inf")

    def measured(self, fastest: float) -> None:
        """The fastest of a few calls before the first request took `fastest` seconds."""
        self.slow = fastest > SLOW_SECONDS
