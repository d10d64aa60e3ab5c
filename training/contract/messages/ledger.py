"""Whether the ledger is whole."""

from training.contract.base import Frozen
from training.contract.messages.inputs import StepInputs


class LedgerVerifyInputs(StepInputs):
    """The chain of `model`."""


class LedgerVerifyResult(Frozen):
    entries: int
    """How many entries the model has, all of them as they were written."""
