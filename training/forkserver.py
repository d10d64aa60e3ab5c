"""The step server: `python -m training.forkserver --socket <path>`. It loads the steps' libraries and our own code once
and forks a process for each step, so that a step does not spend seconds on imports.

A step is still its own process, which runs `python -m training …` with the same arguments, exit codes and report. When
a file of our code has changed, the server unloads all of it (training/own_code.py) and each step loads it itself, so an
edited step takes effect in the next run.

A client (plugins/perennial_airflow/launchers/forkserver.py) connects to the Unix socket and sends one line of JSON,
`{"argv", "env", "grace"}`, together with a file descriptor for the step's output. `argv` are Python's arguments, `env`
the `CT_*` variables of the step; it has all other variables from this server. The answer is one line, `{"exit_code"}`.
When a client closes the connection first, its step gets SIGTERM, and SIGKILL after `grace` seconds. A client can run
any code as this user, so the socket's mode is 0600. Linux only: on macOS a process that has loaded its frameworks must
not be forked.
"""

import argparse
import contextlib
import gc
import json
import logging
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from training.contract.processes import end_with_parent
from training.own_code import OwnCode

#: What steps import while they run and what takes a tenth of a second or more (`make bench-imports`). Beside these the
#: server imports our own modules, for themselves and for the libraries that they need. Feast and Great
#: Expectations are not here: `preload` imports them without the parts that nobody uses.
LIBRARIES = (
    "pydantic_settings",
    "obstore.store",
    "pandas",
    "pyarrow.dataset",
    "deltalake",
    "duckdb",
    "onnxruntime",
    "matplotlib.figure",
    "mlflow.onnx",
    "ibis.backends.duckdb",
)
#: These processes skip the cleanup of C libraries when they end. It would wait for threads, which a fork does not copy.
FORK = multiprocessing.get_context("fork")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Seconds that running steps have to end when this server stops.
PATIENCE_SECONDS = 20.0
#: Seconds until a signal is seen that came while no call of the kernel waited.
SIGNAL_SECONDS = 1.0
#: The first of the arguments of a step, `-m <module> …`.
MODULE_OPTION = "-m"


class Stop:
    """Whether this process has been asked to end.

    The signal raises SystemExit only where the process waits. Elsewhere it would leave a process that has just been
    forked behind, or Python would swallow it: in code that libraries run around a fork.
    """

    def __init__(self) -> None:
        self.asked = False
        self._waiting = False

    def ask(self, signum: int, frame: object) -> None:
        self.asked = True
        if self._waiting:
            raise SystemExit(0)

    def wait(self, on: list[Any]) -> None:
        """Wait until one of `on` (connections, sockets, sentinels) is ready.

        Raises SystemExit when the process is asked to end meanwhile, or has been.
        """
        self._waiting = True
        try:
            # With a limit: a signal that comes just before the system call does not end it.
            while not self.asked and not wait(on, SIGNAL_SECONDS):
                pass
            if self.asked:
                raise SystemExit(0)
        finally:
            self._waiting = False


STOP = Stop()


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m training.forkserver", description=__doc__.splitlines()[0])
    parser.add_argument("--socket", type=Path, required=True, help="path of the Unix socket to listen on")
    path: Path = parser.parse_args(argv).socket
    _check_not_running(path)
    print("Loading the steps' libraries", flush=True)
    own = preload()
    with _listening(path) as listener:
        print(f"Listening at {path}", flush=True)
        serve(listener, own)


def preload() -> OwnCode:
    """Import the libraries and our own modules, and keep the garbage collector off the shared memory pages."""
    # OpenMP reads this when it is loaded. training/runner.py has the reason.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from training.compat.feast import quick_import
    from training.compat.great_expectations import light_import

    # First: only what nothing has imported yet can be left out.
    with quick_import(), light_import():
        import_module("great_expectations")
    for name in LIBRARIES:
        import_module(name)
    # This module has been loaded as __main__.
    own = OwnCode("training", programs=frozenset({"training.forkserver"}))
    own.load()
    if (torch := sys.modules.get("torch")) is not None:
        # torch imports much of itself for the first optimizer of a process, for seconds.
        torch.optim.AdamW([torch.zeros(1)])
    # A library may have set up logging; then the setup of a step would have no effect.
    logging.root.handlers.clear()
    gc.collect()
    gc.freeze()
    return own


