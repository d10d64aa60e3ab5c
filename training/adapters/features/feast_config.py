"""Feast's configuration: feature_store.yaml with the registry and the online store of our settings."""

from typing import TYPE_CHECKING, Any

import yaml

from training.compat.feast import NO_OFFLINE_STORE
from training.settings import StateSettings

if TYPE_CHECKING:
    from feast.repo_config import RepoConfig


def repo_config(settings: StateSettings, registry: str, online: dict[str, Any] | None) -> "RepoConfig":
    """The configuration with the registry file `registry` and the section `online_store`; None: no online store."""
    from feast.repo_config import RepoConfig

    config = yaml.safe_load((settings.feature_repo / "feature_store.yaml").read_text())
    # No refresh, because the definitions of a process do not change.
    config |= {"registry": {"registry_type": "file", "path": registry, "cache_ttl_seconds": 0}, "online_store": online}
    if online:
        # Online lookups and writes need no offline store, whose libraries take longer to import than Feast itself.
        config["offline_store"] = {"type": NO_OFFLINE_STORE}
    return RepoConfig(**config, repo_path=settings.feature_repo)
