"""Bring a model version into service through the stages of its plan, and undo that when a guard trips.

The move is written to the ledger before an alias changes, and each stage before it begins. So a step that was killed
finishes, or undoes, what it began.
"""

import logging
import time

from training.adapters.ledger import Ledger
from training.adapters.registry import CHALLENGER, CHAMPION, PREVIOUS, ModelVersion, Registry
from training.adapters.replicas import Replicas, ReplicaStatus
from training.contract.errors import InputError, RolloutAborted, StepError, Stopped
from training.contract.messages import Replica, RolloutInputs, RolloutResult
from training.contract.model_spec import load_model_spec
from training.contract.traffic import FULL
from training.domain.rollout import ROLLBACK, ROLLOUT, Move, begin, last_move
from training.judged_champion import another_run, champion_problem
from training.settings import StateSettings
from training.steps.rollout.evidence import keep_report, skew_problem
from training.steps.rollout.stages import Rollout, Unreachable

log = logging.getLogger("perennial")


def run(inputs: RolloutInputs, settings: StateSettings) -> RolloutResult:
    """Raises InputError for an unknown version, or when another champion serves than `judged_against`; RolloutAborted
    when a guard trips or a rollback cancels the rollout, StepError when a replica refuses the version, TransientError
    when a replica does not serve it in time.

    When MLflow or the replicas cannot be reached during a stage (a TransientError, too), the stage continues, and the
    next run of the step resumes it. After every other error the version no longer serves.
    """
    started = time.monotonic()
    model, spec = inputs.model, load_model_spec(inputs.model, settings.models_dir, settings.feature_repo)
    registry, ledger = Registry(settings.tracking_uri), Ledger(settings.ledger)
    replicas = Replicas(settings.replicas(spec.serving), model, settings.serving_api_key)
    version = _version(inputs, registry.get(model, inputs.version), ledger)
    _check_champion(inputs, registry)
    move = _begin(inputs, registry, ledger)
    rollout = Rollout(move, version, spec, registry, ledger, replicas, settings)
    before = replicas.statuses()
    try:
        if move is not None and move.champion is not None and (problem := skew_problem(ledger, spec)):
            raise RolloutAborted(problem, hint="Run the monitor DAG, whose audit step finds the skew.")
        if move is not None:
            rollout.load_on_one_replica_first(before)
        if move is not None and move.champion is not None:
            rollout.stages()
        rollout.check_not_cancelled()
        if move is not None:
            registry.point(model, move.forwards)
            registry.load_everywhere(model, version)
            log.info("Champion of %s: version %s → %d", model, move.champion or "none", version)
        rollout.full()
        statuses = replicas.wait_until_served(version, spec.rollout.timeout_seconds, before)
        rollout.watch_full()
    except (Unreachable, Stopped):
        raise  # The stage goes on.
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
    return _result(statuses, version, rollout, registry, time.monotonic() - started)


def _version(inputs: RolloutInputs, found: ModelVersion, ledger: Ledger) -> int:
    """The version to roll out. Raises InputError when it is another artifact, or when the run has rolled it out before.

    Both happen after a restore: of an older registry, which reuses numbers, and of an older database of Airflow, which
    repeats the tasks of runs that had ended.
    """
    if inputs.digest and found.digest != inputs.digest:
        problem = f"{found.model} version {found.version} has digest {found.digest}, to roll out was {inputs.digest}"
        hint = "The registry was restored from an older copy. Start another training run."
        raise InputError(problem, hint)
    bodies = [each.body for each in ledger.entries(found.model) if each.kind in (ROLLOUT, ROLLBACK)]
    moves = [(body.get("run"), body["version"]) for body in bodies if body["phase"] == "finished"]
    if inputs.run and (inputs.run, found.version) in moves[:-1] and moves[-1] != (inputs.run, found.version):
        problem = f"Run {inputs.run} has rolled out version {found.version} before, and version {moves[-1][1]} followed"
        raise InputError(problem, f"To return to version {found.version}, trigger {found.model}_rollback.")
    return found.version


def _check_champion(inputs: RolloutInputs, registry: Registry) -> None:
    """A person may have taken days to approve the version: another one may serve by now."""
    if inputs.judged_against is None:
        return
    champion = registry.by_alias(inputs.model, CHAMPION)
    if champion is not None and champion.version == inputs.version:
        return
    if problem := champion_problem(inputs.model, inputs.judged_against, champion):
        raise InputError(problem, another_run(inputs.model))


def _begin(inputs: RolloutInputs, registry: Registry, ledger: Ledger) -> Move | None:
    """The move to make, in the ledger; None when the version is champion and no move is unfinished."""
    model, version = inputs.model, inputs.version
    aliases = registry.state(model).aliases
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    last = last_move([e.body for e in ledger.entries(model) if e.kind in (ROLLOUT, ROLLBACK)])
    move = begin(last, ROLLOUT, version, champion, previous, inputs.reason, inputs.run)
    if champion == version and move != last:
        log.info("Version %d of %s is already the champion", version, model)
        return None
    ledger.claim(ROLLOUT, model, move.model_dump(mode="json"), move.key)
    return move


def _undo(move: Move, model: str, error: StepError, registry: Registry, ledger: Ledger) -> None:
    """Take the version out of service: first the traffic, which is one tag, then the aliases. A champion that someone
    else has set meanwhile stays."""
    state = registry.state(model)
    if state.tags.get("rollout.stage", "").startswith(f"{move.number}."):
        registry.set_traffic(model, FULL)
    champion = state.aliases.get(CHAMPION)
    if champion in (None, move.version):
        registry.point(model, move.backwards)
        log.error("Champion of %s: version %d → %s, as before", model, move.version, move.champion or "none")
    elif champion != move.champion:
        log.warning("Version %d was made champion during the rollout; it stays", champion)
    if state.aliases.get(CHALLENGER) == move.version and isinstance(error, RolloutAborted):
        registry.remove_alias(model, CHALLENGER)
    registry.tag(model, move.version, "rollout", f"failed: {error.message}")
    ledger.claim(ROLLOUT, model, move.ended(error.message).model_dump(mode="json"), move.ended(error.message).key)


def _drop_challenger(registry: Registry, model: str, version: int) -> None:
    """Remove the alias of the promoted version. An alias of a later challenger stays."""
    if registry.state(model).aliases.get(CHALLENGER) == version:
        registry.remove_alias(model, CHALLENGER)


def _result(
    statuses: list[ReplicaStatus], version: int, rollout: Rollout, registry: Registry, seconds: float
) -> RolloutResult:
    for status in statuses:
        log.info("Replica %s serves version %d since %s", status.url, version, status.since)
    return RolloutResult(
        version=version,
        previous_version=registry.state(rollout.model).aliases.get(PREVIOUS),
        replicas=[
            Replica(url=status.url, replica=status.replica, version=version, since=status.since)
            for status in statuses
            if status.since
        ],
        seconds=round(seconds, 3),
        stages=rollout.results(),
    )
