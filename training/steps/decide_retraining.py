"""Decide whether to train. Every reason to train becomes a request in the ledger, which is granted or refused once."""

import logging
from datetime import date
from typing import Any

from training.adapters.lake import EVENTS, Lake
from training.adapters.ledger import Entry, Ledger
from training.adapters.tables import covered, feeds_read
from training.contract.base import TableVersions
from training.contract.errors import DataContractError, InputError
from training.contract.messages import DecideRetrainingInputs, DecideRetrainingResult, Snapshot
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.feature_inputs import age
from training.domain.identity import digest, request_id
from training.domain.monitoring import MONITORS, MonitoringRun, TableRead, monitoring_run, unmeasured_for_long
from training.domain.retraining import MAXIMUM_RUNS, Decision, History, Request
from training.domain.retraining_decision import decide
from training.domain.retraining_policy import Advice, Evidence, advise
from training.domain.windows import learnable_from, windows
from training.labelled_rows import labelled_rows
from training.releasers import check_releaser
from training.settings import StateSettings
from training.snapshots import resolve

log = logging.getLogger("perennial")

REQUEST, DECISION, MONITORING_RUN = "request", "decision", "monitoring_run"
#: What Perennial 0.1 called a monitoring run.
LOOK = "look"
REASONS = {"schedule": "scheduled training", "person": "asked for by a person", "new_data": "new data came in"}


def run(inputs: DecideRetrainingInputs, settings: StateSettings) -> DecideRetrainingResult:
    """Decide on a reason to train, or start the training run of a request that was granted before.

    The same inputs find the same request and the same decision in the ledger. One run takes a granted request: for that
    run the result stays `granted` in every retry, with the same snapshot; for any other run it is not granted. A run
    that has failed releases its request, so that another run may take it. A person's request is not released: they see
    the failure and decide what to do.

    What drift and performance could not measure goes to the ledger too, once for each state of the data. Raises
    DataContractError, after the decision is made, when a monitor could not measure in too many successive runs, unless
    a granted request waits, which the result must announce. Raises InputError when the inputs do not say what is asked,
    when the request is unknown, or when the user may not force a training; TransientError when MLflow does not answer.
    """
    _check(inputs)
    if inputs.force:
        check_releaser(f"force a training of {inputs.model}", inputs.requested_by, settings)
    spec = load_model_spec(inputs.model, settings.models_dir, settings.feature_repo)
    ledger = Ledger(settings.ledger)
    problems = _note_monitoring(inputs, spec, ledger, Lake(settings.lake, spec.source.name, spec.name))
    result = _decided(inputs, spec, ledger, settings)
    log.info("The newest entry of the ledger of %s: %s", spec.name, ledger.head(spec.name) or "none")
    for problem in problems:
        log.error("%s", problem)
    if problems and not result.waiting:
        hint = "Are events, predictions and labels landing? docs/operations.md says what to look at."
        raise DataContractError("; ".join(problems), hint)
    return result


def _decided(
    inputs: DecideRetrainingInputs, spec: ModelSpec, ledger: Ledger, settings: StateSettings
) -> DecideRetrainingResult:
    if inputs.failed:
        id_ = inputs.request_id or _request_of(inputs.run, inputs.model, ledger)
        if id_ is None:
            return _nothing(f"Run {inputs.run} has no request: nothing to release.", inputs, ledger)
        request = _known(id_, inputs.model, ledger)
        _release_request(request, inputs, ledger)
        return _result(request, False, "The run failed.", None, ledger, inputs.model)
    # Only a training run compares with the champion.
    snapshot = inputs.drift.snapshot if inputs.drift else resolve(spec, settings, champion=bool(inputs.run))
    if inputs.request_id is not None:
        request = _known(inputs.request_id, inputs.model, ledger)
    else:
        new = _new_request(inputs, spec, snapshot, Lake(settings.lake, spec.source.name, spec.name), ledger)
        if isinstance(new, str):
            return _nothing(new, inputs, ledger)
        request = _put(new, spec, ledger)
    granted, why, taken = _answer(request, inputs, snapshot, ledger)
    return _result(request, granted, why, taken, ledger, inputs.model)


