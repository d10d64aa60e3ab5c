"""The approvals in ledger and registry: what the steps `register`, `request_approval` and `record_approval` share."""

import logging

from training.adapters.ledger import Ledger
from training.adapters.registry import CHALLENGER, Registry
from training.contract.errors import InputError
from training.contract.messages import ApprovalRequest, OpenRequests
from training.contract.model_spec import ModelSpec
from training.domain.approval import APPROVAL, Approvals, Ended, request_key
from training.evidence_page.keeping import keep_again
from training.settings import StateSettings

log = logging.getLogger("perennial")


def approvals(ledger: Ledger, model: str) -> Approvals:
    """What the ledger knows now. Raises DataContractError when it is broken."""
    return Approvals.of([entry.body for entry in ledger.entries(model, APPROVAL)])


def open_requests(ledger: Ledger, model: str) -> OpenRequests:
    """Those that wait for an answer now."""
    waiting = approvals(ledger, model).waiting()
    keys = {request_key(version) for version in waiting}
    asked = [entry.at for entry in ledger.entries(model, APPROVAL) if entry.key in keys]
    return OpenRequests(count=len(waiting), since=min(asked, default=None))


def request_of(model: str, version: int, known: Approvals, registry: Registry) -> ApprovalRequest:
    """The request in the ledger. Raises InputError when there is none, or the registry has another artifact."""
    if version not in known.requests:
        waiting = ", ".join(map(str, known.waiting())) or "none"
        raise InputError(f"No approval of {model} version {version} was requested", f"Versions that wait: {waiting}.")
    request, found = known.requests[version], registry.get(model, version)
    if found.digest != request.digest:
        problem = f"{model} version {version} has digest {found.digest}, but the request names {request.digest}"
        raise InputError(problem, "The registry was restored from an older copy. Start another training run.")
    return request


def end(ending: Ended, spec: ModelSpec, settings: StateSettings) -> Ended:
    """End the request of a version, and return the end that the ledger keeps: an earlier one stays.

    The tags of the version and its evidence say it, and a version that is not approved is no longer a challenger. May
    be repeated.
    """
    registry, ledger, model = Registry(settings.tracking_uri), Ledger(settings.ledger), spec.name
    entry = ledger.append(APPROVAL, model, ending.model_dump(mode="json"), ending.key)
    kept = Ended.model_validate(entry.body)
    log.info("Approval of %s version %d: %s", model, kept.version, kept)
    for tag, value in tags(kept).items():
        registry.tag(model, kept.version, tag, value)
    if kept.outcome != "approved":
        if registry.state(model).aliases.get(CHALLENGER) == kept.version:
            registry.remove_alias(model, CHALLENGER)
        # After the alias: while this tag is there, no replica loads the version.
        registry.load_everywhere(model, kept.version)
    keep_again(kept.version, approvals(ledger, model).requests[kept.version].reason, spec, settings)
    return kept


def tags(ended: Ended) -> dict[str, str]:
    """The tags of a version, which MLflow shows on its page."""
    said = {
        "approval": ended.outcome,
        "approval.by": ended.by,
        "approval.at": ended.at.isoformat(timespec="seconds") if ended.at else "",
        "approval.comment": ended.comment[:4000],
        "approval.why": ended.why,
    }
    return {tag: value for tag, value in said.items() if value}
