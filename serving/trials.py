"""Tries out versions in processes of their own, which may use only so much memory and time.

A process is started for the first trial, and used again for those that follow. It ends when it has had nothing to do
for IDLE_SECONDS, or with a version that it could not try out.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from serving.trial_process import LONGEST_MESSAGE
from training.contract.errors import DataContractError, TransientError
from training.settings import ServingSettings

#: At most so many trials of all models are under way at a time.
PROCESSES = 2
#: How long a process may take to start on a busy machine.
START_SECONDS = 60.0
IDLE_SECONDS = 10.0
#: What a process gets of the environment. It must not see the service's credentials.
_VARIABLES = ("PATH", "LANG", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "HOME")
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


class TrialEnded(DataContractError):
    """The process that tried out the version was killed, or took too long."""


class TrialProcess:
    """A process of serving/trial_process.py."""

    def __init__(self, settings: ServingSettings) -> None:
        """Raises TransientError when the process does not start."""
        self._settings = settings
        #: When it got nothing more to do (time.monotonic).
        self.idle_since = 0.0
        self._connection, theirs = Pipe()
        environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        environment |= _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", "serving.trial_process", str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            self._connection.close()
            raise _not_started(str(error)) from error
        finally:
            theirs.close()
        if _answer(self._connection, START_SECONDS) is None:
            self.close()
            raise _not_started(f"it said nothing for {START_SECONDS:g} s, or ended")

    def try_out(self, folder: Path) -> None:
        """Load the artifact in `folder` and score its golden rows.

        Raises DataContractError when that fails, TrialEnded when the process ended or took too long.
        """
        settings = self._settings
        memory, seconds = settings.serving_load_mib, settings.serving_load_seconds
        request = {"folder": str(folder), "memory_mib": memory, "maximum_mib": settings.artifact_maximum_mib}
        with suppress(OSError):  # It has ended: no answer comes.
            self._connection.send_bytes(json.dumps(request).encode())
        began = time.monotonic()
        answer = _answer(self._connection, seconds)
        if answer is None:
            late = time.monotonic() - began >= seconds
            why = f"took longer than {seconds:g} s" if late else f"ended ({self._how_it_ended()})"
            self.close()
            hint = "Train another version. If it needs more, set CT_SERVING_LOAD_MIB or CT_SERVING_LOAD_SECONDS higher."
            raise TrialEnded(f"The process that tried it out, with {memory} MiB, {why}", hint)
        if problem := answer.get("problem"):
            raise DataContractError(str(problem), hint=str(answer.get("hint", "")))

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "it closed its socket"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


class Trials:
    """The processes of a service."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._places = threading.Semaphore(PROCESSES)
        self._lock = threading.Lock()
        #: The processes without work. The one that was used last is the last.
        self._idle: list[TrialProcess] = []
        self._sweeper: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def process(self) -> Iterator[TrialProcess]:
        """A process that has started, for one trial. Waits while PROCESSES are busy. Raises as `TrialProcess`."""
        with self._places:
            with self._lock:
                found = self._idle.pop() if self._idle else None
            if found is None or found.ended:
                found = TrialProcess(self._settings)
            try:
                yield found
            finally:
                self._put_back(found)

    def close(self) -> None:
        """End the processes without work, and each other one after its trial."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()

    def _put_back(self, process: TrialProcess) -> None:
        if process.ended:
            return
        with self._lock:
            if not self._closed:
                process.idle_since = time.monotonic()
                self._idle.append(process)
                if self._sweeper is None:
                    self._sweeper = threading.Thread(target=self._sweep, name="trial-sweeper", daemon=True)
                    self._sweeper.start()
                return
        process.close()

    def _sweep(self) -> None:
        """End processes that have been idle for long, until there are none."""
        while True:
            time.sleep(1)
            with self._lock:
                limit = time.monotonic() - IDLE_SECONDS
                old = [process for process in self._idle if process.idle_since < limit]
                self._idle = [process for process in self._idle if process not in old]
                if not self._idle:
                    self._sweeper = None
            for process in old:
                process.close()
            if self._sweeper is not threading.current_thread():
                return


def _answer(connection: Connection, seconds: float) -> dict[str, object] | None:
    """The next answer; None when the process ended, answered nonsense or did not answer in `seconds`."""
    try:
        if not connection.poll(seconds):
            return None
        answer = json.loads(connection.recv_bytes(LONGEST_MESSAGE))
    except (EOFError, OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def _not_started(why: str) -> TransientError:
    problem = f"No process could be started to try out the version: {why}"
    return TransientError(problem, hint="See the log of the service, and whether its memory is enough.")
