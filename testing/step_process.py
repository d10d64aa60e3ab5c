"""Processes that run a step with its libraries loaded already.

`python -m training train` imports for eight seconds of CPU before it begins. These processes are forked from a server
that has imported the same libraries once, as training/forkserver.py does in production. Our own modules are imported by
each process itself.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    [
        *("pydantic_settings", "obstore.store", "pandas", "pyarrow.dataset", "deltalake", "onnxruntime"),
        *("duckdb", "ibis.backends.duckdb", "great_expectations.checkpoint"),
        *("sklearn.ensemble", "skl2onnx", "matplotlib.figure", "mlflow.onnx", "mlflow.store.tracking.sqlalchemy_store"),
        # torch itself, and what its optimizers import when they are made.
        "torch._dynamo",
    ]
)


class StepProcess:
    """A running `python <argv>`, where `argv` starts with `-m` and a module. Used as `subprocess.Popen` is."""

    def __init__(self, argv: list[str], environment: dict[str, str], log: Path) -> None:
        self._process = FORKSERVER.Process(target=_run, args=(argv, environment, str(log)), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def poll(self) -> int | None:
        """The exit code; minus the number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """The exit code. Fails when the process runs for longer than `timeout` seconds."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"the step still runs after {timeout} s"
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _run(argv: list[str], environment: dict[str, str], log: str) -> None:
    with open(log, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    switch, module, *sys.argv[1:] = argv
    assert switch == "-m"
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def killed_after(target: Callable[..., Any], arguments: tuple[Any, ...], seconds: float | None) -> float:
    """Call `target` in a process that gets SIGKILL after `seconds`; None: it must end by itself, without an error.

    Returns how long it ran, in seconds.
    """
    process = FORKSERVER.Process(target=target, args=arguments)
    started = time.monotonic()
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    if seconds is None:
        assert process.exitcode == 0
    return time.monotonic() - started
