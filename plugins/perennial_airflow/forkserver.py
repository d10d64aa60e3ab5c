"""The launcher for the step server (training/forkserver.py): steps that begin with their libraries loaded."""

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

from perennial_airflow.launchers import GRACE_SECONDS, TOO_LONG, copy_output

#: A step server that has just been started, or started again, answers when its libraries are loaded.
CONNECT_SECONDS = 60.0


class ForkServerLauncher:
    """Has the step server that listens at `path` fork the step. Hanging up ends it, and so does this task's end."""

    def __init__(self, log: Any, path: Path) -> None:
        self._log = log
        self._path = path
        self._connection: socket.socket | None = None
        self._answer = b""

    def launch(self, argv: Sequence[str], env: Mapping[str, str], timeout: float) -> int:
        """As Launcher says; of `env` the step gets the `CT_*`, the rest is the server's.

        Raises AirflowException when no step server answers.
        """
        settings = {name: value for name, value in env.items() if name.startswith("CT_")}
        request = json.dumps({"argv": list(argv), "env": settings, "grace": GRACE_SECONDS}).encode() + b"\n"
        read, write = os.pipe()
        with self._connect() as self._connection:
            sent = socket.send_fds(self._connection, [request], [write])
            os.close(write)
            self._connection.sendall(request[sent:])
            # The thread closes it: closing here would wait for whatever outlived the step with its output open.
            output = os.fdopen(read, errors="replace")
            reader = Thread(target=copy_output, args=(output, self._log), daemon=True)
            reader.start()
            try:
                self._wait(timeout)
            except TimeoutError:
                raise TimeoutError(TOO_LONG.format(timeout)) from None
            finally:
                self.stop()
                reader.join(GRACE_SECONDS)
            # Without an answer somebody killed the process that keeps the step, and the step with it.
            return int(json.loads(self._answer)["exit_code"]) if self._answer else -SIGKILL

    def stop(self) -> None:
        if self._connection is None:
            return
        # Without a connection any more there is nothing left to hang up.
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            self._wait(2 * GRACE_SECONDS)

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
        """Until the server has answered or is gone. Raises TimeoutError. May be called again, also while it runs."""
        assert self._connection is not None
        deadline = time.monotonic() + seconds
        while not self._answer.endswith(b"\n"):
            self._connection.settimeout(max(0.01, deadline - time.monotonic()))
            got = self._connection.recv(4096)
            if not got:
                return
            self._answer += got
