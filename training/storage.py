"""Files by URI: in a local folder (a path or `file://`) or in an object store (`s3://`, `gs://`, `az://`).

Object stores are read and written through obstore, the client inside delta-rs, so both take the same settings from the
environment: for S3 `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, and for a server that is not
Amazon's `AWS_ENDPOINT_URL` (with `AWS_ALLOW_HTTP=true` for plain HTTP). training/object_store.py has the rest. The
store must support conditional writes (`If-None-Match: *`), because the ledger relies on them.

Every function raises TransientError when the store does not answer and ConfigError when it refuses access.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from training import atomic, object_store
from training.contract.errors import ConfigError, TransientError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class File:
    """One file of a folder. `stamp` changes with the content: the store's ETag, or size and time of a local file."""

    name: str
    stamp: str
    #: When it last changed. For a local file this is the inode's change time, which nobody can set.
    changed: datetime


@dataclass(frozen=True)
class Listing:
    """The files and folders directly in a folder, sorted by name."""

    files: list[File]
    #: Names of the folders.
    folders: list[str]


def is_remote(uri: str) -> bool:
    """Whether `uri` is in an object store."""
    return "://" in uri and not uri.startswith("file://")


def local(uri: str) -> Path:
    """The path of a local `uri`."""
    return Path(uri.removeprefix("file://"))


def join(uri: str, *parts: str) -> str:
    """Append `parts` to the path of `uri`."""
    return "/".join((uri.rstrip("/"), *parts))


def lies_in(uri: str, folder: str) -> bool:
    """Whether `uri` names something below `folder`, and nothing in it leads out: no `..`, also percent-encoded, which
    some clients decode, and locally no link.

    The scheme must be spelled as that of `folder`.
    """
    if is_remote(uri) != is_remote(folder):
        return False
    if is_remote(uri):
        root = folder.rstrip("/") + "/"
        parts = re.split(r"[/\\]", _decoded(uri.removeprefix(root)))
        return uri.startswith(root) and not {"", ".", ".."} & set(parts)
    try:
        within, paths = local(folder).resolve(), [local(each).resolve() for each in (uri, _decoded(uri))]
    except (OSError, RuntimeError, ValueError):  # A circle of links, or a character that no path has.
        return False
    return all(within in path.parents for path in paths)


def _decoded(text: str) -> str:
    """`text` without percent-encoding, also where it was encoded several times."""
    while (decoded := unquote(text)) != text:
        text = decoded
    return text


def read(uri: str) -> bytes | None:
    """The content of a file; None when there is none."""
    if not is_remote(uri):
        try:
            return local(uri).read_bytes()
        except FileNotFoundError:
            return None
    with _contract_errors(uri) as (store, path):
        try:
            return bytes(store.get(path).bytes())
        except FileNotFoundError:
            return None


def size(uri: str) -> int | None:
    """The bytes of a file, without reading it; None when there is none, or a folder."""
    if not is_remote(uri):
        return local(uri).stat().st_size if local(uri).is_file() else None
    with _contract_errors(uri) as (store, path):
        try:
            return int(store.head(path)["size"])
        except FileNotFoundError:
            return None


def as_local(uri: str, copy: Path) -> Path | None:
    """A file with the content of `uri` on this machine: the file itself, or `copy`, to which it is downloaded from an
    object store. None when there is no such file."""
    if not is_remote(uri):
        return local(uri) if local(uri).is_file() else None
    with _contract_errors(uri) as (store, path):
        try:
            content = store.get(path).stream(min_chunk_size=1 << 20)
        except FileNotFoundError:
            return None
        with copy.open("wb") as file:
            for block in content:
                file.write(block)
    return copy


def write(uri: str, content: bytes) -> None:
    """Write `content` to `uri` atomically. Replaces a file that exists."""
    if is_remote(uri):
        with _contract_errors(uri) as (store, path):
            store.put(path, content)
        return
    atomic.write(local(uri), content)


def create(uri: str, content: bytes) -> bool:
    """Write `content` to `uri` unless it exists. Returns whether it was written. Only one of two writers gets True.

    When the response to a write is lost, the retry returns False although the write succeeded. Read the content to be
    sure.
    """
    if not is_remote(uri):
        return atomic.create(local(uri), content)
    from obstore.exceptions import AlreadyExistsError

    with _contract_errors(uri) as (store, path):
        try:
            store.put(path, content, mode="create")
        except AlreadyExistsError:
            return False
    return True


