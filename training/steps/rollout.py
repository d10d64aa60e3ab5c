"""Make a model version the champion and wait until every replica serves it; undo it when they do not.

The move is in the ledger before an alias changes, so a step that was killed finishes or undoes what it began.
"""

import logging
import time

from training.adapters.ledger import Ledger
from training.adapters.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from training.adapters.replicas import look_at, wait_until_served
from training.contract.errors import StepError, TransientError
from training.contract.messages import Replica, RolloutInputs, RolloutResult
from training.contract.model_spec import load_model_spec
from training.domain.rollout import ROLLBACK, ROLLOUT, Move, begin, last_move
from training.settings import Settings

log = logging.getLogger("perennial")


def run(inputs: RolloutInputs, settings: Settings) -> RolloutResult:
    """Raises InputError for an unknown version, StepError when a replica refuses it, TransientError when one lags."""
    started = time.monotonic()
    if inputs.version is None:
        log.info("Nothing was registered, so there is nothing to roll out")
        return RolloutResult(version=None, previous_version=None, replicas=[], seconds=0.0)
    model, spec = inputs.model, load_model_spec(inputs.model, settings.models_dir)
    registry, ledger = Registry(settings.tracking_uri), Ledger(settings.ledger)
    version = registry.get(model, inputs.version).version
    move = _begin(inputs.model, version, inputs.reason, registry, ledger)
    before = look_at(settings.replicas, model)
    if move is not None:
        _point(registry, model, move.forwards)
        log.info("Champion of %s: version %s → %d", model, move.champion or "none", version)
    try:
        looks = wait_until_served(settings.replicas, model, version, spec.rollout.timeout_seconds, before)
    except StepError as error:
        if move is not None:
            _undo(move, model, error, registry, ledger)
        raise
    if move is not None:
        _record(ledger, model, move.ended())
    _drop_challenger(registry, model, version)
    replicas = [Replica(url=x.url, replica=x.replica, version=version, since=x.since) for x in looks if x.since]
    previous = registry.by_alias(model, PREVIOUS)
    for each in looks:
        log.info("Replica %s serves version %d since %s", each.url, version, each.since)
    return RolloutResult(
        version=version,
        previous_version=previous.version if previous else None,
        replicas=replicas,
        seconds=round(time.monotonic() - started, 3),
    )


def _begin(model: str, version: int, reason: str, registry: Registry, ledger: Ledger) -> Move | None:
    """The move to make, written down; None when `version` is champion and no move is open."""
    champion, previous = (registry.by_alias(model, alias) for alias in (CHAMPION, PREVIOUS))
    last = last_move([e.body for e in ledger.entries(model) if e.kind in (ROLLOUT, ROLLBACK)])
    now = champion.version if champion else None
    move = begin(last, ROLLOUT, version, now, previous.version if previous else None, reason)
    if now == version and move != last:
        log.info("Version %d of %s is the champion already", version, model)
        return None
    return _record(ledger, model, move)


def _record(ledger: Ledger, model: str, move: Move) -> Move:
    entry = ledger.append(move.kind, model, move.model_dump(mode="json"), move.key)
    if entry.body["version"] != move.version:
        raise TransientError(f"Another {move.kind} of {model} is under way: {entry.body}", hint="Retry when it ended.")
    return move


def _point(registry: Registry, model: str, aliases: tuple[tuple[str, int | None], ...]) -> None:
    for alias, version in aliases:
        if version is None:
            registry.remove_alias(model, alias)
        else:
            registry.set_alias(model, alias, version)


def _undo(move: Move, model: str, error: StepError, registry: Registry, ledger: Ledger) -> None:
    champion = registry.by_alias(model, CHAMPION)
    if champion is not None and champion.version != move.version:
        log.warning("The champion was moved to version %d meanwhile; it stays", champion.version)
    else:
        _point(registry, model, move.backwards)
        log.error("Champion of %s: version %d → %s again", model, move.version, move.champion or "none")
    _record(ledger, model, move.ended(error.message))


def _drop_challenger(registry: Registry, model: str, version: int) -> None:
    """The alias goes with the promotion; one that names a later challenger stays."""
    challenger = registry.by_alias(model, CHALLENGER)
    if challenger is not None and challenger.version == version:
        registry.remove_alias(model, CHALLENGER)
