"""Return to the version that served before, or to a named one, and wait until every replica serves it.

Desired state is not undone when a replica lags: a rollback is asked for because what served was bad.
"""

import logging
import time

from training.adapters.ledger import Ledger
from training.adapters.registry import CHAMPION, PREVIOUS, Registry
from training.adapters.replicas import Look, wait_until_served
from training.contract.errors import InputError, StepError, TransientError
from training.contract.messages import Replica, RollbackInputs, RolloutResult
from training.contract.model_spec import load_model_spec
from training.domain.rollout import ROLLBACK, ROLLOUT, Move, begin, last_move, same_rollback
from training.settings import Settings

log = logging.getLogger("perennial")


def run(inputs: RollbackInputs, settings: Settings) -> RolloutResult:
    """Without a version the request is known by its `run` and `reason`: asked again, it changes nothing.

    Raises InputError for an unknown version and when there is no previous one, StepError when a replica refuses the
    version, TransientError when one lags.
    """
    started = time.monotonic()
    model, spec = inputs.model, load_model_spec(inputs.model, settings.models_dir)
    registry, ledger = Registry(settings.tracking_uri), Ledger(settings.ledger)
    move = _begin(inputs, registry, ledger)
    if move.phase == "started":
        for alias, version in move.forwards:
            if version is not None:
                registry.set_alias(model, alias, version)
        log.info("Champion of %s: version %s → %d", model, move.champion or "none", move.version)
    try:
        looks = wait_until_served(settings.replicas, model, move.version, spec.rollout.timeout_seconds)
    except StepError as error:
        if move.phase == "started":
            _record(ledger, model, move.ended(error.message))
        raise
    if move.phase == "started":
        _record(ledger, model, move.ended())
    return _result(looks, move, time.monotonic() - started)


def _begin(inputs: RollbackInputs, registry: Registry, ledger: Ledger) -> Move:
    """The move to make, written down, or the finished one when it was made before."""
    model = inputs.model
    champion, previous = (registry.by_alias(model, alias) for alias in (CHAMPION, PREVIOUS))
    now, before = (each.version if each else None for each in (champion, previous))
    last = last_move([e.body for e in ledger.entries(model) if e.kind in (ROLLOUT, ROLLBACK)])
    same = same_rollback(last, now, inputs.reason, inputs.run) if inputs.version is None else None
    wanted = inputs.version or (same.version if same else before)
    if wanted is None:
        known = ", ".join(str(each.version) for each in registry.versions(model)) or "none"
        hint = f"Name a version. {model}'s versions: {known}."
        raise InputError(f"{model} has no alias {PREVIOUS!r} to return to", hint)
    version = registry.get(model, wanted).version
    move = begin(last, ROLLBACK, version, now, before, inputs.reason, inputs.run)
    unfinished = last is not None and (last.kind, last.version) == (ROLLBACK, version) and last.phase != "finished"
    if now == version and not unfinished:
        log.info("Version %d of %s is the champion already", version, model)
        return move.ended()
    return _record(ledger, model, move)


def _record(ledger: Ledger, model: str, move: Move) -> Move:
    entry = ledger.append(move.kind, model, move.model_dump(mode="json"), move.key)
    if entry.body["version"] != move.version:
        raise TransientError(f"Another {move.kind} of {model} is under way: {entry.body}", hint="Retry when it ended.")
    return move


def _result(looks: list[Look], move: Move, seconds: float) -> RolloutResult:
    for each in looks:
        log.info("Replica %s serves version %d since %s", each.url, move.version, each.since)
    replicas = [Replica(url=x.url, replica=x.replica, version=move.version, since=x.since) for x in looks if x.since]
    return RolloutResult(
        version=move.version, previous_version=move.previous_after, replicas=replicas, seconds=round(seconds, 3)
    )