def remove(uri: str) -> None:
    """Delete a file; no error when there is none."""
    if not is_remote(uri):
        local(uri).unlink(missing_ok=True)
        return
    with _contract_errors(uri) as (store, path), contextlib.suppress(FileNotFoundError):
        store.delete(path)


def listing(uri: str) -> Listing:
    """The files and folders directly in `uri`; empty when there is no such folder."""
    found = _remote_listing(uri) if is_remote(uri) else _local_listing(local(uri))
    return Listing(sorted(found.files, key=lambda file: file.name), sorted(found.folders))


def files(uri: str) -> list[File]:
    """The files directly in folder `uri`, by name; none when there is no such folder."""
    return listing(uri).files


class Tree:
    """The folders below a folder down to a depth, read at once: an object store is asked for all of them together.

    `listing` and `files` answer as the functions of these names would have done then, also with the errors.
    """

    def __init__(self, uri: str, depth: int) -> None:
        self._found: dict[str, Listing | Exception] = {}
        if is_remote(uri):
            self._read_remote(uri, depth)
        else:
            self._read_local(uri, depth)

    def listing(self, uri: str) -> Listing:
        found = self._found.get(uri.rstrip("/"), Listing([], []))
        if isinstance(found, Exception):
            raise found
        return found

    def files(self, uri: str) -> list[File]:
        return self.listing(uri).files

    def _read_local(self, uri: str, depth: int) -> None:
        try:
            found = self._found[uri.rstrip("/")] = listing(uri)
        except Exception as error:
            self._found[uri.rstrip("/")] = error
            return
        for name in found.folders if depth else ():
            self._read_local(join(uri, name), depth - 1)

    def _read_remote(self, uri: str, depth: int) -> None:
        with _contract_errors(uri) as (store, path):
            objects = [each for page in store.list(path) for each in page]
        for each in objects:
            *folders, name = each["path"].removeprefix(path).strip("/").split("/")
            for number, folder in enumerate(folders[: depth + 1]):
                above = self._folder(uri, folders[:number]).folders
                if folder not in above:
                    above.append(folder)
            if len(folders) <= depth:
                self._folder(uri, folders).files.append(_remote_file(each, name))
        for found in self._found.values():
            assert isinstance(found, Listing)
            found.files.sort(key=lambda file: file.name)
            found.folders.sort()

    def _folder(self, uri: str, parts: list[str]) -> Listing:
        found = self._found.setdefault(join(uri, *parts).rstrip("/"), Listing([], []))
        assert isinstance(found, Listing)
        return found


def folders(uri: str) -> list[str]:
    """The names of the folders directly in folder `uri`, sorted; none when there is no such folder."""
    if not is_remote(uri):
        try:
            return sorted(entry.name for entry in os.scandir(local(uri)) if entry.is_dir())
        except FileNotFoundError:
            return []
    with _contract_errors(uri) as (store, path):
        found = store.list_with_delimiter(path)["common_prefixes"]
    return sorted(each.rstrip("/").rpartition("/")[2] for each in found)


def tree(uri: str) -> list[str]:
    """The paths of all files below folder `uri`, relative to it and sorted; none when there is no such folder."""
    if not is_remote(uri):
        root = local(uri)
        return sorted(Path(at, name).relative_to(root).as_posix() for at, _, names in os.walk(root) for name in names)
    with _contract_errors(uri) as (store, path):
        prefix = f"{path.rstrip('/')}/" if path else ""
        return sorted(each["path"].removeprefix(prefix) for page in store.list(prefix or None) for each in page)


def last_change(uri: str) -> datetime:
    """When the newest of all files below folder `uri` changed (as File.changed); long ago when there are none."""
    if not is_remote(uri):
        paths = (Path(at, name) for at, _, names in os.walk(local(uri)) for name in names)
        times = [path.lstat().st_ctime for path in paths]
        return datetime.fromtimestamp(max(times), UTC) if times else _LONG_AGO
    with _contract_errors(uri) as (store, path):
        listed = (each["last_modified"] for page in store.list(f"{path.rstrip('/')}/") for each in page)
        return max(listed, default=_LONG_AGO)


