"""Waiting for what another thread or program does."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def eventually(check: Callable[[], Any], seconds: float = 300.0) -> Any:
    """The first true answer of `check`. Raises AssertionError when there is none within `seconds`.

    The default is for what a test waits for and does not measure: only something that hangs takes so long.
    """
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"it did not come about within {seconds:g} s"
        time.sleep(0.05)
    return found


def listens(address: Path | int) -> bool:
    """Whether a program listens on the Unix socket, or on the port of 127.0.0.1."""
    if isinstance(address, Path):
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(address)) == 0
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", address)) == 0
