"""What delta-rs does not tell of the log of a table, `<table>/_delta_log`: that it is lost, and which commit it holds.

A copy can leave out the log. delta-rs then takes the table for one that does not exist yet, and the next write would
make the loss final.
"""

import hashlib
import re
from typing import Final

from training import storage
from training.contract.errors import DataContractError

LOG_FOLDER: Final = "_delta_log"
#: What delta-rs says of a log that it cannot read.
_DAMAGED: Final = re.compile(r"Json error|Expected contiguous commit files|No table metadata or protocol found")
_RESTORE: Final = "restore the table's folder from a backup (docs/operations.md, A part that is older than the others)"


def commit_digest(table: str, version: int) -> str | None:
    """The SHA-256 of the commit that made `version` of the table in folder `table`; None when the log lacks it.

    Commits of the same number have different digests when the table was restored from an older copy in between. Delta
    deletes commits from the log that are older than 30 days.
    """
    content = storage.read(storage.join(table, LOG_FOLDER, f"{version:020d}.json"))
    return None if content is None else hashlib.sha256(content).hexdigest()


def refuse_lost_log(table: str) -> None:
    """Raises DataContractError when the folder `table`, in which there is no log, has files of a table."""
    files = [path for path in storage.tree(table) if not path.startswith(f"{LOG_FOLDER}/")]
    if files:
        hint = f"Stop what writes to it, then {_RESTORE}. To begin with an empty table, move the folder away."
        raise DataContractError(f"{table} has {len(files)} files of a table, and no log of it in {LOG_FOLDER}/", hint)


def refuse_damage(table: str, error: Exception) -> None:
    """Raises DataContractError when `error`, of delta-rs, says that the log of the table cannot be read."""
    if _DAMAGED.search(str(error)):
        said = " ".join(str(error).split())
        problem = f"The log of the table {table} cannot be read: {said:.300}"
        raise DataContractError(problem, f"Stop what writes to it, then {_RESTORE}.") from error
