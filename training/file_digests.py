"""The SHA-256 of each file of a table, so that a file that was changed afterwards is found: `<table>/_digests/`.

delta-rs names files and sizes, and never looks at their bytes again. So what a commit has added is recorded right after
it, and the commit itself, which says which files there are: one JSON file for each commit, path → SHA-256. Files
without a record are recorded when they are first looked at: of tables from before there were records, of streams, and
of a commit whose writer died just after it.

A record says what was written, if nobody changed it together with the file. So the recipe of a model has the digest of
all that its table versions consist of (`version_digest`), and is signed.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping

from training import storage
from training.contract.errors import DataContractError
from training.delta_log import RECORDS, added_files, commit_path

log = logging.getLogger("perennial")


def record_commit(table: str, version: int) -> None:
    """Record the commit that made `version`, and the files that it has added. A second call changes nothing."""
    found = _digests(table, [*added_files(table, version), commit_path(version)])
    if found:
        # Never written again: the files may have been changed by then.
        storage.create(storage.join(table, RECORDS, f"{version:020d}.json"), json.dumps(found, indent=1).encode())


def recorded(table: str) -> dict[str, str]:
    """Path in the table's folder → SHA-256, of all files that have a record.

    Raises DataContractError when a record cannot be read.
    """
    found: dict[str, str] = {}
    folder = storage.join(table, RECORDS)
    for file in storage.files(folder):
        uri = storage.join(folder, file.name)
        try:
            # The first record of a path counts: files are written once.
            found = {str(path): str(digest) for path, digest in json.loads(storage.read(uri) or b"{}").items()} | found
        except (ValueError, AttributeError) as error:
            hint = "Restore it from a backup. Without it, `make verify` records the files as they are now."
            raise DataContractError(f"The record {uri} cannot be read: {error}", hint) from error
    return found


def record_missing(table: str, paths: Iterable[str]) -> dict[str, str]:
    """Record those of `paths` that have no record, as they are now. Returns the records of the table."""
    known = recorded(table)
    found = _digests(table, sorted(set(paths) - known.keys()))
    if found:
        content = json.dumps(found, indent=1).encode()
        name = f"first-seen-{hashlib.sha256(content).hexdigest()[:16]}.json"
        storage.write(storage.join(table, RECORDS, name), content)
        log.info("%s: recorded %d files that had no record", table, len(found))
    return known | found


def problems(table: str, paths: Iterable[str]) -> dict[str, str]:
    """Path → a sentence, of each of these files that is missing or was changed. Reads every file."""
    wanted = sorted(set(paths))
    known, found = record_missing(table, wanted), dict[str, str]()
    for path in wanted:
        uri, digest = storage.join(table, path), _digest(table, path)
        if digest is None:
            found[path] = f"{uri} is missing"
        elif digest != known[path]:
            found[path] = f"{uri} was changed: its SHA-256 is {digest}, it was written with {known[path]}"
    return found


def version_digest(table: str, paths: Iterable[str]) -> str:
    """The digest of the names and recorded digests of these files: all that a version of the table consists of."""
    wanted = sorted(set(paths))
    return digest_of(record_missing(table, wanted), wanted)


def digest_of(known: Mapping[str, str], paths: Iterable[str]) -> str:
    """As `version_digest`, of records that were read before. A path without a record counts as such."""
    lines = [f"{known.get(path, 'no record')}  {path}\n" for path in sorted(paths)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _digests(table: str, paths: Iterable[str]) -> dict[str, str]:
    """Path → its SHA-256, of those of these files that are there."""
    return {path: digest for path in paths if (digest := _digest(table, path)) is not None}


def _digest(table: str, path: str) -> str | None:
    """The SHA-256 of a file in the table's folder; None when it is missing."""
    uri = storage.join(table, path)
    if storage.is_remote(uri):
        content = storage.read(uri)
        return None if content is None else hashlib.sha256(content).hexdigest()
    try:
        with storage.local(uri).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
