"""Return to the previous version, or to a named one, and wait until every replica serves it.

The aliases move before anything is written to the ledger, also when the ledger cannot be read: the version in service
is bad. A tag of the registered model keeps what the aliases were, so a step that was killed, or could not write to the
ledger, continues from there and does not roll back a second time.

This cancels a rollout that is under way: without a named version, the champion from before that rollout serves. When a
replica does not follow in time, the registry keeps the new state, because the version that served was bad.
"""

import logging
import time
from typing import Any

from training.adapters.ledger import Ledger
from training.adapters.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from training.adapters.replicas import Replicas, ReplicaStatus
from training.contract.errors import DataContractError, InputError, StepError, TransientError
from training.contract.messages import Replica, RollbackInputs, RolloutResult
from training.contract.model_spec import load_model_spec
from training.contract.traffic import FULL, MODE
from training.domain.rollout import (
    ROLLBACK,
    ROLLBACK_TAG,
    ROLLOUT,
    Move,
    begin,
    last_move,
    open_rollout,
    resumed,
    same_rollback,
    tagged,
)
from training.releasers import check_releaser
from training.settings import StateSettings
from training.workspace import served_artifact

log = logging.getLogger("perennial")


def run(inputs: RollbackInputs, settings: StateSettings) -> RolloutResult:
    """Without a version, `run` and `reason` identify the rollback: running it again changes nothing.

    Raises InputError for an unknown version, when there is no previous one, and when the user may not roll back;
    DataContractError for a version that is not signed as CT_TRUSTED_KEYS requires; StepError when a replica refuses the
    version, TransientError when a replica does not serve it in time. When the ledger is broken or away, it raises the
    ledger's error after the aliases have moved; run it again when the ledger is repaired.
    """
    started = time.monotonic()
    check_releaser(f"roll {inputs.model} back", inputs.requested_by, settings)
    model, spec = inputs.model, load_model_spec(inputs.model, settings.models_dir, settings.feature_repo)
    registry, ledger = Registry(settings.tracking_uri), Ledger(settings.ledger)
    replicas = Replicas(settings.replicas(spec.serving), model, settings.serving_api_key)
    history, broken = _history(model, ledger)
    move = _move(inputs, registry, history)
    if move.phase == "started":
        if settings.trusted_keys:
            # Replicas refuse a version that is not signed. Found here, the aliases stay as they are.
            served_artifact(settings, registry.get(model, move.version))
        registry.tag_model(model, ROLLBACK_TAG, tagged(move))
        _point(move, model, registry)
        if broken is not None:
            raise _not_recorded(broken, move, model) from broken
        _record(move, model, history, ledger)
        if registry.state(model).aliases.get(CHAMPION) != move.version:
            # A rollout had looked into the ledger just before.
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
            registry.tag_model(model, ROLLBACK_TAG, None)
        raise
    if move.phase == "started":
        ledger.claim(ROLLBACK, model, move.ended().model_dump(mode="json"), move.ended().key)
    registry.tag_model(model, ROLLBACK_TAG, None)
    return _result(statuses, move, time.monotonic() - started)


def _history(model: str, ledger: Ledger) -> tuple[list[dict[str, Any]], StepError | None]:
    """The bodies of the model's moves, oldest first; none, and the error, when the ledger cannot be read."""
    try:
        return [e.body for e in ledger.entries(model) if e.kind in (ROLLOUT, ROLLBACK)], None
    except StepError as error:
        log.warning("The rollback continues without the ledger: %s", error)
        return [], error
    except OSError as error:
        log.warning("The rollback continues without the ledger: %s", error)
        return [], TransientError(f"The ledger does not answer: {error}", hint="Retry.")


def _move(inputs: RollbackInputs, registry: Registry, history: list[dict[str, Any]]) -> Move:
    """The move to make; or the finished one, if it was made before."""
    model, state = inputs.model, registry.state(inputs.model)
    now, before, split = state.aliases.get(CHAMPION), state.aliases.get(PREVIOUS), MODE in state.tags
    last, cancelled = last_move(history), open_rollout(history)
    begun = resumed(state.tags.get(ROLLBACK_TAG), last, now, inputs.version, inputs.reason, inputs.run)
    same = begun or (same_rollback(last, now, inputs.reason, inputs.run) if inputs.version is None else None)
    if same is not None:
        wanted: int | None = same.version
    else:
        # Without the ledger, a split of traffic shows that a rollout is under way.
        wanted = inputs.version or (cancelled.champion if cancelled else now if split and not history else before)
    if wanted is None:
        known = ", ".join(str(each.version) for each in registry.versions(model)) or "none"
        hint = f"Name a version. {model}'s versions: {known}."
        raise InputError(f"{model} has no alias {PREVIOUS!r} to return to", hint)
    version = registry.get(model, wanted).version
    champion, previous = (begun.champion, begun.previous) if begun else (now, before)
    move = begin(last, ROLLBACK, version, champion, previous, inputs.reason, inputs.run, inputs.requested_by)
    unfinished = last is not None and (last.kind, last.version) == (ROLLBACK, version) and last.phase != "finished"
    if now == version and not (begun or unfinished or cancelled or split):
        log.info("Version %d of %s is already the champion", version, model)
        return move.ended()
    return move


def _record(move: Move, model: str, history: list[dict[str, Any]], ledger: Ledger) -> None:
    """Write the move to the ledger, and that it cancels the rollout that is under way."""
    ledger.claim(ROLLBACK, model, move.model_dump(mode="json"), move.key)
    if cancelled := open_rollout(history):
        # Only now that this move is in the ledger: a step that is killed in between finds it there.
        ended = cancelled.ended(f"cancelled by rollback {move.number}: {move.reason or 'no reason given'}")
        ledger.claim(ROLLOUT, model, ended.model_dump(mode="json"), ended.key)
        log.info("The rollout of version %d is cancelled", cancelled.version)


def _not_recorded(broken: StepError, move: Move, model: str) -> StepError:
    kind = DataContractError if isinstance(broken, DataContractError) else TransientError
    problem = (
        f"Version {move.version} of {model} is the champion again, but the ledger does not say so: {broken.message}"
    )
    return kind(problem, hint=f"Replicas follow. {broken.hint} Then clear this task.")


def _point(move: Move, model: str, registry: Registry) -> None:
    """Move the aliases, then end a traffic split and remove its challenger."""
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
