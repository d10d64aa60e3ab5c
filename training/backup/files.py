"""Copies files between folders and object stores, with the SHA-256 of what was copied."""

import hashlib
from pathlib import Path

from training import atomic, storage
from training.adapters.databases import copy_sqlite, is_sqlite
from training.backup.manifest import FileRecord

_CHUNK = 1 << 20


def copy(source: str, target: str, live: bool = False) -> FileRecord | None:
    """Copy one file, whole or not at all. None when `source` is gone.

    `live`: others may write to it, so an SQLite database is copied by SQLite. That changes bytes of its header.
    """
    if storage.is_remote(source) or storage.is_remote(target):
        content = storage.read(source)
        if content is None:
            return None
        storage.write(target, content)
        return _record_of(content)
    path = storage.local(source)
    try:
        with atomic.replacing(storage.local(target)) as draft:
            if live and is_sqlite(path):
                copy_sqlite(path, draft)
            else:
                _stream(path, draft)
    except FileNotFoundError:
        return None
    return record(target)


def record(uri: str) -> FileRecord | None:
    """Size and digest of a file; None when there is none."""
    if storage.is_remote(uri):
        content = storage.read(uri)
        return None if content is None else _record_of(content)
    found, size = hashlib.sha256(), 0
    try:
        with storage.local(uri).open("rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
                size += len(chunk)
    except FileNotFoundError:
        return None
    return FileRecord(size=size, sha256=found.hexdigest())


def is_draft(path: str) -> bool:
    """Whether a file below a folder is hidden, or in a hidden folder: it is being written."""
    return any(name.startswith(".") for name in path.split("/"))


def _record_of(content: bytes) -> FileRecord:
    return FileRecord(size=len(content), sha256=hashlib.sha256(content).hexdigest())


def _stream(source: Path, target: Path) -> None:
    with source.open("rb") as content, target.open("wb") as draft:
        while chunk := content.read(_CHUNK):
            draft.write(chunk)
