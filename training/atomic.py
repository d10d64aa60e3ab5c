"""Write a local file or folder whole or not at all: first beside its place, then by a rename.

A reader sees the old content or the new one, never a part. A process that is killed leaves at most a hidden file or
folder whose name begins with a dot.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write a file or a folder at. When the block ends, what is there takes the place of `path`.

    When the block raises, `path` stays as it was. An old folder is deleted just before the new one takes its place.
    Raises OSError when a file would replace a folder.
    """
    with _beside(path) as draft:
        yield draft
        flush(draft)
        if draft.is_dir():
            shutil.rmtree(path, ignore_errors=True)  # Another process may replace it, too.
        os.replace(draft, path)
    flush_one(path.parent)


def write(path: Path, content: bytes) -> None:
    """Make `content` the content of the file `path`."""
    with replacing(path) as draft:
        draft.write_bytes(content)


def create(path: Path, content: bytes) -> bool:
    """As `write`, unless there is a file: then False. Of two writers at once one gets True."""
    with _beside(path) as draft:
        draft.write_bytes(content)
        flush_one(draft)
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
    flush_one(path.parent)
    return True


def flush(path: Path) -> None:
    """Put a file, or a folder with everything in it, on disk: after a power cut it is there whole."""
    for below in path.rglob("*") if path.is_dir() else ():
        flush_one(below)
    flush_one(path)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        yield draft
    finally:
        if draft.is_dir():
            shutil.rmtree(draft)
        else:
            draft.unlink(missing_ok=True)  # A rename has taken it away.


def flush_one(path: Path) -> None:
    """Put the content of a file, or the names in a folder, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
