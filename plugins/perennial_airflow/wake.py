"""Wakes the scheduler when a task has succeeded, before the process of the task has ended.

The processes of tasks are forks of the scheduler and inherit the writing end of a pipe. Ending such a process, and the
one that watches it, takes a tenth of a second and sometimes a whole one. The tasks that come next need not wait for
that: Airflow's database has the success already.
"""

import os
from contextlib import suppress

#: What the processes of tasks write to. None where the executor has no such pipe, as on a cluster.
_writing: int | None = None


def listen() -> int:
    """Open the pipe, in the scheduler before it has processes for tasks. Returns the end to wait on."""
    global _writing
    reading, _writing = os.pipe()
    for end in (reading, _writing):
        os.set_blocking(end, False)
    return reading


def wake() -> None:
    """Called in the process of a task."""
    if _writing is not None:
        # A full pipe wakes the scheduler as well. A pipe that nobody reads is that of a scheduler that was killed.
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(_writing, b"\0")


def forget(reading: int) -> None:
    """Forget the wakes so far, before the scheduler looks for what to do."""
    with suppress(BlockingIOError):
        os.read(reading, 65_536)