def upload(folder: Path, uri: str) -> None:
    """Copy all files of a local folder to `uri` in an object store. Other files there are kept."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            write(join(uri, path.relative_to(folder).as_posix()), path.read_bytes())


def move(source: str, target: str) -> None:
    """Move the folder `source` to `target`, both local or in one object store. Nothing may write to either meanwhile.

    Local: one rename. In an object store every file is copied, and then every file of `source` is deleted. It can be
    killed anywhere and called again: it continues. Raises ConfigError when a local `target` exists.
    """
    if not is_remote(source):
        if local(target).exists():
            raise ConfigError(f"{target} exists, so {source} cannot be moved there", "Merge the two by hand.")
        local(target).parent.mkdir(parents=True, exist_ok=True)
        local(source).rename(local(target))
        return
    with _contract_errors(source) as (store, path):
        prefix, to = path.rstrip("/"), _split(target)[1].rstrip("/")
        paths = [each["path"] for batch in store.list(f"{prefix}/") for each in batch]
        for each in paths:
            store.copy(each, f"{to}/{each.removeprefix(prefix).lstrip('/')}")
        for each in paths:
            store.delete(each)


def remove_folder(uri: str) -> None:
    """Delete the folder `uri` and everything in it; no error when there is none. It can be killed and called again."""
    if not is_remote(uri):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(local(uri))
        return
    with _contract_errors(uri) as (store, path):
        for each in [each["path"] for batch in store.list(f"{path.rstrip('/')}/") for each in batch]:
            store.delete(each)


def _remote_listing(uri: str) -> Listing:
    found = Listing([], [])
    with _contract_errors(uri) as (store, path):
        result = store.list_with_delimiter(path)
        found.files.extend(_remote_file(each, each["path"].rpartition("/")[2]) for each in result["objects"])
        found.folders.extend(prefix.rstrip("/").rpartition("/")[2] for prefix in result["common_prefixes"])
    return found


def _remote_file(found: Any, name: str) -> File:
    stamp = found["e_tag"] or f"{found['size']}-{found['last_modified'].isoformat()}"
    return File(name, stamp.strip('"'), found["last_modified"])


def _local_listing(folder: Path) -> Listing:
    found = Listing([], [])
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return found
    for entry in entries:
        try:
            stat = entry.stat()
        except FileNotFoundError:  # Replaced or deleted after scandir. The next listing has the new file.
            continue
        changed = datetime.fromtimestamp(stat.st_ctime, UTC)
        if entry.is_file():
            found.files.append(File(entry.name, f"{stat.st_size}-{stat.st_mtime_ns}", changed))
        elif entry.is_dir():
            found.folders.append(entry.name)
    return found


@contextlib.contextmanager
def _contract_errors(uri: str) -> Iterator[tuple["ObjectStore", str]]:
    """The store of `uri` and the path in it. Turns errors of the store into errors of the step contract."""
    from obstore.exceptions import BaseError, GenericError, PermissionDeniedError, UnauthenticatedError

    root, path = _split(uri)
    try:
        yield _store(root), path
    except GenericError as error:
        raise TransientError(
            f"{root} did not answer for {path}: {_first_line(error)}", hint="Check the store, then retry."
        ) from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        problem = f"{root} refuses access to {path}: {_first_line(error)}"
        raise ConfigError(problem, object_store.KEYS_HINT) from error
    except BaseError as error:
        hint = "Check that the URI is right and that the store supports conditional writes."
        raise ConfigError(f"{root} failed for {path}: {_first_line(error)}", hint) from error


def _split(uri: str) -> tuple[str, str]:
    """Split `s3://bucket/a/b` into `s3://bucket` and `a/b`."""
    scheme, _, rest = uri.partition("://")
    bucket, _, path = rest.partition("/")
    return f"{scheme}://{bucket}", path


@cache
def _store(root: str) -> Any:
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    try:
        retries: Any = {"retry_timeout": object_store.RETRY_TIMEOUT}
        given: Any = object_store.client_options(root)
        return from_url(root, config=given, retry_config=retries) if given else from_url(root, retry_config=retries)
    except (BaseError, ValueError) as error:
        problem = f"{root} is not a supported object store: {_first_line(error)}"
        raise ConfigError(problem, object_store.SCHEMES_HINT) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
