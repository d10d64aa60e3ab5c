"""A reason to train, and the answer."""

from datetime import date
from typing import Any

from training.contract.base import Frozen
from training.contract.messages.inputs import StepInputs
from training.contract.messages.watching import DriftResult, PerformanceResult
from training.contract.names import Trigger


class DecideRetrainingInputs(StepInputs):
    """One trigger for training, put to the broker; or a granted request that a training run takes up.

    - A run that starts by itself: `trigger` (schedule, person, …) and `run`.
    - A look at what was found: `drift` and `performance`, no `trigger`; the step finds the reason to train, if any.
    - A run that takes up a granted request: `request_id` and `run`.
    """

    trigger: Trigger | None = None
    """None: derived from `drift` and `performance`, or read from the request `request_id`."""
    as_of: date | None = None
    """None: as found by `drift`; else left to the dataset step."""
    reason: str = ""
    evidence: dict[str, Any] = {}
    drift: DriftResult | None = None
    performance: PerformanceResult | None = None
    force: bool = False
    """Train whatever the policy says. Only a person may."""
    request_id: str | None = None
    """A request that was granted before and now starts: its id in the ledger."""
    run: str = ""
    """The orchestrator's id of the training run that starts with this request, the same in every retry.
    A granted request is taken up by one run. Empty: no run starts now, a granted request waits."""
    failed: bool = False
    """With request_id and run: the run that took the request up has failed, the request may wait for another."""


class DecideRetrainingResult(Frozen):
    request_id: str | None
    """None: there was no reason to train, and nothing was put to the broker."""
    granted: bool
    """Whether to train: for this `run` when one was given, else in a run that takes the request up."""
    why: str
    """Why, in a sentence: what a person reads in the task log."""
    as_of: date | None
    trigger: Trigger | None
    reason: str
    waiting: list[str]
    """Granted requests that no run has taken up yet, oldest first."""
