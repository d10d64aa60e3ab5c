"""Write who approved or rejected a version, when and why, to ledger and registry. Decides whether it is rolled out."""

import logging

from training.adapters.ledger import Ledger
from training.adapters.registry import CHAMPION, Registry
from training.approvals import approvals, end, open_requests, request_of
from training.contract.errors import InputError
from training.contract.messages import Answer, ApprovalRequest, RecordApprovalInputs, RecordApprovalResult
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.approval import APPROVAL, Ended
from training.judged_champion import another_run, champion_problem
from training.releasers import check_releaser
from training.settings import StateSettings

log = logging.getLogger("perennial")


def run(inputs: RecordApprovalInputs, settings: StateSettings) -> RecordApprovalResult:
    """The first end of a request holds; when it has ended already, the result says how.

    An answer of somebody who may not decide is refused, and so is an approval of a version with a negative verdict that
    does not say why: the ledger keeps it, and the result says that a person must be asked again. Raises InputError when
    there is no request for this version, or nobody has answered; TransientError when MLflow does not answer.
    """
    spec = load_model_spec(inputs.model, settings.models_dir, settings.feature_repo)
    registry, ledger = Registry(settings.tracking_uri), Ledger(settings.ledger)
    known = approvals(ledger, spec.name)
    request, ended = request_of(spec.name, inputs.version, known, registry), known.ended.get(inputs.version)
    if ended is None:
        if inputs.answer is None:
            raise InputError(f"Nobody has answered about {spec.name} version {request.version}", "Clear the whole run.")
        ending = _ending(inputs.answer, inputs.attempt, request, spec, registry, settings)
        if ending.outcome == "refused":
            ledger.append(APPROVAL, spec.name, ending.model_dump(mode="json"), ending.key)
            log.warning("The answer of %s is refused: %s", ending.by or "an unknown user", ending.why)
            return _result(request, ending, ledger, spec.name, ask_again=inputs.attempt + 1)
        ended = ending
    return _result(request, end(ended, spec, settings), ledger, spec.name)


def _ending(
    answer: Answer,
    attempt: int,
    request: ApprovalRequest,
    spec: ModelSpec,
    registry: Registry,
    settings: StateSettings,
) -> Ended:
    """What the answer amounts to."""
    said = {"version": request.version, "by": answer.by, "at": answer.at, "comment": answer.comment.strip()}
    if not answer.by and not answer.approved:
        why = f"nobody answered within {spec.approval.timeout_hours:g} hours"
        return Ended(version=request.version, outcome="expired", at=answer.at, why=why, attempt=attempt)
    if why := _refusal(answer, request, spec, settings):
        return Ended(**said, outcome="refused", why=why, attempt=attempt)
    if not answer.approved:
        return Ended(**said, outcome="rejected", attempt=attempt)
    judged, champion = request.judged_against, registry.by_alias(spec.name, CHAMPION)
    if judged is not None and (problem := champion_problem(spec.name, judged, champion)):
        return Ended(**said, outcome="outdated", why=f"{problem}. {another_run(spec.name)}", attempt=attempt)
    return Ended(**said, outcome="approved", attempt=attempt)


def _refusal(answer: Answer, request: ApprovalRequest, spec: ModelSpec, settings: StateSettings) -> str:
    """Why the answer does not count; empty when it does."""
    assignees = spec.approval.assignees
    if assignees and answer.by not in assignees:
        return f"approval.assignees of {spec.name} names who decides: {', '.join(assignees)}"
    try:
        check_releaser(f"decide about {spec.name}", answer.by, settings)
    except InputError as error:
        return f"{error.message}. {error.hint}"
    if not answer.approved:
        return ""
    if spec.approval.not_by_requester and answer.by == request.requested_by:
        return f"{answer.by} started the training run, and approval.not_by_requester asks for another person"
    if not request.promote and not answer.comment.strip():
        return "the verdict is negative: a comment must say why the version may serve in spite of it"
    return ""


def _result(
    request: ApprovalRequest, ended: Ended, ledger: Ledger, model: str, ask_again: int | None = None
) -> RecordApprovalResult:
    return RecordApprovalResult(
        version=request.version,
        digest=request.digest,
        approved=ended.outcome == "approved",
        outcome=ended.outcome,
        why=ended.why,
        ask_again=ask_again,
        judged_against=request.judged_against,
        reason=request.reason,
        waiting=open_requests(ledger, model),
    )
