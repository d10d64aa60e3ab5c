"""What delta-rs does not report about a table and its log, `<table>/_delta_log`: that the log is lost, which commit it
holds, and that the newest commit or a file is incomplete.

A copy may lack the log. delta-rs then treats the table as one that does not exist yet, and the next write makes the
loss permanent. After a power cut the newest commit may be empty, and delta-rs reads it silently. Commits and files are
looked at only on a disk: an object store writes whole files.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from training import atomic, storage
from training.contract.errors import DataContractError

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

LOG_FOLDER: Final = "_delta_log"
#: The folder of training/file_digests.py. Delta's vacuum leaves folders alone whose names begin with an underscore.
RECORDS: Final = "_digests"
_COMMIT: Final = re.compile(r"\d{20}\.json")
#: What delta-rs says of a log that it cannot read.
_DAMAGED: Final = re.compile(r"Json error|Expected contiguous commit files|No table metadata or protocol found")
_RESTORE: Final = "restore the table's folder from a backup (docs/operations.md, A part that is older than the others)"


def commit_digest(table: str, version: int) -> str | None:
    """The SHA-256 of the commit that made `version` of the table in folder `table`; None when the log lacks it.

    Commits of the same number have different digests when the table was restored from an older copy in between. Delta
    deletes commits from the log that are older than 30 days.
    """
    content = storage.read(_commit_uri(table, version))
    return None if content is None else hashlib.sha256(content).hexdigest()


def added_files(table: str, version: int) -> list[str]:
    """The files that the commit which made `version` has added, relative to the table's folder; none without it."""
    content = storage.read(_commit_uri(table, version)) or b""
    actions = [json.loads(line) for line in content.splitlines()]
    return [unquote(action["add"]["path"]) for action in actions if "add" in action]


def refuse_lost_log(table: str) -> None:
    """Raises DataContractError when the folder `table`, in which there is no log, has files of a table."""
    files = [path for path in storage.tree(table) if path.split("/")[0] not in (LOG_FOLDER, RECORDS)]
    if files:
        hint = f"Stop what writes to it, then {_RESTORE}. To begin with an empty table, move the folder away."
        raise DataContractError(f"{table} has {len(files)} table files, but no log in {LOG_FOLDER}/", hint)


def refuse_damage(table: str, error: Exception) -> None:
    """Raises DataContractError when `error`, of delta-rs, says that the log of the table cannot be read, and when the
    newest commit is not whole."""
    if not storage.is_remote(table):
        commits = sorted((storage.local(table) / LOG_FOLDER).glob(f"{'[0-9]' * 20}.json"))
        for commit in commits[-1:]:
            _refuse_torn(commit)
    if _DAMAGED.search(str(error)):
        said = " ".join(str(error).split())
        problem = f"The log of the table {table} cannot be read: {said:.300}"
        raise DataContractError(problem, f"Stop what writes to it, then {_RESTORE}.") from error


def refuse_torn_commit(table: str, version: int) -> None:
    """Raises DataContractError when the commit that made `version` is not whole, as after a power cut."""
    if not storage.is_remote(table):
        _refuse_torn(storage.local(_commit_uri(table, version)))


def refuse_lost_files(opened: "DeltaTable", listed: "pa.Table") -> None:
    """Raises DataContractError when one of the files of the opened version, `listed`, is missing or has another
    size."""
    if storage.is_remote(opened.table_uri):
        return
    folder = _folder(opened)
    for path, size in zip(*(listed[name].to_pylist() for name in ("path", "size_bytes")), strict=True):
        file = folder / unquote(path)
        if not file.is_file() or file.stat().st_size != size:
            hint = "Restore it from a backup, or deliver or compute the partition again, which writes another file."
            found = "is missing" if not file.is_file() else f"has {file.stat().st_size} bytes, not {size}"
            raise DataContractError(f"Version {opened.version()} of table {folder} is incomplete: {file} {found}", hint)


def flush_newest(opened: "DeltaTable", since: int | None = None) -> None:
    """Put the newest commit, or all after version `since`, and their files on disk, which delta-rs leaves to the
    operating system.

    A power cut then spares what a step reports as done. An object store does this itself.
    """
    if storage.is_remote(opened.table_uri):
        return
    folder, newest = _folder(opened), opened.version()
    for version in range(newest if since is None else since + 1, newest + 1):
        commit = storage.local(_commit_uri(str(folder), version))
        files = [folder / path for path in added_files(str(folder), version)]
        for path in (*files, *{file.parent for file in files}, commit, commit.parent, folder, folder.parent):
            atomic.flush_one(path)


def _refuse_torn(commit: Path) -> None:
    """delta-rs silently reads a commit that is empty, or was cut off after a line."""
    try:
        content = commit.read_text()
        actions = [json.loads(line) for line in content.splitlines()]
        added = sum("add" in action for action in actions)
        metrics = [each["commitInfo"].get("operationMetrics") or {} for each in actions if "commitInfo" in each]
        wanted = [int(each["num_added_files"]) for each in metrics if "num_added_files" in each] or [added]
        if actions and wanted == [added]:
            return
        why = f"names {added} of {wanted[0]} files" if actions else "is empty"
    except FileNotFoundError:
        return  # An old one, whose content is in a checkpoint.
    except ValueError as error:
        why = f"cannot be read: {error}"
    hint = (
        "The machine lost power, or its disk is damaged. No step has reported this commit as done: move the file away "
        "and run the step again that wrote it."
    )
    raise DataContractError(f"The last commit of {commit.parents[1]} is incomplete: {commit} {why}", hint)


def commit_path(version: int) -> str:
    """The file of the commit that made `version`, relative to the table's folder."""
    return f"{LOG_FOLDER}/{version:020d}.json"


def commits(table: str) -> list[str]:
    """The files of the commits that the log has, relative to the table's folder."""
    found = storage.files(storage.join(table, LOG_FOLDER))
    return [f"{LOG_FOLDER}/{file.name}" for file in found if _COMMIT.fullmatch(file.name)]


def _commit_uri(table: str, version: int) -> str:
    return storage.join(table, commit_path(version))


def folder_of(opened: "DeltaTable") -> str:
    """The folder or URI of a table, as training/storage.py takes it: delta-rs names a space `%20`."""
    remote = storage.is_remote(opened.table_uri)
    return unquote(opened.table_uri).rstrip("/") if remote else str(_folder(opened))


def _folder(opened: "DeltaTable") -> Path:
    """Where a local table is. delta-rs names it by a URL, in which a space is `%20`."""
    return Path(unquote(urlsplit(opened.table_uri).path))
