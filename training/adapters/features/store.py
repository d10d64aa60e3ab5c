"""Feast's registries: a private one for each process, and the published one.

What a process computes must depend on its own code and inputs alone. So it applies its definitions to a registry file
of its own. The registry of settings.feature_registry is a published copy, for the `feast` command and its UI.
"""

import contextlib
import fcntl
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import storage
from training.adapters.features.feast_config import repo_config
from training.adapters.features.online_stores import online_store
from training.compat.feast import registrable
from training.settings import StateSettings

if TYPE_CHECKING:
    from feast import FeatureStore

log = logging.getLogger("perennial")


@contextlib.contextmanager
def private_store(settings: StateSettings, objects: list[Any], *, online: bool) -> Iterator["FeatureStore"]:
    """A feast.FeatureStore of the Feast `objects`. Its registry is deleted when the context ends.

    `online`: whether it has the online store of `settings`.
    """
    with tempfile.TemporaryDirectory(prefix="perennial-feast-") as folder:
        online_settings = online_store(settings).feast_settings() if online else None
        store = _feature_store(settings, f"{folder}/registry.db", online_settings)
        store.apply(registrable(objects))
        yield store


def publish(settings: StateSettings, objects: list[Any], source: str, digest: str) -> bool:
    """Apply the Feast `objects` of `source` to the published registry unless they were applied before.

    Call it under `registry_lock`. `digest` identifies everything that the objects depend on.
    Returns whether they were applied now.
    """
    registry = Path(settings.feature_registry)
    applied = registry.with_name(f"{source}.applied")
    if registry.exists() and applied.exists() and applied.read_text() == digest:
        return False
    with changing_published(settings) as store:
        store.apply(registrable(objects))
    storage.write(str(applied), digest.encode())
    return True


@contextlib.contextmanager
def changing_published(settings: StateSettings) -> Iterator["FeatureStore"]:
    """A feast.FeatureStore of the published registry to change, under `registry_lock`; empty when there is none yet.

    It has a copy of the registry, which takes the place of the published one when the block ends. Feast would write in
    place, and take no notice of a full disk: a part of a registry cannot be read again. One that cannot be read is
    replaced by an empty one, and the definitions of every source are applied again.
    """
    registry = Path(settings.feature_registry)
    with tempfile.TemporaryDirectory(prefix="perennial-feast-") as folder:
        copy = Path(folder, "registry.db")
        if (content := storage.read(str(registry))) is not None:
            if _readable(content):
                copy.write_bytes(content)
            else:
                log.warning("%s is damaged; it is rewritten by the next run of each source", registry)
                for applied in registry.parent.glob("*.applied"):
                    applied.unlink()
        store = _feature_store(settings, str(copy), online_store(settings).feast_settings())
        yield store
        storage.write(str(registry), store.registry.proto().SerializeToString())


def _readable(registry: bytes) -> bool:
    from feast.protos.feast.core.Registry_pb2 import Registry
    from google.protobuf.message import DecodeError

    try:
        Registry.FromString(registry)
    except DecodeError:
        return False
    return True


def published_store(settings: StateSettings) -> "FeatureStore":
    """A feast.FeatureStore of the published registry, to read it."""
    return _feature_store(settings, settings.feature_registry, online_store(settings).feast_settings())


def published(settings: StateSettings, source: str) -> bool:
    """Whether definitions of `source` are in the published registry."""
    return Path(settings.feature_registry).with_name(f"{source}.applied").exists()


@contextlib.contextmanager
def registry_lock(settings: StateSettings) -> Iterator[None]:
    """Hold the lock of the published registry, because Feast rewrites the file without one.

    The operating system releases the lock when the process that holds it is killed.
    """
    path = Path(settings.feature_registry).with_name("registry.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _feature_store(settings: StateSettings, registry: str, online: dict[str, Any] | None) -> "FeatureStore":
    from feast import FeatureStore

    return FeatureStore(config=repo_config(settings, registry, online))
