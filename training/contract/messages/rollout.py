"""Which version serves."""

from datetime import datetime

from training.contract.base import Frozen
from training.contract.messages.approval import JudgedAgainst
from training.contract.messages.inputs import ModelInputs


class RolloutInputs(ModelInputs):
    version: int
    digest: str = ""
    """Of its model.onnx. The version must have it, unless it is empty."""
    reason: str = ""
    run: str = ""
    """The orchestrator's run id, the same in every retry."""
    judged_against: JudgedAgainst | None = None
    """The champion that must still serve when the rollout begins. None: any."""


class RollbackInputs(ModelInputs):
    version: int | None = None
    """None: the version that the alias `previous` names, resolved here."""
    reason: str = ""
    run: str = ""
    """The orchestrator's run id, the same in every retry. Without a version, a rollback is known by it, or by its
    reason where there is none: asked for again, it changes nothing."""
    requested_by: str = ""
    """The user who started the run."""


class Replica(Frozen):
    url: str
    replica: str
    version: int
    since: datetime


class StageResult(Frozen):
    """One stage that was passed."""

    stage: str
    requests: int
    findings: list[str]
    """What each guard found, with its numbers."""
    comparison: list[str] = []
    """Of an A/B stage: challenger and champion, each measure with its interval."""


class RolloutResult(Frozen):
    version: int
    previous_version: int | None
    replicas: list[Replica]
    seconds: float
    stages: list[StageResult] = []
    """Of a staged rollout, in their order."""