def _check_not_running(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        if other.connect_ex(str(path)) == 0:
            raise SystemExit(f"Another step server listens on {path}; stop it, or give this one another --socket.")


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(64)
        yield listener


def serve(listener: socket.socket, own: OwnCode) -> None:
    """Fork a process that serves each client, until SIGTERM. Then have all of them end their steps, and wait."""
    for each in STOP_SIGNALS:
        signal.signal(each, STOP.ask)
    watchers: list[BaseProcess] = []
    try:
        while True:
            STOP.wait([listener])
            connection, _ = listener.accept()
            own.unload_if_changed()
            watchers = [watcher for watcher in watchers if watcher.is_alive()]
            watchers.append(_fork(serve_client, connection, listener))
            connection.close()
    except SystemExit:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for watcher in watchers:
            watcher.terminate()
        deadline = time.monotonic() + PATIENCE_SECONDS
        for watcher in watchers:
            watcher.join(max(0.0, deadline - time.monotonic()))
        raise


def _fork(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process that runs `target`. The stop signals wait until it can handle them: Python forgets those that come
    before it has set up the new process."""
    process = FORK.Process(target=_begin, args=(target, *arguments))
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    return process


def _begin(target: Callable[..., None], *arguments: Any) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    target(*arguments)


def serve_client(connection: socket.socket, listener: socket.socket) -> None:
    """Serve one client: fork the step, wait for its end, send the exit code."""
    listener.close()
    # On Ctrl-C, which goes to the whole process group, the server sends SIGTERM here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request, output = _request(connection)
    step = _fork(run, request["argv"], request["env"], output, connection)
    os.close(output)
    with contextlib.suppress(SystemExit):  # the server stops
        STOP.wait([step.sentinel, connection])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if step.is_alive():
        _signal_group(step, signal.SIGTERM)
        step.join(request["grace"])
    # Kill the processes that the step left.
    _signal_group(step, signal.SIGKILL)
    step.join()
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps({"exit_code": step.exitcode}).encode() + b"\n")


def run(argv: list[str], env: dict[str, str], output: int, connection: socket.socket) -> None:
    """In the step's process: run what `python <argv>` would, with the client's descriptor for its output."""
    connection.close()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if STOP.asked:  # in the fork of this process
        signal.raise_signal(signal.SIGTERM)
    os.setsid()
    end_with_parent()
    for place in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(output, place)
    os.close(output)
    for name in [name for name in os.environ if name.startswith("CT_")]:
        del os.environ[name]
    os.environ.update(env)
    if argv[:1] != [MODULE_OPTION]:
        raise SystemExit(f"The step server runs `{MODULE_OPTION} <module> …` only, not {argv}")
    sys.argv = argv[1:]
    runpy.run_module(argv[1], run_name="__main__", alter_sys=True)


def _request(connection: socket.socket) -> tuple[dict[str, Any], int]:
    """The client's request, and the descriptor for the output. Raises SystemExit when the client sent none."""
    STOP.wait([connection])
    message, descriptors, _, _ = socket.recv_fds(connection, 65_536, 1)
    while message and not message.endswith(b"\n"):
        STOP.wait([connection])
        more = connection.recv(65_536)
        message = message + more if more else b""
    if not message or not descriptors:
        raise SystemExit(0)  # a health check, or a client that closed the connection
    return json.loads(message), descriptors[0]


def _signal_group(step: BaseProcess, number: signal.Signals) -> None:
    assert step.pid is not None
    with contextlib.suppress(ProcessLookupError):
        try:
            os.killpg(step.pid, number)
        except ProcessLookupError:
            os.kill(step.pid, number)  # it has not called setsid yet


if __name__ == "__main__":
    main()
