"""Launchers run a step's command and say how it ended. They build nothing: the command is the contract's."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Thread
from typing import IO, Any, Protocol

from training.contract.processes import end_with_parent
from training.settings import ROOT

#: Between SIGTERM and SIGKILL. Airflow kills a task 5 s after asking it to stop; the step must be gone by then.
GRACE_SECONDS = 3.0
TOO_LONG = "The step ran longer than {:.0f} s and was stopped"

#: How steps format their log lines (training/runner.py): Airflow's log has its own time and level.
_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) (.*)$")


class Launcher(Protocol):
    def launch(self, argv: Sequence[str], env: Mapping[str, str], timeout: float) -> int:
        """Run the interpreter's arguments `argv`, its output going to the task's log. Returns the exit code.

        Raises TimeoutError after `timeout` seconds; whatever it started is gone when this ends, however it ends.
        """

    def stop(self) -> None:
        """End what `launch` runs, from a signal handler or another thread."""


class SubprocessLauncher:
    """A child process in a session of its own, on this machine, with this interpreter."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def launch(self, argv: Sequence[str], env: Mapping[str, str], timeout: float) -> int:
        process = subprocess.Popen(
            [sys.executable, *argv],
            cwd=ROOT,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        self._process = process
        assert process.stdout is not None
        reader = Thread(target=copy_output, args=(process.stdout, self._log), daemon=True)
        reader.start()
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(TOO_LONG.format(timeout)) from None
        finally:
            self.stop()
            reader.join(GRACE_SECONDS)

    def stop(self) -> None:
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def copy_output(output: IO[str], log: Any) -> None:
    """Copy a step's output to the task's log, line by line as it comes, and close it."""
    with output:
        for line in output:
            log_line(line, log)


def log_line(line: str, log: Any) -> None:
    """One line of a step's output, at the level that the step gave it."""
    match = _LINE.match(line.rstrip())
    level, text = match.groups() if match else ("INFO", line.rstrip())
    log.log(logging.getLevelNamesMapping()[level], "%s", text)


def step_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a step sees of a task's environment: all but Airflow's own, which holds its database and its secrets."""
    own = {key: value for key, value in environ.items() if not key.lstrip("_").startswith("AIRFLOW")}
    return {**own, "PYTHONUNBUFFERED": "1"}
