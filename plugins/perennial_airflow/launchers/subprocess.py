"""The launcher `subprocess`: a step is a child process of its task, with the task's own interpreter."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Thread
from typing import Any

from perennial_airflow.launchers import LAUNCHERS
from perennial_airflow.step_output import copy_output
from perennial_airflow.step_process import TOO_LONG, ProcessStepOperator, StepProcess
from training.contract.processes import LOCAL_GRACE_SECONDS, end_with_parent
from training.settings import ROOT, LauncherSettings


class ChildProcess(StepProcess):
    """A child process in its own session on this machine."""

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
            reader.join(LOCAL_GRACE_SECONDS)

    def stop(self) -> None:
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + LOCAL_GRACE_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole process group."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


@LAUNCHERS.register("subprocess")
class SubprocessStepOperator(ProcessStepOperator):
    """Runs a step in a child process."""

    def make_process(self, settings: LauncherSettings) -> StepProcess:
        return ChildProcess(self.log)
