"""The approval of a registered version: what a person is asked, and what becomes of the answer."""

from datetime import datetime
from typing import Literal

from training.contract.base import Frozen
from training.contract.messages.inputs import Metrics, ModelInputs

#: How a request ends. `expired`: nobody answered in time. `superseded`: a newer version was registered. `outdated`: the
#: champion is another one than the verdict was reached against.
Ending = Literal["approved", "rejected", "expired", "superseded", "outdated"]


class JudgedAgainst(Frozen):
    """The champion that a verdict was reached against; a verdict holds for no other."""

    version: int | None
    """None: there was no champion."""
    digest: str | None = None
    """Of its model.onnx. None: not known."""


class ApprovalRequest(Frozen):
    """What a person is asked: the body of a ledger entry of kind `approval`, which `register` writes."""

    version: int
    digest: str
    run: str = ""
    """The training run."""
    requested_by: str = ""
    """The user who started the training run by hand; empty when none did."""
    reason: str = ""
    """Why the version was trained."""
    why: list[str]
    """Why a person must decide, a sentence each."""
    promote: bool
    """What the verdict says."""
    reasons: list[str]
    """Every gate with its numbers."""
    primary: str
    challenger: Metrics
    champion: Metrics | None
    judged_against: JudgedAgainst | None = None
    """None: the version was registered by force, whatever the champion."""
    mlflow_run: str
    until: datetime
    """When the request expires."""


class AskedRun(Frozen):
    """A run of `<model>_approval`. `attempt`: 1 when a person is asked about the version for the first time."""

    version: int
    attempt: int = 1


class RequestApprovalInputs(ModelInputs):
    version: int


class OpenRequests(Frozen):
    """The requests of a model that wait for an answer."""

    count: int = 0
    since: datetime | None = None
    """When the oldest was made; None without any."""


class RequestApprovalResult(Frozen):
    open: bool
    """Whether a person has to answer. False: `why` says what became of the request."""
    why: str = ""
    subject: str = ""
    body: str = ""
    """Markdown, as Airflow's page of required actions shows it."""
    until: datetime | None = None
    assignees: list[str] = []
    comment_required: bool = False
    """Whether an approval must say why."""
    waiting: OpenRequests = OpenRequests()


class Answer(Frozen):
    """What a person said; `by` is empty when the time was up."""

    approved: bool
    by: str = ""
    at: datetime
    comment: str = ""


class RecordApprovalInputs(ModelInputs):
    version: int
    attempt: int = 1
    answer: Answer | None = None
    """None: nobody was asked, because the request had ended before."""


class RecordApprovalResult(Frozen):
    version: int
    digest: str
    approved: bool
    outcome: Ending | Literal["refused"]
    """`refused`: whoever answered may not, or gave no reason for a version with a negative verdict; the request stays
    open."""
    why: str = ""
    ask_again: int | None = None
    """The number of the next attempt, when the answer was refused."""
    judged_against: JudgedAgainst | None = None
    reason: str = ""
    """Why the version was trained."""
    waiting: OpenRequests = OpenRequests()
