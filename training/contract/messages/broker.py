"""The decision whether to train, and what becomes of a granted request."""

from datetime import date
from typing import Any

from training.contract.base import Frozen
from training.contract.messages.inputs import ModelInputs
from training.contract.messages.snapshot import Snapshot
from training.contract.messages.watching import DriftResult, PerformanceResult
from training.contract.names import Trigger


class DecideRetrainingInputs(ModelInputs):
    """One of four:

    - A run that starts by itself: `trigger` (schedule, person, …) and `run`.
    - A monitoring run: `drift` and `performance`, no `trigger`; the step finds the reason to train, if any.
    - A training run that starts for a request which was granted before: `request_id` and `run`.
    - A training run that failed and releases its request: `run` and `failed`, and `request_id` if it is known. Without
      it, the step finds the request that the run took.
    """

    trigger: Trigger | None = None
    """None: derived from `drift` and `performance`, or read from the request `request_id`."""
    as_of: date | None = None
    """The knowledge horizon to train with. None: that of `drift`, but not beyond the newest labels."""
    reason: str = ""
    evidence: dict[str, Any] = {}
    change: date | None = None
    """The day since which the data has changed, if whoever asks knows it. None: what `performance` found."""
    drift: DriftResult | None = None
    performance: PerformanceResult | None = None
    force: bool = False
    """Train whatever the policy says. Only a person may."""
    request_id: str | None = None
    """The id, in the ledger, of a request that was granted before."""
    run: str = ""
    """The orchestrator's id of the training run that starts with this request, the same in every retry. One run takes
    a granted request. Empty: no run starts now, and a granted request waits for one."""
    requested_by: str = ""
    """The user who started the run by hand; empty for a run that starts by itself."""
    failed: bool = False
    """With `run`: that run has failed, and another may take the request that it took."""


class DecideRetrainingResult(Frozen):
    request_id: str | None
    """None: there was no reason to train, and no request was made."""
    granted: bool
    """Whether to train: in this `run` when one was given, else in a run that takes the request."""
    why: str
    """Why, in a sentence: what a person reads in the task log."""
    as_of: date | None
    trigger: Trigger | None
    reason: str
    waiting: list[str]
    """Granted requests that no run has taken yet, oldest first."""
    change: date | None = None
    """The day since which the data has changed, for the training to learn from what came after."""
    snapshot: Snapshot | None = None
    """What the training run `run` reads, with the request's knowledge horizon; None when it is not to train."""
