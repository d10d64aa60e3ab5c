"""Rollouts and rollbacks as tests ask for them, what came of them, and processes that die on the way."""

import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from tests.steps.replica_server import MODEL, Replica
from training.adapters.ledger import Ledger
from training.adapters.registry import Registry
from training.contract.messages import RollbackInputs, RolloutInputs
from training.settings import Settings
from training.steps import rollback, rollout


def roll(settings: Settings, version: int | None, reason: str = "") -> tuple[int | None, int | None]:
    result = rollout.run(RolloutInputs(model=MODEL, version=version, reason=reason), settings)
    return result.version, result.previous_version


def back(
    settings: Settings, version: int | None = None, reason: str = "", run: str = "", requested_by: str = ""
) -> tuple[int | None, int | None]:
    inputs = RollbackInputs(model=MODEL, version=version, reason=reason, run=run, requested_by=requested_by)
    result = rollback.run(inputs, settings)
    return result.version, result.previous_version


def at_once(settings: Settings, folder: Path, replicas: Iterable[Replica]) -> Settings:
    """With these replicas, and a spec in `folder` without stages that waits one second for them."""
    text = yaml.safe_load((settings.models_dir / f"{MODEL}.yaml").read_text())
    (folder / "models").mkdir()
    (folder / "models" / f"{MODEL}.yaml").write_text(yaml.safe_dump({**text, "rollout": {"timeout_seconds": 1}}))
    urls = ",".join(replica.url for replica in replicas)
    return settings.model_copy(update={"serving_urls": urls, "models_dir": folder / "models"})


def after_rollouts(folder: Path, template: Path, *versions: int) -> Settings:
    """Settings of a stack in `folder`, with the registry `template`, where these versions have followed each other."""
    shutil.copy(template, folder / "mlflow.db")
    settings = Settings(home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db")
    replicas = [Replica(Registry(settings.tracking_uri), folder / "mlflow.db", name) for name in ("r0", "r1")]
    serving = at_once(settings, folder, replicas)
    for version in versions:
        roll(serving, version)
    for replica in replicas:
        replica.close()
    return settings


def take_over(made: Settings, settings: Settings) -> None:
    """Copy registry and ledger of `made` to the places of `settings`, whose registry may be open."""
    paths = (each.tracking_uri.removeprefix("sqlite:///") for each in (made, settings))
    with closing(sqlite3.connect(next(paths))) as source, closing(sqlite3.connect(next(paths))) as target:
        source.backup(target)
    shutil.copytree(made.ledger, settings.ledger)


def aliases(registry: Registry) -> dict[str, int]:
    return dict(registry.state(MODEL).aliases)


def ledger(settings: Settings) -> list[tuple[str, str, int]]:
    entries = Ledger(settings.ledger).entries(MODEL)
    return [(entry.kind, entry.body["phase"], entry.body["version"]) for entry in entries]


class Killed(BaseException):
    """The process is gone: nothing after it runs, no handler of errors either."""


def killing(call: Callable[..., Any], survive: int) -> Callable[..., Any]:
    """`call` that dies right after its `survive`-th use has taken effect."""
    used = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal used
        result = call(*args, **kwargs)
        used += 1
        if used == survive:
            raise Killed
        return result

    return wrapped
