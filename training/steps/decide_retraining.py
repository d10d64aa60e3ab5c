"""The broker's door: every reason to train becomes a request in the ledger, and is granted or refused there, once."""

import hashlib
import json
import logging
from typing import Any

from training.adapters.lake import Lake
from training.adapters.ledger import Entry, Ledger
from training.adapters.tables import covered
from training.contract.errors import DataContractError, InputError
from training.contract.messages import DecideRetrainingInputs, DecideRetrainingResult
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain import sources
from training.domain.monitoring import MONITORS, Look, blind, look
from training.domain.retraining import (
    MAXIMUM_RUNS,
    Decision,
    History,
    Reason,
    Request,
    decide,
    fingerprint,
    reason_to_train,
)
from training.settings import StateSettings

log = logging.getLogger("perennial")

REQUEST, DECISION, LOOK = "request", "decision", "look"
REASONS = {"schedule": "scheduled training", "person": "asked for by a person", "new_data": "new data came in"}


def run(inputs: DecideRetrainingInputs, settings: StateSettings) -> DecideRetrainingResult:
    """Put a reason to train to the broker, or take up a request that was granted before.

    The same inputs find the same request and the same decision. A granted request is taken up by one run: for that run
    the result stays `granted` in every retry, for any other it is not. A run that has failed gives its request back for
    another run to take up, unless it was a person's: they see the failure, and choose.

    What drift and performance could not measure is kept in the ledger too, once for each state of the data. Raises
    DataContractError, when all is decided, for a monitor that has been blind for too many looks, unless a granted
    request waits, which the result must announce. Raises InputError when the inputs do not say what is asked, or the
    request to take up is unknown.
    """
    _check(inputs)
    spec = load_model_spec(inputs.model, settings.models_dir)
    ledger = Ledger(settings.ledger)
    blindness = _watch(inputs, spec, ledger)
    result = _decided(inputs, spec, ledger, settings)
    for each in blindness:
        log.error("%s", each)
    if blindness and not result.waiting:
        hint = "Are events, predictions and labels landing? docs/operations.md says what to look at."
        raise DataContractError("; ".join(blindness), hint)
    return result


def _decided(
    inputs: DecideRetrainingInputs, spec: ModelSpec, ledger: Ledger, settings: StateSettings
) -> DecideRetrainingResult:
    if inputs.request_id is not None:
        request = _known(inputs.request_id, inputs.model, ledger)
    else:
        new = _new_request(inputs, spec, Lake(settings.lake, inputs.model))
        if isinstance(new, str):
            return _nothing(new, inputs, ledger)
        request = _put(new, spec, ledger)
    if inputs.failed:
        _release_request(request, inputs, ledger)
    return _result(request, inputs, ledger)


def _watch(inputs: DecideRetrainingInputs, spec: ModelSpec, ledger: Ledger) -> list[str]:
    """Keep what this look could not measure; a sentence for each monitor that has been blind for too long.

    A look that is repeated finds its entry; one as of the same day that sees other data gets another.
    """
    seen = look(inputs.drift, inputs.performance, spec) if inputs.drift else None
    if seen is None:
        return []
    results = [each.model_dump(mode="json") for each in (inputs.drift, inputs.performance) if each is not None]
    state = hashlib.sha256(json.dumps(results, sort_keys=True).encode()).hexdigest()[:12]
    ledger.append(LOOK, spec.name, seen.model_dump(mode="json"), f"{seen.as_of}:v{seen.champion_version}:{state}")
    looks = [Look.model_validate(entry.body) for entry in ledger.entries(spec.name, LOOK)]
    found = [blind(monitor, (each for each in looks if each.as_of <= seen.as_of), spec) for monitor in MONITORS]
    return [
        f"The {each.monitor} of {spec.name} could not be measured in {each.looks} successive looks, as of {each.since} "
        f"and later: {each.lacks}"
        for each in found
        if each is not None
    ]


def _check(inputs: DecideRetrainingInputs) -> None:
    found = inputs.drift is not None or inputs.performance is not None
    if inputs.force and inputs.trigger != "person":
        raise InputError("Only a person may force a training", hint='Leave out "force", or set trigger to "person".')
    if inputs.request_id is not None and (inputs.trigger is not None or not inputs.run):
        raise InputError("A request is taken up with its request_id and a run", hint="Leave out trigger; name the run.")
    if inputs.failed and inputs.request_id is None:
        raise InputError("A failed run gives back the request that it took up", hint="Name it with request_id.")
    if inputs.request_id is None and inputs.trigger is None and not found:
        hint = "Give a trigger, or what drift and performance found, or the request_id of a granted request."
        raise InputError("Nothing says why to train", hint)


def _known(request_id: str, model: str, ledger: Ledger) -> Request:
    history = _history(ledger.entries(model))
    if request_id not in history.requests:
        hint = f"Granted and waiting: {', '.join(history.waiting) or 'none'}."
        raise InputError(f"{model} has no request {request_id!r} in the ledger", hint)
    return history.requests[request_id]