def _note_monitoring(inputs: DecideRetrainingInputs, spec: ModelSpec, ledger: Ledger, lake: Lake) -> list[str]:
    """Write what this monitoring run could not measure, and the tables that it read, to the ledger.

    Returns a sentence for each monitor that could not measure in too many runs, and one when the lake has lost what the
    run before has read. A run that is repeated finds its entry; one as of the same day that sees other data gets
    another entry.
    """
    this = monitoring_run(inputs.drift, inputs.performance, spec) if inputs.drift else None
    if this is None or inputs.drift is None:
        return []
    state = digest([inputs.drift, inputs.performance], 12)
    key = f"{this.as_of}:v{this.champion_version}:{state}"
    before = [entry for entry in ledger.entries(spec.name, MONITORING_RUN) if entry.key != key][-1:]
    tables = _tables(lake, inputs.drift.snapshot.table_versions)
    ledger.append(MONITORING_RUN, spec.name, this.model_copy(update={"tables": tables}).model_dump(mode="json"), key)
    entries = [entry for entry in ledger.entries(spec.name) if entry.kind in (MONITORING_RUN, LOOK)]
    runs = [MonitoringRun.model_validate(entry.body) for entry in entries]
    until_now = [each for each in runs if each.as_of <= this.as_of]
    found = [unmeasured_for_long(monitor, until_now, spec) for monitor in MONITORS]
    return _lost(before, lake, spec) + [
        f"The {each.monitor} of {spec.name} could not be measured in {each.runs} successive runs, as of {each.since} "
        f"and later: {each.lacks}"
        for each in found
        if each is not None
    ]


def _tables(lake: Lake, versions: TableVersions) -> dict[str, TableRead]:
    commits = {table: lake.commit_digest(table, version) for table, version in versions.items()}
    return {table: TableRead(number=versions[table], commit=commit) for table, commit in commits.items() if commit}


def _lost(before: list[Entry], lake: Lake, spec: ModelSpec) -> list[str]:
    """A sentence when the lake lacks versions that the monitoring run of the entry `before` has read."""
    lost: list[str] = []
    for entry in before:
        for table, read in MonitoringRun.model_validate(entry.body).tables.items():
            found = lake.commit_digest(table, read.number)  # None also of a commit that Delta has deleted since.
            if found != read.commit and (found or (lake.version(table) or -1) < read.number):
                lost.append(f"version {read.number} of {table}")
    if not lost:
        return []
    when, backfill = f"{before[0].at:%Y-%m-%d %H:%M} UTC", f"{spec.source.name}_backfill"
    return [
        f"The lake has lost {' and '.join(lost)}, which the monitoring run of {when} has read: it was restored from an "
        f"older copy. To ingest again what landed since, trigger {backfill}"
    ]


def _check(inputs: DecideRetrainingInputs) -> None:
    found = inputs.drift is not None or inputs.performance is not None
    if inputs.force and inputs.trigger != "person":
        raise InputError("Only a person may force a training", hint='Leave out "force", or set trigger to "person".')
    if inputs.request_id is not None and (inputs.trigger is not None or not inputs.run):
        problem = "The run that takes a granted request names both: request_id and run"
        raise InputError(problem, hint="Leave out trigger and name the run.")
    if inputs.failed and not inputs.run:
        raise InputError("A failed run releases the request that it took", hint="Name the run.")
    if not inputs.failed and inputs.request_id is None and inputs.trigger is None and not found:
        hint = "Give a trigger, or what drift and performance found, or the request_id of a granted request."
        raise InputError("No reason to train was given", hint)


def _request_of(run: str, model: str, ledger: Ledger) -> str | None:
    """The request of a run that ended before its result could name it."""
    return next((id_ for id_, taker in _history(ledger.entries(model)).taken.items() if taker == run), None)


def _known(id_: str | None, model: str, ledger: Ledger) -> Request:
    history = _history(ledger.entries(model))
    if id_ is None or id_ not in history.requests:
        hint = f"Granted and waiting: {', '.join(history.waiting) or 'none'}."
        raise InputError(f"{model} has no request {id_!r} in the ledger", hint)
    return history.requests[id_]


