"""Read landed files and folders of part files: hash them, and give their rows in batches.

A file may be larger than the memory. Its pages are decoded a few rows at a time, also those of one large row group, and
each piece within a limit of memory, because footers can lie. The rows can be read several times, also a few row groups
of them by another process that sees the files (`Share`).
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from training import object_store, storage
from training.contract.errors import DataContractError, InputError, TransientError
from training.contract.names import more_than_once
from training.domain.conform import FILE_TYPE
from training.domain.parquet_size import declared_bytes
from training.memory_limit import memory_limit

#: A batch has about so many bytes in memory, and at most so many rows. Great Expectations copies it several times.
BATCH_BYTES, BATCH_ROWS = 10 << 20, 250_000
#: So many bytes, as the footer declares them, are decoded together, and at most so many rows; where that takes more
#: memory than allowed, so few rows.
_PIECE_BYTES, _PIECE_ROWS, _FEW_ROWS = 4 << 20, 65_536, 64
#: What the decoding of a piece may take. Buffers grow by doubling, and threads and decompression take some, too.
_DECODING = 384 << 20
#: Larger rows than this, uncompressed, must not be more than so many times the content of the file.
_COMPRESSIBLE_BYTES, _MAXIMUM_RATIO = 1 << 30, 200
_READ_BYTES = 1 << 20
#: A share has row groups of about so many bytes, as the footer declares them, or one larger row group.
_SHARE_BYTES = 32 << 20


class _Part(NamedTuple):
    """An open file. What is read is what was hashed, also when another file takes its name meanwhile."""

    uri: str
    file: pa.NativeFile
    #: Of a file on this machine; None for one that is read from an object store.
    path: Path | None
    stat: os.stat_result | None

    @property
    def overwritten(self) -> bool:
        """Whether it was written to since it was opened; a new file under its name does not count."""
        if self.path is None or self.stat is None:
            return False
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return False
        before = (self.stat.st_ino, self.stat.st_size, self.stat.st_mtime_ns)
        return now.st_ino == before[0] and (now.st_ino, now.st_size, now.st_mtime_ns) != before

    def stamp(self) -> str:
        """A hash of its size and its footer, which has the place, the size and the bounds of each column."""
        size = self.file.size()
        tail = self.file.read_at(8, size - 8)
        footer = int.from_bytes(tail[:4], "little")
        return hashlib.sha256(b"%d " % size + self.file.read_at(footer + 8, size - footer - 8)).hexdigest()


class Share(NamedTuple):
    """Consecutive row groups of a part file, for another process to read."""

    #: The part file: an absolute path, or its URI in an object store.
    uri: str
    #: Tells the file from another one that has its name now.
    stamp: str
    groups: range
    #: The number that its first row has among the rows of all part files.
    first: int


class Landed:
    """A landed file, or the part files of a folder in the order of their names. `sha256` is that of all, in hex.

    All methods raise DataContractError when it is not a complete Parquet file, when two of its columns have one name,
    or when the rows take more than `maximum_bytes` uncompressed; TransientError when it was written to meanwhile.
    """

    def __init__(self, uri: str, parts: list[_Part], maximum_bytes: int, schema: pa.Schema | None = None) -> None:
        self.uri, self._parts, self._maximum, self._schema = uri, parts, maximum_bytes, schema
        self.size = sum(part.file.size() for part in parts)
        self._files: list[pq.ParquetFile] | None = None
        #: Whether all rows were read once, so that their size is known to be allowed.
        self._measured = False

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for part in self._parts:
            part.file.seek(0)
            while block := part.file.read_buffer(_READ_BYTES):
                digest.update(block)
        return digest.hexdigest()

    def rows(self) -> int:
        """How many rows the file declares."""
        return sum(file.metadata.num_rows for file in self._opened())

    def schema(self) -> pa.Schema:
        """The columns. The metadata of a field marks columns of Parquet's type INT96, which are timestamps in Arrow.

        Those in a file that Spark wrote are not marked, because they are in UTC.
        """
        return _marked_schema(self._opened()[0]) if self._schema is None else self._schema

    def shares(self) -> list[Share]:
        """All row groups, in order, a few together."""
        found, row = [], 0
        for part, file in zip(self._parts, self._opened(), strict=True):
            stamp, start, first, size = part.stamp(), 0, row, 0
            for number in range(count := file.metadata.num_row_groups):
                group = file.metadata.row_group(number)
                row, size = row + group.num_rows, size + group.total_byte_size
                if size >= _SHARE_BYTES or number + 1 == count:
                    found.append(Share(part.uri, stamp, range(start, number + 1), first))
                    start, first, size = number + 1, row, 0
        return found

    def batches(self, share: Share | None = None) -> Iterator[pa.Table]:
        """All rows, or those of `share`, in order, in tables of `schema`. A file without rows gives one table."""
        held: list[pa.RecordBatch] = []
        size, total, given, schema = 0, 0, False, self.schema()
        for part, file in zip(self._parts, self._opened(), strict=True):
            if share is not None and share.uri != part.uri:
                continue
            for piece in self._pieces(file, range(file.metadata.num_row_groups) if share is None else share.groups):
                size, total = size + piece.nbytes, total + piece.nbytes
                if total > self._maximum and not self._measured:
                    raise self._too_large(f"its rows take more than {total:,} bytes of memory")
                held.append(piece)
                if size >= BATCH_BYTES or sum(each.num_rows for each in held) >= BATCH_ROWS:
                    yield _table(held, schema)
                    held, size, given = [], 0, True
        if held or not given:
            yield _table(held, schema)
        self._measured = self._measured or share is None
        if changed := next((part.path for part in self._parts if part.overwritten), None):
            raise TransientError(f"{changed} was written to while it was read", "Retry when its writer has finished.")

    def _pieces(self, file: pq.ParquetFile, groups: range) -> Iterator[pa.RecordBatch]:
        for number in groups:
            group, done = file.metadata.row_group(number), 0
            each = max(group.total_byte_size, 1) / max(group.num_rows, 1)
            rows = min(_PIECE_ROWS, max(_FEW_ROWS, int(_PIECE_BYTES / each)))
            while done < group.num_rows:
                try:
                    for piece in self._decoded(file, number, rows, done):
                        done += piece.num_rows
                        yield piece
                    if done < group.num_rows:
                        raise self._unreadable(f"row group {number} has {done:,} of {group.num_rows:,} rows")
                except MemoryError as error:
                    if rows == _FEW_ROWS:
                        raise self._too_large("its rows take more memory than it declares") from error
                    rows = _FEW_ROWS

    def _decoded(self, file: pq.ParquetFile, group: int, rows: int, skip: int) -> Iterator[pa.RecordBatch]:
        """The rows of a row group after the first `skip`, `rows` at a time. Raises MemoryError if they are too many."""
        with self._readable():
            found = file.iter_batches(rows, row_groups=[group])
        while True:
            with self._readable(), memory_limit(_DECODING):
                piece = next(found, None)
            if piece is None:
                return
            if skip < piece.num_rows:
                yield piece.slice(skip)
            skip = max(0, skip - piece.num_rows)

    def _opened(self) -> list[pq.ParquetFile]:
        if self._files is None:
            with self._readable():
                try:
                    with memory_limit(_DECODING):
                        files = [_parquet_file(part.file) for part in self._parts]
                        declared = sum(declared_bytes(file.metadata) for file in files)
                except MemoryError as error:
                    raise self._too_large("its footer takes more memory than a footer may") from error
                self._check(files, declared)
            self._files = files
        return self._files

    def _check(self, files: list[pq.ParquetFile], declared: int) -> None:
        if declared > self._maximum:
            raise self._too_large(f"it declares rows of {declared:,} bytes")
        if declared > max(_COMPRESSIBLE_BYTES, _MAXIMUM_RATIO * self.size):
            problem = f"{self.uri} ({self.size:,} bytes) declares rows of {declared:,} bytes"
            hint = (
                f"Above {_COMPRESSIBLE_BYTES:,} bytes rows may be {_MAXIMUM_RATIO} times the file. Deliver fewer days."
            )
            raise DataContractError(problem, hint)
        for file in files:
            names = file.schema_arrow.names
            if repeated := sorted(more_than_once(names)):
                problem = f"{self.uri} has several columns with the name {', '.join(repeated)}"
                hint = "Correct the file and deliver it again."
                raise DataContractError(f"{problem}; all its columns: {', '.join(names)}", hint)
        first, *others = (file.schema_arrow for file in files)
        for part, schema in zip(self._parts[1:], others, strict=True):
            if not schema.equals(first):
                problem = f"{part.uri} differs from the first part file: {_difference(schema, first)}"
                raise DataContractError(problem, "Write all part files with the same columns, in one order and type.")

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, MemoryError):
                raise
            raise self._unreadable(str(error)) from error

    def _unreadable(self, why: str) -> DataContractError:
        hint = "Deliver it again as Parquet. Write it under a temporary name and rename it when it is complete."
        return DataContractError(f"{self.uri} ({self.size:,} bytes) is not a readable Parquet file: {why}", hint)

    def _too_large(self, why: str) -> DataContractError:
        return _too_large(self.uri, self.size, why, self._maximum)


def _table(pieces: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    if not pieces:
        return schema.empty_table()
    return pa.Table.from_arrays(pa.Table.from_batches(pieces).columns, schema=schema)


def _too_large(uri: str, size: int, why: str, maximum: int) -> DataContractError:
    problem = f"{uri} ({size:,} bytes) is too large: {why}, and CT_LANDED_MAXIMUM_BYTES allows {maximum:,}"
    hint = "Deliver fewer days in one file. If the file is right, raise that setting."
    return DataContractError(problem, hint)


def _difference(schema: pa.Schema, first: pa.Schema) -> str:
    more, fewer = sorted(set(schema.names) - set(first.names)), sorted(set(first.names) - set(schema.names))
    if more or fewer:
        return "; ".join([*(f"only it has {name}" for name in more), *(f"it lacks {name}" for name in fewer)])
    other = [name for name in first.names if schema.field(name) != first.field(name)]
    types = [f"its {name} is {_kind(schema.field(name))}, not {_kind(first.field(name))}" for name in other]
    return "; ".join(types) or "its columns have another order"


def _kind(field: pa.Field) -> str:
    return f"{field.type}{'' if field.nullable else ' that is never null'}"


def _parquet_file(source: pa.NativeFile) -> pq.ParquetFile:
    return pq.ParquetFile(
        source,
        # Read pages as they are needed, not the columns of a whole row group.
        buffer_size=_READ_BYTES,
        pre_buffer=False,
        # Arrow's default is nanoseconds, in which the year 9999 silently becomes 1816.
        coerce_int96_timestamp_unit="us",
        page_checksum_verification=True,
    )


def _in_utc(metadata: dict[bytes, bytes]) -> bool:
    """Whether the INT96 columns of a file with this metadata are in UTC and in today's calendar.

    Hive and Impala write local time; both leave no trace. Spark names its version, and its old calendar if it used it.
    """
    return b"org.apache.spark.version" in metadata and b"org.apache.spark.legacyINT96" not in metadata


def _int96(schema: pq.ParquetSchema) -> set[str]:
    """The names of the columns of type INT96. Nested columns do not matter."""
    leaves = [schema.column(at) for at in range(len(schema))]
    return {leaf.path for leaf in leaves if leaf.physical_type == "INT96"}


def _marked_schema(file: pq.ParquetFile) -> pa.Schema:
    """The file's schema with a description of its type in the metadata of each INT96 column. `conform` uses it."""
    int96 = set() if _in_utc(file.metadata.metadata or {}) else _int96(file.schema)
    metadata = {FILE_TYPE: b"INT96, a deprecated timestamp without a zone, which is UTC from some writers only"}
    return pa.schema(
        [each.with_metadata(metadata) if each.name in int96 else each.remove_metadata() for each in file.schema_arrow]
    )


