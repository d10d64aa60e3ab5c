"""Who this replica is: a name that outlives its processes, and a lock so that one process at a time has it."""

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
    """The replica's name, made at the first start and kept in `state`. The prediction log's exactness hangs on it."""
    path = state / "replica"
    if not path.is_file():
        atomic.write(path, f"{socket.gethostname()}-{secrets.token_hex(4)}".encode())
    return path.read_text().strip()


def hold(state: Path, patience: float = LOCK_SECONDS) -> int:
    """Lock `state` until this process ends, waiting for one that is just ending. Returns the lock's descriptor.

    Raises ConfigError when another process keeps it.
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
                hint = "Give every replica a folder of its own: CT_SERVING_STATE."
                raise ConfigError(f"Another prediction service uses {state}", hint) from None
            time.sleep(0.1)
