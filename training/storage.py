"""Files by URI: in a local folder (a path or `file://`) or in an object store (`s3://`, `gs://`, `az://`).

Object stores go through obstore, the client that delta-rs has under the lake, so both take the same settings from the
environment: for S3 `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, and for another server than Amazon's
`AWS_ENDPOINT_URL` (with `AWS_ALLOW_HTTP=true` if that is plain HTTP). A store must know conditional writes
(`If-None-Match: *`): the ledger hangs on them.

Every function raises TransientError when the store does not answer, ConfigError when it refuses us.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.contract.errors import ConfigError, TransientError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

#: How long the client tries by itself before a step is told to come again.
RETRY_TIMEOUT = timedelta(seconds=20)


@dataclass(frozen=True)
class File:
    """One file of a folder. `stamp` changes with its content: the store's ETag, or size and times of a local file."""

    name: str
    stamp: str
    #: When it last changed. Of a local file the inode's change time, which cannot be set back.
    changed: datetime


@dataclass(frozen=True)
class Listing:
    """What is right in a folder, by name."""

    files: list[File]
    #: Names of the folders in it.
    folders: list[str]


def is_remote(uri: str) -> bool:
    """Whether `uri` is in an object store."""
    return "://" in uri and not uri.startswith("file://")


def local(uri: str) -> Path:
    """The path of a local `uri`."""
    return Path(uri.removeprefix("file://"))


def join(uri: str, *parts: str) -> str:
    """The URI of what lies at `parts` under `uri`."""
    return "/".join((uri.rstrip("/"), *parts))


def read(uri: str) -> bytes | None:
    """The content of a file; None when there is none."""
    if not is_remote(uri):
        try:
            return local(uri).read_bytes()
        except FileNotFoundError:
            return None
    with _answering(uri) as (store, path):
        try:
            return bytes(store.get(path).bytes())
        except FileNotFoundError:
            return None


def write(uri: str, content: bytes) -> None:
    """Put `content` at `uri`, whole or not at all, in the place of what is there."""
    if is_remote(uri):
        with _answering(uri) as (store, path):
            store.put(path, content)
        return
    with _written(local(uri), content) as temporary:
        os.replace(temporary, local(uri))


def create(uri: str, content: bytes) -> bool:
    """Put `content` at `uri` unless something is there: then False. Of two writers at once one gets True.

    False may also follow an own write whose answer was lost: read what is there to know.
    """
    if is_remote(uri):
        from obstore.exceptions import AlreadyExistsError

        with _answering(uri) as (store, path):
            try:
                store.put(path, content, mode="create")
            except AlreadyExistsError:
                return False
        return True
    with _written(local(uri), content) as temporary:
        try:
            os.link(temporary, local(uri))
        except FileExistsError:
            return False
    return True


def remove(uri: str) -> None:
    """Delete a file; no error when there is none."""
    if not is_remote(uri):
        local(uri).unlink(missing_ok=True)
        return
    with _answering(uri) as (store, path), contextlib.suppress(FileNotFoundError):
        store.delete(path)


def listing(uri: str) -> Listing:
    """What is right in folder `uri`; nothing when there is no such folder."""
    found = _remote_listing(uri) if is_remote(uri) else _local_listing(local(uri))
    return Listing(sorted(found.files, key=lambda file: file.name), sorted(found.folders))


def files(uri: str) -> list[File]:
    """The files right in folder `uri`, by name; none when there is no such folder."""
    return listing(uri).files


def folders(uri: str) -> list[str]:
    """The names of the folders right in folder `uri`, sorted; none when there is no such folder."""
    if not is_remote(uri):
        try:
            return sorted(entry.name for entry in os.scandir(local(uri)) if entry.is_dir())
        except FileNotFoundError:
            return []
    with _answering(uri) as (store, path):
        found = store.list_with_delimiter(path)["common_prefixes"]
    return sorted(each.rstrip("/").rpartition("/")[2] for each in found)


def upload(folder: Path, uri: str) -> None:
    """Copy a local folder with all that is in it to `uri` in an object store; what has a part there stays."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            write(join(uri, path.relative_to(folder).as_posix()), path.read_bytes())


def download(uri: str, folder: Path) -> None:
    """Copy all that is under `uri` in an object store into a local folder, each file whole or not at all."""
    with _answering(uri) as (store, path):
        found = [each["path"] for batch in store.list(path) for each in batch]
    for name in found:
        relative = name.removeprefix(path).lstrip("/")
        content = read(join(uri, relative))
        if content is not None:  # it may have gone meanwhile
            write(str(folder / relative), content)


def _remote_listing(uri: str) -> Listing:
    found = Listing([], [])
    with _answering(uri) as (store, path):
        result = store.list_with_delimiter(path)
        for each in result["objects"]:
            stamp = each["e_tag"] or f"{each['size']}-{each['last_modified'].isoformat()}"
            found.files.append(File(each["path"].rpartition("/")[2], stamp.strip('"'), each["last_modified"]))
        found.folders.extend(prefix.rstrip("/").rpartition("/")[2] for prefix in result["common_prefixes"])
    return found


def _local_listing(folder: Path) -> Listing:
    found = Listing([], [])
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return found
    for entry in entries:
        try:
            stat = entry.stat()
        except FileNotFoundError:  # replaced or taken away since the folder was read; the next look will tell
            continue
        changed = datetime.fromtimestamp(stat.st_ctime, UTC)
        if entry.is_file():
            found.files.append(File(entry.name, f"{stat.st_size}-{stat.st_mtime_ns}", changed))
        elif entry.is_dir():
            found.folders.append(entry.name)
    return found


@contextlib.contextmanager
def _written(path: Path, content: bytes) -> Iterator[Path]:
    """`content` in a temporary file beside `path`, on disk; what is done with it is on disk afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)  # unless it was renamed
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _answering(uri: str) -> Iterator[tuple["ObjectStore", str]]:
    """The store that holds `uri`, and the path in it. What the store says of itself becomes an error of ours."""
    from obstore.exceptions import BaseError, GenericError, PermissionDeniedError, UnauthenticatedError

    root, path = _split(uri)
    try:
        yield _store(root), path
    except GenericError as error:
        raise TransientError(f"{root} did not answer for {path}: {_first_line(error)}", hint="Retry.") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        hint = "Give this process credentials that may read and write there (AWS_ACCESS_KEY_ID, …)."
        raise ConfigError(f"{root} refuses access to {path}: {_first_line(error)}", hint) from error
    except BaseError as error:
        hint = "Is the URI right, and does the store know conditional writes?"
        raise ConfigError(f"{root} cannot do what is asked of {path}: {_first_line(error)}", hint) from error


def _split(uri: str) -> tuple[str, str]:
    """`s3://bucket/a/b` is `s3://bucket` and `a/b`."""
    scheme, _, rest = uri.partition("://")
    bucket, _, path = rest.partition("/")
    return f"{scheme}://{bucket}", path


@cache
def _store(root: str) -> Any:
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    try:
        return from_url(root, retry_config={"retry_timeout": RETRY_TIMEOUT})
    except (BaseError, ValueError) as error:
        hint = "Known are local paths, s3://, gs:// and az://."
        raise ConfigError(f"{root} is no object store that is known: {_first_line(error)}", hint) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