@contextlib.contextmanager
def open_landed(uri: str, maximum_bytes: int, scratch: Path) -> Iterator[Landed]:
    """The file at `uri`, or the part files of the folder there. Those in an object store are copied to `scratch`.

    Raises InputError when there is neither, or the folder is not complete or has a link out of it; DataContractError
    when there are more than `maximum_bytes`; TransientError when the store does not answer.
    """
    with contextlib.ExitStack() as stack:
        try:
            found = storage.size(uri)
            uris = _part_uris(uri) if found is None else [uri]
            sizes = [storage.size(each) or 0 for each in uris]
            if sum(sizes) > maximum_bytes:
                why = "its content alone is larger than its rows may be"
                raise _too_large(uri, sum(sizes), why, maximum_bytes)
            copies = [scratch / f"landed-{number}" for number in range(len(uris))]
            paths = [storage.as_local(each, copy) for each, copy in zip(uris, copies, strict=True)]
            found_paths = [(each, path) for each, path in zip(uris, paths, strict=True) if path is not None]
            parts = [_open_part(each, path, stack) for each, path in found_paths]
            missing = len(parts) < len(uris) or not parts
            landed = None if missing else Landed(uri, parts, maximum_bytes)
        except FileNotFoundError as error:
            raise InputError(f"{uri}: {error.filename} was deleted while it was read", "Deliver it again.") from error
        except OSError as error:
            raise TransientError(
                f"Cannot read {uri}: {error}", "Check that the store is running, then retry."
            ) from error
        if landed is None:
            raise InputError(f"{uri} has no part files, or one was deleted while it was read", "Deliver it again.")
        yield landed


