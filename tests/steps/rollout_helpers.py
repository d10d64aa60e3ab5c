"""Rollouts and rollbacks as tests ask for them, what came of them, and processes that die on the way."""

from collections.abc import Callable
from typing import Any

from tests.steps.replica_server import MODEL
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


def aliases(registry: Registry) -> dict[str, int]:
    found = {alias: registry.by_alias(MODEL, alias) for alias in ("champion", "previous", "challenger")}
    return {alias: version.version for alias, version in found.items() if version}


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
