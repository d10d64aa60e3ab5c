"""This replica: a name that survives restarts, a lock, so that only one process uses it, and what its models share."""

import fcntl
import os
import secrets
import socket
import threading
import time
from pathlib import Path

from serving.limits import Limits
from serving.load_guard import LoadGuard
from serving.lookup import StoreReader
from serving.metrics import Metrics
from serving.recorder import RecordTimer
from serving.registry_poll import RegistryPoll
from serving.spool_folders import SpoolFolders
from training import atomic
from training.adapters.registry import Registry
from training.contract.errors import ConfigError
from training.settings import ServingSettings

LOCK_SECONDS = 15.0


class Replica:
    """What all models of the process share. Locks the replica's folder until the process ends.

    Belongs to the event loop in which it is opened.
    """

    def __init__(self, settings: ServingSettings, metrics: Metrics | None = None) -> None:
        self.settings = settings
        self.folder = Path(settings.serving)
        self._lock = hold(self.folder)
        self.name = replica_name(self.folder)
        self.metrics = metrics or Metrics()
        self.limits = Limits(settings.serving_maximum_in_flight, settings.serving_maximum_lag_seconds)
        self.store = StoreReader(settings)
        self.guard = LoadGuard(settings)
        self.record_timer = RecordTimer()
        ship_seconds = settings.serving_ship_seconds
        self.spools = SpoolFolders(self.folder, settings.lake, self.name, self.metrics, ship_seconds)
        #: Set when a model is being loaded into memory. ModelUnloader waits for it.
        self.models_loaded = threading.Event()
        self.registry = RegistryPoll(Registry(settings.tracking_uri), settings.serving_poll_seconds)

    def open(self) -> None:
        self.limits.open()
        self.store.open()
        self.registry.start()

    def close(self) -> None:
        self.limits.close()
        self.store.close()
        self.registry.stop()
        self.guard.close()


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
