"""The launcher `forkserver`: the step server (training/forkserver.py) forks each step with its libraries loaded."""

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL
from threading import Thread
from typing import Any

from airflow.sdk.exceptions import AirflowException

from perennial_airflow.launchers import LAUNCHERS
from perennial_airflow.step_output import copy_output
from perennial_airflow.step_process import TOO_LONG, ProcessStepOperator, StepProcess
from training.contract.processes import LOCAL_GRACE_SECONDS
from training.settings import LauncherSettings

#: A step server that has just started answers only when its libraries are loaded.
CONNECT_SECONDS = 60.0


class ForkServerProcess(StepProcess):
    """A process that the step server listening at `path` forks. The server ends it when the connection closes, so it
    also ends when this task dies.
    """

    def __init__(self, log: Any, path: Path) -> None:
        self._log = log
        self._path = path
        self._connection: socket.socket | None = None
        self._answer = b""

    def launch(self, argv: Sequence[str], env: Mapping[str, str], timeout: float) -> int:
        """See StepProcess. The step gets the `CT_*` variables of `env`; all others are the server's.

        Raises AirflowException when no step server answers.
        """
        settings = {name: value for name, value in env.items() if name.startswith("CT_")}
        request = json.dumps({"argv": list(argv), "env": settings, "grace": LOCAL_GRACE_SECONDS}).encode() + b"\n"
        read, write = os.pipe()
        with self._connect() as self._connection:
            sent = socket.send_fds(self._connection, [request], [write])
            os.close(write)
            self._connection.sendall(request[sent:])
            # The thread closes the output. Closing it here would wait for any process that outlived the step and still
            # has the output open.
            output = os.fdopen(read, errors="replace")
            reader = Thread(target=copy_output, args=(output, self._log), daemon=True)
            reader.start()
            try:
                self._wait(timeout)
            except TimeoutError:
                raise TimeoutError(TOO_LONG.format(timeout)) from None
            finally:
                self.stop()
                reader.join(LOCAL_GRACE_SECONDS)
            # No answer: somebody killed the server's process that watched the step, and the step with it.
            return int(json.loads(self._answer)["exit_code"]) if self._answer else -SIGKILL

    def stop(self) -> None:
        if self._connection is None:
            return
        # OSError: the connection is closed already.
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            self._wait(2 * LOCAL_GRACE_SECONDS)

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self._path))
                return connection
            except OSError as error:
                connection.close()
                if time.monotonic() > deadline:
                    problem = f"No step server answers at {self._path} after {CONNECT_SECONDS:.0f} s: {error}"
                    hint = "Start it: python -m training.forkserver; or set CT_LAUNCHER=subprocess."
                    raise AirflowException(f"{problem}\n  → {hint}") from None
                time.sleep(0.5)

    def _wait(self, seconds: float) -> None:
        """Wait until the server has answered or closed the connection. Raises TimeoutError.

        `stop` calls this while `launch` may be in it, too.
        """
        assert self._connection is not None
        deadline = time.monotonic() + seconds
        while not self._answer.endswith(b"\n"):
            self._connection.settimeout(max(0.01, deadline - time.monotonic()))
            got = self._connection.recv(4096)
            if not got:
                return
            self._answer += got


@LAUNCHERS.register("forkserver")
class ForkServerStepOperator(ProcessStepOperator):
    """Runs a step in a process that the step server forks."""

    def make_process(self, settings: LauncherSettings) -> StepProcess:
        return ForkServerProcess(self.log, settings.step_server)