def _new_request(
    inputs: DecideRetrainingInputs, spec: ModelSpec, snapshot: Snapshot, lake: Lake, ledger: Ledger
) -> Request | str:
    """The request that the inputs amount to; a sentence when there is no reason to train."""
    versions = snapshot.table_versions
    feeds = (EVENTS, spec.label_spec.feed)
    events, labels = (covered(lake, spec.source, feed, versions.get(feed)) for feed in feeds)
    seen = inputs.as_of or (inputs.drift.as_of if inputs.drift else None)
    if events is None or labels is None:
        return "No reason to train: there are no labelled events in the lake yet."
    as_of = inputs.as_of or min(labels.end, seen or labels.end)
    advice = _advice(
        inputs,
        spec,
        Evidence(
            seen or as_of, snapshot.champion_version, inputs.drift, inputs.performance, (as_of - events.start).days
        ),
        ledger,
    )
    if not advice.asks:
        return f"No reason to train: {advice.text}."
    automatic = advice.triggers[0] == "first" and inputs.trigger is None
    if automatic and (why := _too_early(lake, spec, snapshot, as_of)):
        return f"No training yet: {why}"
    champion = inputs.drift.champion_version if inputs.drift else None
    if inputs.trigger is None:
        same: dict[str, Any] = {"champion": champion}
    else:
        same = {"evidence": inputs.evidence, "reason": inputs.reason, "run": inputs.run}
    change = inputs.change or (inputs.performance.change if inputs.performance else None)
    after = spec.training.after_change
    # A run's retry must find its request again, though more labels may be in by then; so must code deployed again.
    day = seen or (None if inputs.run or inputs.trigger == "code" else as_of)
    return Request(
        id=request_id(inputs.model, advice.triggers[0], day, same),
        trigger=advice.triggers[0],
        also=advice.triggers[1:],
        seen=seen or as_of,
        as_of=as_of,
        reason=advice.text,
        champion_version=champion,
        change=change,
        learnable_from=learnable_from(change, after, spec.label_spec.delay_days) if change and after else None,
        force=inputs.force,
        requested_by=inputs.requested_by,
        test=advice.test,
        evidence=_evidence(inputs, spec, advice),
    )


def _too_early(lake: Lake, spec: ModelSpec, snapshot: Snapshot, as_of: date) -> str | None:
    """Why a first model cannot be trained on the snapshot; None when it can.

    While history is still being ingested, a run for each landed file would fail for the same reason.
    """
    if _features_lag(lake, spec, snapshot):
        return "the newest labels have not become features. The data run that does so starts this again."
    versions, training = snapshot.table_versions, spec.training
    if missing := [table for table in spec.source.entities if table not in versions]:
        return f"{lake.uri('')} has no tables {missing}. The data run that makes them starts this again."
    chosen = windows(as_of, training.window_days, training.holdout_days, spec.label_spec.delay_days)
    try:
        labelled_rows(lake, spec, versions, chosen, as_of)
    except DataContractError as error:
        return str(error)
    return None


def _features_lag(lake: Lake, spec: ModelSpec, snapshot: Snapshot) -> bool:
    """Events may have become features before their labels landed; a first model would learn without those."""
    versions = snapshot.table_versions
    tables = [table for table in spec.source.entities if table in versions]
    feeds = spec.source.feeds
    read = [feeds_read(lake, table, feeds, versions[table]) for table in tables]
    ages = [age(each, feeds) for each in read if each]
    return bool(ages) and min(ages) < age(versions, feeds)


def _advice(inputs: DecideRetrainingInputs, spec: ModelSpec, evidence: Evidence, ledger: Ledger) -> Advice:
    """What the one who asks says; without a trigger, what the policy says about what monitoring found."""
    if inputs.trigger is None:
        return advise(evidence, _history(ledger.entries(spec.name)), spec)
    return Advice(inputs.reason or REASONS.get(inputs.trigger, inputs.trigger), (inputs.trigger,))


def _evidence(inputs: DecideRetrainingInputs, spec: ModelSpec, advice: Advice) -> dict[str, Any]:
    found = {"drift": inputs.drift, "performance": inputs.performance}
    measured = {name: each.model_dump(mode="json") for name, each in found.items() if each is not None}
    policy = {"policy": {"name": spec.retraining.policy, "numbers": advice.numbers}} if inputs.trigger is None else {}
    return inputs.evidence | measured | policy


