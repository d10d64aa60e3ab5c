"""Removing the rows of a person."""

from training.contract.base import Frozen
from training.contract.messages.inputs import SourceInputs


class ForgetInputs(SourceInputs):
    entity: str
    """`<column>=<value>`: a column of the events that holds entities, and the person's value in it."""
    dry_run: bool = False
    """Say what would be removed, and remove nothing."""


class ForgetResult(Frozen):
    """Without the value of the entity."""

    tombstone: str
    """The id of the ledger's entries. Empty for a dry run, and when there was nothing to remove."""
    removed: dict[str, int]
    """Table, or part of the state → rows or files that were removed, or would be."""
    versions: dict[str, list[int]]
    """Model → its registered versions that cannot be made again, because they learned from the person's rows."""
    left: list[str]
    """What still holds the person's rows, and what to do about it, a sentence each."""
