"""Whether the ledger is whole."""

from training.contract.base import Frozen
from training.contract.messages.inputs import ModelInputs


class LedgerVerifyInputs(ModelInputs):
    """The chain of `model`."""


class LedgerVerifyResult(Frozen):
    entries: int
    """How many entries the model has, all of them as they were written."""
    anchors: int = 0
    """With how many registered versions the chain was compared: each keeps the newest entry of its time."""
