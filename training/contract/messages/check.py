"""What the check of a source's files says when it finds nothing; mistakes end the step with an error."""

from typing import Literal

from training.contract.base import Frozen
from training.contract.messages.inputs import SourceInputs


class CheckInputs(SourceInputs):
    pass


class CheckResult(Frozen):
    outcome: Literal["passed", "unchanged"]
    """`unchanged`: these files have passed before, and were not looked at again."""
    digest: str
    """SHA-256 of the files and the code that read them, first 16 hex digits."""
