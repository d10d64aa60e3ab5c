"""Training a registered version again, to prove what it was made of."""

from typing import Literal

from pydantic import Field

from training.contract.base import Frozen
from training.contract.messages.inputs import Metrics, ModelInputs


class ReproduceInputs(ModelInputs):
    version: int | None = Field(None, ge=1)
    """None: the champion."""


class Made(Frozen):
    """What came out of a fit."""

    dataset_id: str
    digest: str
    """SHA-256 of model.onnx."""
    metrics: Metrics
    """On the holdout."""


class ReproduceResult(Frozen):
    version: int
    outcome: Literal["same", "different", "impossible"]
    """`impossible`: something that the version was made of is gone, `differences` says what."""
    differences: list[str]
    """What of the model made now differs from the version, a sentence each."""
    causes: list[str]
    """What has changed since the version was made and may explain it, a sentence each. Also when the outcome is `same`:
    then it did not matter."""
    before: Made
    now: Made | None
    """None when the outcome is `impossible`."""
    tolerance: float
    """By how much a metric may differ. 0 for a model fitted on a CPU: then the bytes of model.onnx must be the same."""