def _put(request: Request, spec: ModelSpec, ledger: Ledger) -> Request:
    """Write request and decision to the ledger, which keeps the first of each. Returns the request that it keeps."""

    def body(before: list[Entry]) -> dict[str, Any]:
        history = _history([entry for entry in before if entry.model == spec.name])
        return decide(request, history, spec.retraining, spec.monitoring.window_days).model_dump(mode="json")

    entry = ledger.append(REQUEST, spec.name, request.model_dump(mode="json"), request.id)
    request = Request.model_validate(entry.body)
    ledger.append(DECISION, spec.name, body, request.id)
    return request


def _history(entries: list[Entry]) -> History:
    """The history in one model's ledger entries."""
    watched = [entry.body for entry in entries if entry.kind == MONITORING_RUN]
    return History.of(
        requests=[entry.body for entry in entries if entry.kind == REQUEST],
        decisions=[entry.body for entry in entries if entry.kind == DECISION],
        looks=[look for look in (MonitoringRun.model_validate(b).look for b in watched) if look is not None],
    )


def _release_request(request: Request, inputs: DecideRetrainingInputs, ledger: Ledger) -> None:
    history = _history(ledger.entries(inputs.model))
    times = history.released.get(request.id, 0) + 1
    if history.taken.get(request.id) != inputs.run:
        log.info("Run %s does not have request %s: nothing to release", inputs.run, request.id)
    elif request.trigger == "person":
        log.info("Request %s was made by a person: no other run takes it", request.id)
    elif times >= MAXIMUM_RUNS:
        log.warning("%d runs failed on request %s: no further run takes it. Train by hand.", times, request.id)
    else:
        body = Decision(request_id=request.id, outcome="released", run=inputs.run, why="The run failed.")
        ledger.append(DECISION, inputs.model, body.model_dump(mode="json"), f"{request.id}:released:{times}")


def _answer(
    request: Request, inputs: DecideRetrainingInputs, snapshot: Snapshot, ledger: Ledger
) -> tuple[bool, str, Snapshot | None]:
    """Whether to train, now or, without a run, in a run that takes the request later; why; and what the run reads."""
    history = _history(ledger.entries(inputs.model))
    decision = history.decisions.get(request.id)
    if decision is None:  # Killed between the two entries; whoever made the request makes it again.
        return False, "The request has not been decided yet.", None
    if decision.outcome != "granted":
        return False, decision.why, None
    if not inputs.run:
        taken_by = history.taken.get(request.id)
        return (True, decision.why, None) if taken_by is None else (False, _taken_by(taken_by), None)
    snapshot = snapshot.model_copy(update={"as_of": request.as_of})
    run = history.taken.get(request.id)
    if run is None:
        taken = Decision(request_id=request.id, outcome="taken", run=inputs.run, snapshot=snapshot)
        # One key for each time that the request can be taken: of two runs at once, the ledger keeps the first.
        key = f"{request.id}:taken:{history.released.get(request.id, 0)}"
        entry = ledger.append(DECISION, inputs.model, taken.model_dump(mode="json"), key)
        taken = Decision.model_validate(entry.body)
        run, snapshot = taken.run, taken.snapshot or snapshot
    if run != inputs.run:
        return False, _taken_by(run), None
    return True, decision.why, history.snapshots.get(request.id, snapshot)


def _taken_by(run: str) -> str:
    return f"Run {run} has taken the request already."


def _result(
    request: Request, granted: bool, why: str, snapshot: Snapshot | None, ledger: Ledger, model: str
) -> DecideRetrainingResult:
    waiting = _history(ledger.entries(model)).waiting
    log.info("Request %s (%s, as of %s): %s", request.id, request.reason, request.as_of, why)
    log.info("Granted and waiting for a run: %s", ", ".join(waiting) or "none")
    return DecideRetrainingResult(
        request_id=request.id,
        granted=granted,
        why=why,
        as_of=request.as_of,
        trigger=request.trigger,
        reason=request.reason,
        waiting=waiting,
        change=request.change,
        snapshot=snapshot,
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