@contextlib.contextmanager
def open_share(share: Share, schema: pa.Schema, maximum_bytes: int) -> Iterator[Landed]:
    """The part file of `share`, which is read where it lies: give its `batches` the share. They have the `schema`.

    Raises OSError when this process cannot read it, or when it is another file now.
    """
    if storage.is_remote(share.uri):
        folder, _, name = share.uri.rpartition("/")
        file = object_store.arrow_filesystem(quote(folder, safe=":/")).open_input_file(name)
    else:
        file = pa.OSFile(share.uri)
    with file:
        part = _Part(share.uri, file, None, None)
        if part.stamp() != share.stamp:
            raise OSError(f"{share.uri} is another file now")
        yield Landed(share.uri, [part], maximum_bytes, schema)


def _open_part(uri: str, path: Path, stack: contextlib.ExitStack) -> _Part:
    stat, file = path.stat(), pa.OSFile(str(path))
    stack.callback(file.close)
    return _Part(uri if storage.is_remote(uri) else str(path.absolute()), file, path, stat)


def _part_uris(uri: str) -> list[str]:
    """The part files in a folder. The empty file `_SUCCESS`, as Spark writes it, marks it complete."""
    listing = storage.listing(uri)
    if not listing.files and not listing.folders:
        raise InputError(f"There is no file at {uri}", "Deliver the file, or correct the URI.")
    if not any(file.name == "_SUCCESS" for file in listing.files):
        hint = (
            "Wait until its writer has finished. If the writer creates no _SUCCESS, add it as an empty file at the end."
        )
        raise InputError(f"{uri} is a folder without the file _SUCCESS, so it may not be complete", hint)
    if nested := [name for name in listing.folders if not name.startswith((".", "_"))]:
        hint = "Write it without partitionBy: the part files must be directly in the folder."
        raise InputError(f"{uri} contains folders: {', '.join(nested[:3])}", hint)
    uris = [storage.join(uri, file.name) for file in listing.files if not file.name.startswith((".", "_"))]
    if links := [each for each in uris if not storage.lies_in(each, uri)]:
        raise InputError(f"{links[0]} is a link out of its folder", "Deliver the file itself.")
    return uris
