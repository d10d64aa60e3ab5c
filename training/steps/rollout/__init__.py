"""Bring a model version into service through the stages of its plan, and undo that when a guard trips.

The move is in the ledger before an alias changes, and every stage is before it begins, so a step that was killed
finishes or undoes what it began.
"""

import logging
import time

from training.adapters.ledger import Ledger
from training.adapters.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from training.adapters.replicas import Replicas, ReplicaStatus
from training.contract.errors import RolloutAborted, StepError, Stopped
from training.contract.messages import Replica, RolloutInputs, RolloutResult
from training.contract.model_spec import load_model_spec
from training.contract.traffic import FULL
from training.domain.rollout import ROLLBACK, ROLLOUT, Move, begin, last_move
from training.settings import StateSettings
from training.steps.rollout.evidence import keep_report, skew_problem
from training.steps.rollout.stages import Rollout, Unreachable

log = logging.getLogger("perennial")


def run(inputs: RolloutInputs, settings: StateSettings) -> RolloutResult:
    """Raises InputError for an unknown version, RolloutAborted when a guard trips or a rollback cancels, StepError when
    a replica refuses the version, TransientError when one lags.

    After a TransientError for want of MLflow or the replicas during a stage, the stage goes on: run again, the step
    takes it up. After every other error the version is out of service again.
    """
    started = time.monotonic()
    model, spec = inputs.model, load_model_spec(inputs.model, settings.models_dir)
    registry, ledger = Registry(settings.tracking_uri), Ledger(settings.ledger)
    replicas = Replicas(settings.replicas, model, settings.serving_api_key)
    version = registry.get(model, inputs.version).version
    move = _begin(model, version, inputs.reason, registry, ledger)
    rollout = Rollout(move, version, spec, registry, ledger, replicas, settings)
    before = replicas.look()
    try:
        if move is not None and move.champion is not None:
            if problem := skew_problem(ledger, spec):
                raise RolloutAborted(problem, hint="Run the drift DAG, whose audit step finds the skew.")
            rollout.stages()
        rollout.check_not_cancelled()
        if move is not None:
            registry.point(model, move.forwards)
            log.info("Champion of %s: version %s → %d", model, move.champion or "none", version)
        rollout.full()
        looks = replicas.wait_until_served(version, spec.rollout.timeout_seconds, before)
        rollout.watch_full()
    except (Unreachable, Stopped):
        raise  # the stage goes on
    except StepError as error:
        if move is not None:
            _undo(move, model, error, registry, ledger)
            keep_report(model, rollout.passed, move.ended(error.message), registry, settings)
        raise
    if move is not None:
        ledger.claim(ROLLOUT, model, move.ended().model_dump(mode="json"), move.ended().key)
    registry.set_traffic(model, FULL)
    _drop_challenger(registry, model, version)
    if move is not None:
        keep_report(model, rollout.passed, move.ended(), registry, settings)
    return _result(looks, version, rollout, registry, time.monotonic() - started)


def _begin(model: str, version: int, reason: str, registry: Registry, ledger: Ledger) -> Move | None:
    """The move to make, written down; None when `version` is champion and no move is open."""
    aliases = registry.state(model).aliases
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    last = last_move([e.body for e in ledger.entries(model) if e.kind in (ROLLOUT, ROLLBACK)])
    move = begin(last, ROLLOUT, version, champion, previous, reason)
    if champion == version and move != last:
        log.info("Version %d of %s is the champion already", version, model)
        return None
    ledger.claim(ROLLOUT, model, move.model_dump(mode="json"), move.key)
    return move


def _undo(move: Move, model: str, error: StepError, registry: Registry, ledger: Ledger) -> None:
    """Out of service: first the traffic, which is one tag, then the aliases. What others did meanwhile stays."""
    state = registry.state(model)
    if state.tags.get("rollout.stage", "").startswith(f"{move.number}."):
        registry.set_traffic(model, FULL)
    champion = state.aliases.get(CHAMPION)
    if champion in (None, move.version):
        registry.point(model, move.backwards)
        log.error("Champion of %s: version %d → %s again", model, move.version, move.champion or "none")
    elif champion != move.champion:
        log.warning("The champion was moved to version %d meanwhile; it stays", champion)
    if state.aliases.get(CHALLENGER) == move.version and isinstance(error, RolloutAborted):
        registry.remove_alias(model, CHALLENGER)
    registry.tag(model, move.version, "rollout", f"failed: {error.message}")
    ledger.claim(ROLLOUT, model, move.ended(error.message).model_dump(mode="json"), move.ended(error.message).key)


def _drop_challenger(registry: Registry, model: str, version: int) -> None:
    """The alias goes with the promotion; one that names a later challenger stays."""
    challenger = registry.by_alias(model, CHALLENGER)
    if challenger is not None and challenger.version == version:
        registry.remove_alias(model, CHALLENGER)


def _result(
    looks: list[ReplicaStatus], version: int, rollout: Rollout, registry: Registry, seconds: float
) -> RolloutResult:
    for each in looks:
        log.info("Replica %s serves version %d since %s", each.url, version, each.since)
    previous = registry.by_alias(rollout.model, PREVIOUS)
    return RolloutResult(
        version=version,
        previous_version=previous.version if previous else None,
        replicas=[Replica(url=x.url, replica=x.replica, version=version, since=x.since) for x in looks if x.since],
        seconds=round(seconds, 3),
        stages=rollout.results(),
    )