def _new_request(inputs: DecideRetrainingInputs, spec: ModelSpec, lake: Lake) -> Request | str:
    """The request that the inputs amount to; a sentence when there is nothing to ask for."""
    events, labels = covered(lake, spec, "events"), covered(lake, spec, "labels")
    seen = inputs.as_of or (inputs.drift.as_of if inputs.drift else None)
    if events is None or labels is None:
        return "No reason to train: there are no labelled events in the lake yet."
    as_of = inputs.as_of or min(labels.end, seen or labels.end)
    reason = _reason(inputs, spec, (as_of - events.start).days)
    if reason is None:
        return "No reason to train."
    if reason.trigger == "first" and inputs.trigger is None and _features_lag(lake, spec):
        return "No training yet: the newest labels have not become features. Their own data run rings again."
    champion = inputs.drift.champion_version if inputs.drift else None
    if inputs.trigger is None:
        same: dict[str, Any] = {"champion": champion}
    else:
        same = {"evidence": inputs.evidence, "reason": inputs.reason, "run": inputs.run}
    # A run's retry must find its request again, though more labels may be in by then; so must code deployed again.
    day = seen or (None if inputs.run or inputs.trigger == "code" else as_of)
    return Request(
        id=fingerprint(inputs.model, reason.trigger, day, same),
        trigger=reason.trigger,
        seen=seen or as_of,
        as_of=as_of,
        reason=reason.text,
        champion_version=champion,
        force=inputs.force,
        evidence=_evidence(inputs),
    )


def _features_lag(lake: Lake, spec: ModelSpec) -> bool:
    """Events may have become features before their labels landed; a first model would learn without those."""
    made_of = [lake.applied(table, sources.APPLICATION) for table in spec.features.tables]
    oldest = min((number for number in made_of if number is not None), default=None)
    return oldest is not None and oldest < sources.number(lake.versions("events", "labels"))


def _reason(inputs: DecideRetrainingInputs, spec: ModelSpec, history_days: int) -> Reason | None:
    if inputs.trigger is None:
        return reason_to_train(inputs.drift, inputs.performance, spec, history_days)
    return Reason(inputs.trigger, inputs.reason or REASONS.get(inputs.trigger, inputs.trigger))


def _evidence(inputs: DecideRetrainingInputs) -> dict[str, Any]:
    found = {"drift": inputs.drift, "performance": inputs.performance}
    return inputs.evidence | {name: each.model_dump(mode="json") for name, each in found.items() if each is not None}


def _put(request: Request, spec: ModelSpec, ledger: Ledger) -> Request:
    """Request and decision in the ledger, which keeps the first of each. Returns the request as it stands there."""

    def body(before: list[Entry]) -> dict[str, Any]:
        history = _history([entry for entry in before if entry.model == spec.name])
        return decide(request, history, spec.retraining, spec.drift.window_days).model_dump(mode="json")

    entry = ledger.append(REQUEST, spec.name, request.model_dump(mode="json"), request.id)
    request = Request.model_validate(entry.body)
    ledger.append(DECISION, spec.name, body, request.id)
    return request


def _history(entries: list[Entry]) -> History:
    """Of one model's ledger entries."""
    return History.of(
        requests=[entry.body for entry in entries if entry.kind == REQUEST],
        decisions=[entry.body for entry in entries if entry.kind == DECISION],
    )


def _release_request(request: Request, inputs: DecideRetrainingInputs, ledger: Ledger) -> None:
    history = _history(ledger.entries(inputs.model))
    times = history.given_back.get(request.id, 0) + 1
    if history.taken.get(request.id) != inputs.run:
        log.info("Run %s does not have request %s: nothing to give back", inputs.run, request.id)
    elif request.trigger == "person":
        log.info("Request %s is a person's: it waits for nobody else", request.id)
    elif times >= MAXIMUM_RUNS:
        log.warning("%d runs failed on request %s: it is not offered again. Train by hand.", times, request.id)
    else:
        body = Decision(request_id=request.id, outcome="given back", run=inputs.run, why="The run failed.")
        ledger.append(DECISION, inputs.model, body.model_dump(mode="json"), f"{request.id}:given back:{times}")


def _answer(request: Request, inputs: DecideRetrainingInputs, ledger: Ledger) -> tuple[bool, str]:
    """Whether to train now or, without a run, in a run that takes the request up; and why."""
    history = _history(ledger.entries(inputs.model))
    decision = history.decisions.get(request.id)
    if decision is None:  # killed between the two entries: whoever put the request puts it again
        return False, "The request has not been decided yet."
    if decision.outcome == "refused":
        return False, decision.why
    if inputs.failed:
        return False, "The run failed."
    run = history.taken.get(request.id)
    if inputs.run and run is None:
        taken = Decision(request_id=request.id, outcome="taken", run=inputs.run)
        # One key for each time that it is there to be taken: of two runs that meet, the ledger keeps the first.
        key = f"{request.id}:taken:{history.given_back.get(request.id, 0)}"
        entry = ledger.append(DECISION, inputs.model, taken.model_dump(mode="json"), key)
        run = Decision.model_validate(entry.body).run
    if run in (None, inputs.run):
        return True, decision.why
    return False, f"Run {run} took the request up already."


def _result(request: Request, inputs: DecideRetrainingInputs, ledger: Ledger) -> DecideRetrainingResult:
    granted, why = _answer(request, inputs, ledger)
    history = _history(ledger.entries(inputs.model))
    log.info("Request %s (%s, as of %s): %s", request.id, request.reason, request.as_of, why)
    log.info("Granted and waiting for a run: %s", ", ".join(history.waiting) or "none")
    return DecideRetrainingResult(
        request_id=request.id,
        granted=granted,
        why=why,
        as_of=request.as_of,
        trigger=request.trigger,
        reason=request.reason,
        waiting=history.waiting,
    )


def _nothing(why: str, inputs: DecideRetrainingInputs, ledger: Ledger) -> DecideRetrainingResult:
    log.info(why)
    return DecideRetrainingResult(
        request_id=None,
        granted=False,
        why=why,
        as_of=None,
        trigger=None,
        reason="",
        waiting=_history(ledger.entries(inputs.model)).waiting,
    )
