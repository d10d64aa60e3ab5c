"""Feast stores: a private registry for each process, and the published one.

What a process computes must depend on its own code and inputs alone, so it applies its definitions to a registry file
of its own. The registry of settings.feature_registry is a published copy, for the `feast` command and its UI.
"""

import contextlib
import fcntl
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from training import storage
from training.adapters.features.definitions import Definitions
from training.contract.errors import ConfigError, TransientError
from training.settings import StateSettings

if TYPE_CHECKING:
    from feast import FeatureStore
    from feast.repo_config import RepoConfig


@contextlib.contextmanager
def private_store(settings: StateSettings, definitions: Definitions, *, online: bool) -> Iterator["FeatureStore"]:
    """A store over `definitions` whose registry lasts as long as the context; with the online store of `settings`."""
    with tempfile.TemporaryDirectory(prefix="perennial-feast-") as folder:
        store = _store(settings, f"{folder}/registry.db", online_store(settings) if online else None)
        store.apply(definitions.objects)
        yield store


def publish(settings: StateSettings, definitions: Definitions, model: str, digest: str) -> bool:
    """Apply `definitions` to the published registry unless it has them. Call it under `registry_lock`.

    `digest` stands for everything that they depend on. Returns whether anything was applied.
    """
    registry = Path(settings.feature_registry)
    applied = registry.with_name(f"{model}.applied")
    if registry.exists() and applied.exists() and applied.read_text() == digest:
        return False
    _store(settings, str(registry), online_store(settings)).apply(definitions.objects)
    storage.write(str(applied), digest.encode())
    return True


def published(settings: StateSettings, model: str) -> bool:
    """Whether definitions of `model` are in the published registry."""
    return Path(settings.feature_registry).with_name(f"{model}.applied").exists()


@contextlib.contextmanager
def answering(settings: StateSettings) -> Iterator[None]:
    """Turns failures of the online store into the contract's errors.

    TransientError when it does not answer, its name has no address now, or SQLite is locked; ConfigError when it
    refuses our credentials or the file is no SQLite database.
    """
    address = settings.online.rpartition("@")[2].rpartition("://")[2]  # without the password
    where = f"The online store at {address}"
    try:
        yield
    except _refusals() as error:
        raise ConfigError(f"{where} refused us: {error}", hint="Correct CT_ONLINE_STORE.") from error
    except _failures() as error:
        hint = "Is it up, and may this process write to its folder? Retry."
        raise TransientError(f"{where} did not answer: {error}", hint) from error
    except sqlite3.DatabaseError as error:
        raise ConfigError(f"{where} is no SQLite database: {error}", hint="Correct CT_ONLINE_STORE.") from error


def _failures() -> tuple[type[Exception], ...]:
    found = (sqlite3.OperationalError, ConnectionError, TimeoutError, socket.gaierror)
    try:
        from redis.exceptions import RedisError
    except ImportError:
        return found
    return (*found, RedisError)


def _refusals() -> tuple[type[Exception], ...]:
    try:
        from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError
    except ImportError:
        return ()
    return (AuthenticationError, AuthorizationError, NoPermissionError)


@contextlib.contextmanager
def registry_lock(settings: StateSettings) -> Iterator[None]:
    """One process at a time: Feast rewrites its registry file without a lock. A killed holder lets go."""
    path = Path(settings.feature_registry).with_name("registry.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def online_store(settings: StateSettings) -> dict[str, Any]:
    """Feast's settings of the online store: an SQLite file, made if need be, or Redis."""
    if settings.online.startswith(("redis://", "rediss://")):
        return _redis(settings.online)
    if "://" in settings.online:
        raise ConfigError(f"CT_ONLINE_STORE is {settings.online!r}", hint="A file's path or redis://host:port/db.")
    Path(settings.online).parent.mkdir(parents=True, exist_ok=True)
    # In this mode, which stays with the file, lookups go on while new rows are written.
    with answering(settings), contextlib.closing(sqlite3.connect(settings.online, timeout=30)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    return {"type": "sqlite", "path": settings.online}


def _redis(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    options = [f"{parts.hostname}:{parts.port or 6379}", f"db={parts.path.strip('/') or 0}"]
    options += [f"username={parts.username}"] if parts.username else []
    options += [f"password={parts.password}"] if parts.password else []
    options += ["ssl=true"] if parts.scheme == "rediss" else []
    # Feast would skip a row whose timestamp is online already, also when a late partition has changed its values.
    # The order of writes is kept by the record of versions (see Features.materialize).
    return {"type": "redis", "connection_string": ",".join(options), "skip_dedup": True}


def online_config(settings: StateSettings) -> "RepoConfig":
    """What Feast's online stores need to know. The registry in it is never opened."""
    return _config(settings, "none", online_store(settings))


def _store(settings: StateSettings, registry: str, online: dict[str, Any] | None) -> "FeatureStore":
    from feast import FeatureStore

    return FeatureStore(config=_config(settings, registry, online))


def _config(settings: StateSettings, registry: str, online: dict[str, Any] | None) -> "RepoConfig":
    from feast.repo_config import RepoConfig

    config = yaml.safe_load((settings.feature_repo / "feature_store.yaml").read_text())
    # Never refreshed: the definitions of a process do not change.
    config |= {"registry": {"registry_type": "file", "path": registry, "cache_ttl_seconds": 0}, "online_store": online}
    if online:
        # Lookups and writes online need no offline store: where only they are done, its library is not installed.
        config["offline_store"] = {"type": "dask"}
    return RepoConfig(**config, repo_path=settings.feature_repo)
