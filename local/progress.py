"""Progress messages, for a console and for a log file."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.status import Status

#: Without a console: seconds between two messages about the current activity.
QUIET = 15.0


class Progress:
    """Prints lines that stay (`say`) and one that changes (`now`), each with the time since the start."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._started = time.monotonic()
        self._status: Status | None = None
        self._last, self._last_at = "", 0.0

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self._status = self.console.status("")
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._status:
            self._status.stop()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        self.console.print(f"{self.clock}  {text}", markup=False)
        self._last, self._last_at = "", time.monotonic()

    def now(self, text: str) -> None:
        """Show the current activity."""
        if self._status:
            self._status.update(f"[dim]{self.clock}[/]  {text.replace('[', '(').replace(']', ')')}")
        elif text != self._last and time.monotonic() - self._last_at > QUIET:
            self.console.print(f"{self.clock}    … {text}", markup=False)
            self._last, self._last_at = text, time.monotonic()

    @property
    def clock(self) -> str:
        minutes, seconds = divmod(int(self.seconds), 60)
        return f"{minutes:02d}:{seconds:02d}"
