"""Say what a person has to decide about a registered version. `register` has written the request to the ledger."""

import logging

from training import evidence_page
from training.adapters.ledger import Ledger
from training.adapters.registry import Registry
from training.approvals import approvals, open_requests, request_of
from training.contract.life import PAGES
from training.contract.messages import ApprovalRequest, RequestApprovalInputs, RequestApprovalResult
from training.contract.model_spec import load_model_spec
from training.domain.approval import body, subject
from training.settings import StateSettings
from training.workspace import EVIDENCE

log = logging.getLogger("perennial")


def run(inputs: RequestApprovalInputs, settings: StateSettings) -> RequestApprovalResult:
    """Not open when the request has ended: it was answered, or a newer version was registered.

    Raises InputError when there is no request for this version, or it is not the version that the request names.
    """
    spec = load_model_spec(inputs.model, settings.models_dir, settings.feature_repo)
    ledger = Ledger(settings.ledger)
    known, waiting = approvals(ledger, spec.name), open_requests(ledger, spec.name)
    request = request_of(spec.name, inputs.version, known, Registry(settings.tracking_uri))
    if ended := known.ended.get(request.version):
        why = f"The request for version {request.version} has ended: {ended}"
        log.info("%s", why)
        return RequestApprovalResult(open=False, why=why, waiting=waiting)
    log.info("Asked about %s version %d: %s", spec.name, request.version, "; ".join(request.why))
    return RequestApprovalResult(
        open=True,
        subject=subject(spec.title, request),
        body=body(request, known.refused.get(request.version, []), _links(spec.name, request, settings)),
        until=request.until,
        assignees=list(spec.approval.assignees),
        comment_required=not request.promote,
        waiting=waiting,
    )


def _links(model: str, request: ApprovalRequest, settings: StateSettings) -> list[tuple[str, str]]:
    """(text, address) of where the evidence of the version is; of the page in Airflow relative to Airflow's address."""
    kept = f"{PAGES}/models/{model}/reports/{EVIDENCE}/{request.version}/{evidence_page.PAGE}"
    found = [("evidence page", kept)]
    url = (settings.mlflow_url or settings.tracking_uri).rstrip("/")
    command = f"`make evidence MODEL={model} VERSION={request.version}` fetches the evidence page"
    if not url.startswith("http"):
        return [*found, (command, "")]
    artifact = f"{url}/get-artifact?path={evidence_page.FOLDER}/{evidence_page.PAGE}&run_uuid={request.mlflow_run}"
    page = f"{url}/#/models/{model}/versions/{request.version}"
    return [*found, ("evidence page in MLflow", artifact), ("version in MLflow", page), (command, "")]
