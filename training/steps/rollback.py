"""Return to the version that served before, or to a named one, and wait until every replica serves it.

This cancels a rollout that is under way: without a named version, the champion from before that rollout serves. When a
replica does not follow in time, the registry keeps the new state, because the version that served was bad.
"""

import logging
import time

from training.adapters.ledger import Ledger
from training.adapters.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from training.adapters.replicas import Replicas, ReplicaStatus
from training.contract.errors import InputError, StepError
from training.contract.messages import Replica, RollbackInputs, RolloutResult
from training.contract.model_spec import load_model_spec
from training.contract.traffic import FULL, MODE
from training.domain.rollout import ROLLBACK, ROLLOUT, Move, begin, last_move, open_rollout, same_rollback
from training.settings import StateSettings

log = logging.getLogger("perennial")


def run(inputs: RollbackInputs, settings: StateSettings) -> RolloutResult:
    """Without a version, `run` and `reason` identify the rollback: running it again changes nothing.

    Raises InputError for an unknown version and when there is no previous one, StepError when a replica refuses the
    version, TransientError when a replica does not serve it in time.
    """
    started = time.monotonic()
    model, spec = inputs.model, load_model_spec(inputs.model, settings.models_dir, settings.feature_repo)
    registry, ledger = Registry(settings.tracking_uri), Ledger(settings.ledger)
    replicas = Replicas(settings.replicas(spec.serving), model, settings.serving_api_key)
    move = _begin(inputs, registry, ledger)
    if move.phase == "started":
        _point(move, model, registry)
    try:
        statuses = replicas.wait_until_served(move.version, spec.rollout.timeout_seconds)
        if move.phase == "started" and registry.state(model).aliases.get(CHAMPION) != move.version:
            # The cancelled rollout moved the alias once more before it noticed. By now it has noticed.
            _point(move, model, registry)
            statuses = replicas.wait_until_served(move.version, spec.rollout.timeout_seconds)
    except StepError as error:
        if move.phase == "started":
            ended = move.ended(error.message)
            ledger.claim(ROLLBACK, model, ended.model_dump(mode="json"), ended.key)
        raise
    if move.phase == "started":
        ledger.claim(ROLLBACK, model, move.ended().model_dump(mode="json"), move.ended().key)
    return _result(statuses, move, time.monotonic() - started)


def _begin(inputs: RollbackInputs, registry: Registry, ledger: Ledger) -> Move:
    """The move to make, in the ledger; or the finished one, if it was made before."""
    model, state = inputs.model, registry.state(inputs.model)
    now, before, split = state.aliases.get(CHAMPION), state.aliases.get(PREVIOUS), MODE in state.tags
    bodies = [e.body for e in ledger.entries(model) if e.kind in (ROLLOUT, ROLLBACK)]
    last, cancelled = last_move(bodies), open_rollout(bodies)
    same = same_rollback(last, now, inputs.reason, inputs.run) if inputs.version is None else None
    wanted = inputs.version or (same.version if same else cancelled.champion if cancelled else before)
    if wanted is None:
        known = ", ".join(str(each.version) for each in registry.versions(model)) or "none"
        hint = f"Name a version. {model}'s versions: {known}."
        raise InputError(f"{model} has no alias {PREVIOUS!r} to return to", hint)
    version = registry.get(model, wanted).version
    move = begin(last, ROLLBACK, version, now, before, inputs.reason, inputs.run)
    unfinished = last is not None and (last.kind, last.version) == (ROLLBACK, version) and last.phase != "finished"
    if now == version and not (unfinished or cancelled or split):
        log.info("Version %d of %s is already the champion", version, model)
        return move.ended()
    ledger.claim(ROLLBACK, model, move.model_dump(mode="json"), move.key)
    if cancelled:
        # Only now that this move is in the ledger: a step that is killed in between finds it there.
        ended = cancelled.ended(f"cancelled by rollback {move.number}: {inputs.reason or 'no reason given'}")
        ledger.claim(ROLLOUT, model, ended.model_dump(mode="json"), ended.key)
        log.info("The rollout of version %d is cancelled", cancelled.version)
    return move


def _point(move: Move, model: str, registry: Registry) -> None:
    """Move the aliases, then end a division of traffic and remove its challenger."""
    registry.point(model, [(alias, version) for alias, version in move.forwards if version is not None])
    split = MODE in registry.state(model).tags
    registry.set_traffic(model, FULL)
    if split:
        registry.remove_alias(model, CHALLENGER)
    log.info("Champion of %s: version %s → %d", model, move.champion or "none", move.version)


def _result(statuses: list[ReplicaStatus], move: Move, seconds: float) -> RolloutResult:
    for status in statuses:
        log.info("Replica %s serves version %d since %s", status.url, move.version, status.since)
    replicas = [
        Replica(url=status.url, replica=status.replica, version=move.version, since=status.since)
        for status in statuses
        if status.since
    ]
    return RolloutResult(
        version=move.version, previous_version=move.previous_after, replicas=replicas, seconds=round(seconds, 3)
    )
