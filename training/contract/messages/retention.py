"""Deleting data that is no longer needed."""

from datetime import datetime

from training.contract.base import Frozen
from training.contract.messages.inputs import ModelInputs, SourceInputs


class CleanSourceInputs(SourceInputs):
    dry_run: bool = False
    """Say what would be deleted, and delete nothing."""
    now: datetime | None = None
    """The moment to which ages are counted. None: now. A later one shows, with `dry_run`, what goes by then."""


class CleanModelInputs(ModelInputs):
    dry_run: bool = False
    """As in CleanSourceInputs."""
    now: datetime | None = None
    """As in CleanSourceInputs."""


class CleanResult(Frozen):
    deleted: dict[str, int]
    """What → how many. A table: its files that no kept version has, also those that an earlier run has deleted while
    the table's log still names them. A folder: the files and folders in it. `runs`: those whose artifacts went."""
    compacted: dict[str, int] = {}
    """Table → how many small files of closed days were merged into larger ones."""
    kept_versions: dict[str, int] = {}
    """Table → how many of its versions are kept because registered versions were made of them."""
