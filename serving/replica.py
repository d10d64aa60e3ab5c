"""The identity of this replica: a name that survives restarts, and a lock, so that only one process uses it."""

import fcntl
import os
import secrets
import socket
import time
from pathlib import Path

from training import atomic
from training.contract.errors import ConfigError

LOCK_SECONDS = 15.0


def replica_name(state: Path) -> str:
    """The replica's name, made at the first start and kept in `state`. Exactly-once logging depends on it."""
    path = state / "replica"
    if not path.is_file():
        atomic.write(path, f"{socket.gethostname()}-{secrets.token_hex(4)}".encode())
    return path.read_text().strip()


def hold(state: Path, patience: float = LOCK_SECONDS) -> int:
    """Lock `state` until this process ends. Waits `patience` seconds for a process that is ending.

    Returns the file descriptor of the lock. Raises ConfigError when another process keeps the lock.
    """
    state.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(state / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                hint = "Set CT_SERVING_STATE to another folder: each replica needs its own."
                raise ConfigError(f"Another prediction service uses {state}", hint) from None
            time.sleep(0.1)
