"""Predictions for whole partitions of events."""

from typing import Literal

from pydantic import Field

from training.contract.base import Days
from training.contract.messages.inputs import ModelInputs
from training.contract.messages.snapshot import OfSnapshot
from training.contract.names import PARTITION_PATTERN


class ScoreInputs(ModelInputs):
    """`score` is the only step of its run: it resolves the snapshot."""

    partition: str | None = Field(None, pattern=PARTITION_PATTERN)
    """Score the events of this partition that the champion has not answered. None: the events of all partitions that
    are new or were delivered again, which no version has answered."""
    run: str = ""
    """The orchestrator's id of the run, the same in every retry: a retry reads the same snapshot."""


class ScoreResult(OfSnapshot):
    outcome: Literal["scored", "nothing new", "no champion", "no data"]
    partitions: list[str] = []
    """The partitions whose events all have a prediction now, and had not when the run began."""
    window: Days | None = None
    """The days of their events."""
    rows: int = 0
    """Predictions that this run wrote."""
    answered_before: int = 0
    """Events that had a prediction already."""
    not_finite: int = 0
    """Events without a prediction, because a feature or an output of the model is not a finite number."""
    incomplete: int = 0
    """Events without a prediction, because they lack a column that the spec says is never null."""
