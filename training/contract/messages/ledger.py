"""Whether the state is unchanged: the ledger, registered versions, the files of the lake."""

from datetime import datetime

from training.contract.base import Frozen
from training.contract.messages.inputs import ModelInputs, SourceInputs


class LedgerVerifyInputs(ModelInputs):
    """The chain of `model`."""


class LedgerVerifyResult(Frozen):
    entries: int
    """How many entries the model has, all of them as they were written."""
    anchors: int = 0
    """With how many registered versions the chain was compared: each keeps the newest entry of its time."""


class VerifySourceInputs(SourceInputs):
    """The files of the source's tables, and of the predictions of its models."""

    share: bool = False
    """Read those that are due tonight, so that each is read within `retention.verify_nights`. False: read all."""
    now: datetime | None = None
    """The moment whose day, in UTC, is the night. None: now."""


class VerifySourceResult(Frozen):
    files: dict[str, int]
    """Table → how many files were read, each of them as it was written."""


class VerifyModelInputs(ModelInputs):
    """The ledger and the registered versions of `model`."""


class VerifyModelResult(LedgerVerifyResult):
    head: str
    """`<number>:<hash>` of the newest entry of the ledger; empty without one."""
    versions: int
    """How many registered versions were fetched and compared, all of them as they were registered."""
