"""A step server: `python -m training.forkserver --socket <path>`. It has the steps' libraries loaded and forks for each
step, so that a step's process begins at once instead of importing for seconds.

A step still is a process of its own that runs `python -m training …`: same arguments, same exit codes, same report.
Only libraries are loaded beforehand, none of our own code: an edited step takes effect with the next run.

A client (plugins/perennial_airflow/forkserver.py) connects to the Unix socket and sends one line of JSON,
`{"argv", "env", "grace"}`, together with a file descriptor for the step's output. `argv` is what follows `python`,
`env` the `CT_*` variables; all others are this server's. The answer is one line, `{"exit_code"}`. A client that hangs
up first has its step ended: SIGTERM, and SIGKILL after `grace` seconds. Whoever may connect may run code as this user:
the socket's mode is 0600. Linux only: on macOS a process that has loaded its frameworks must not be forked.
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
from collections.abc import Iterator
from importlib import import_module
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from training.contract.processes import end_with_parent

#: What steps import while they run and what takes a tenth of a second or more (`make bench-imports`). Beside these the
#: server imports the modules of all estimators and drift tests, for the libraries that they need.
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
    "great_expectations.checkpoint",
    "ibis.backends.duckdb",
)
#: Processes of this kind end as Python's own do, but for the C libraries' clean-up, which would wait for threads that a
#: fork leaves behind.
FORK = multiprocessing.get_context("fork")
#: When this server is told to stop, so long may running steps take to end.
PATIENCE_SECONDS = 20.0
#: As the step's command line: `python -m <module> …`.
MODULE_FLAG = "-m"


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m training.forkserver", description=__doc__.splitlines()[0])
    parser.add_argument("--socket", type=Path, required=True, help="path of the Unix socket to listen on")
    path: Path = parser.parse_args(argv).socket
    _refuse_a_second(path)
    print("Loading the steps' libraries", flush=True)
    preload()
    with _listening(path) as listener:
        print(f"Steps are taken at {path}", flush=True)
        serve(listener)


def preload() -> None:
    """Import what steps need, leave nothing of our own loaded, and keep the garbage collector off the shared pages."""
    # Read when OpenMP is loaded; training/runner.py says why.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from training.compat.feast import quick_import
    from training.contract.registries import DRIFT_TESTS, ESTIMATORS

    with quick_import():
        pass
    members = [f"{kind.package}.{name}" for kind in (ESTIMATORS, DRIFT_TESTS) for name in kind.modules]
    for name in (*LIBRARIES, *members):
        import_module(name)
    for name in [name for name in sys.modules if name.startswith("training.")]:
        del sys.modules[name]
    # A library that sets up logging would keep the steps' own setup from taking effect.
    logging.root.handlers.clear()
    gc.collect()
    gc.freeze()


def _refuse_a_second(path: Path) -> None:
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


def serve(listener: socket.socket) -> None:
    """Fork a keeper for every client, until SIGTERM; then have every keeper end its step, and wait for them."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    keepers: list[BaseProcess] = []
    try:
        while True:
            connection, _ = listener.accept()
            keepers = [keeper for keeper in keepers if keeper.is_alive()]
            keepers.append(FORK.Process(target=keep, args=(connection, listener)))
            keepers[-1].start()
            connection.close()
    except SystemExit:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for keeper in keepers:
            keeper.terminate()
        deadline = time.monotonic() + PATIENCE_SECONDS
        for keeper in keepers:
            keeper.join(max(0.0, deadline - time.monotonic()))
        raise


def keep(connection: socket.socket, listener: socket.socket) -> None:
    """One client's process: fork the step, see it to its end, tell the client."""
    listener.close()
    # A step's own end is its keeper's business: a Ctrl-C for the server's group comes here as SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request, output = _request(connection)
    step = FORK.Process(target=run, args=(request["argv"], request["env"], output, connection))
    step.start()
    os.close(output)
    with contextlib.suppress(SystemExit):  # the server is told to stop
        wait([step.sentinel, connection])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if step.is_alive():
        _signal_group(step, signal.SIGTERM)
        step.join(request["grace"])
    # Whatever it left of its group ends with it.
    _signal_group(step, signal.SIGKILL)
    step.join()
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps({"exit_code": step.exitcode}).encode() + b"\n")


def run(argv: list[str], env: dict[str, str], output: int, connection: socket.socket) -> None:
    """In the step's process: become `python <argv>`, with the client's descriptor for its output."""
    connection.close()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    end_with_parent()
    for place in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(output, place)
    os.close(output)
    for name in [name for name in os.environ if name.startswith("CT_")]:
        del os.environ[name]
    os.environ.update(env)
    if argv[:1] != [MODULE_FLAG]:
        raise SystemExit(f"A step is asked for as `{MODULE_FLAG} <module> …`, this was {argv}")
    sys.argv = argv[1:]
    runpy.run_module(argv[1], run_name="__main__", alter_sys=True)


def _stop(signum: int, frame: object) -> None:
    raise SystemExit(0)


def _request(connection: socket.socket) -> tuple[dict[str, Any], int]:
    """What the client asks for, and the descriptor for the output. SystemExit when that is not to be had."""
    message, descriptors, _, _ = socket.recv_fds(connection, 65_536, 1)
    while message and not message.endswith(b"\n"):
        more = connection.recv(65_536)
        message = message + more if more else b""
    if not message or not descriptors:
        raise SystemExit(0)  # a health check, or a client that went away
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
