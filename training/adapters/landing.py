"""Read, hash and parse landed files and folders of part files."""

import hashlib
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from training import storage
from training.contract.errors import DataContractError, InputError, TransientError
from training.domain.conform import FILE_TYPE
from training.domain.parquet_size import declared_bytes
from training.memory_limit import memory_limit

#: While rows are decoded they take up to so many times their size: buffers grow by doubling.
_DECODING = 2
#: What threads and decompression take besides.
_SLACK = 256 << 20


class Landed(NamedTuple):
    """The content of a landed file, or of each part file in the order of their names, and the SHA-256 of all in hex."""

    uri: str
    parts: tuple[bytes, ...]
    sha256: str
    #: The rows may take so many bytes of memory.
    maximum_bytes: int

    @property
    def content(self) -> bytes:
        return b"".join(self.parts)

    def table(self) -> pa.Table:
        """The rows. The metadata of a field marks columns of Parquet's type INT96, which are timestamps in Arrow.

        Those in a file that Spark wrote are not marked, because they are in UTC.

        Raises DataContractError when it is not a complete Parquet file, when two of its columns have one name, or when
        the rows take more memory than allowed.
        """
        try:
            with memory_limit(_DECODING * self.maximum_bytes + _SLACK):
                table = self._decoded()
        except MemoryError as error:
            raise self._too_large("its rows take more memory than it declares") from error
        except (pa.ArrowException, OSError, ValueError) as error:
            hint = "Deliver it again as Parquet. Write it under a temporary name and rename it when it is complete."
            raise DataContractError(
                f"{self.uri} ({len(self.content):,} bytes) is not a readable Parquet file: {error}", hint
            ) from error
        if table.nbytes > self.maximum_bytes:
            raise self._too_large(f"its rows take {table.nbytes:,} bytes of memory")
        return table

    def _decoded(self) -> pa.Table:
        files = [_opened(part) for part in self.parts]
        declared = sum(declared_bytes(file.metadata) for file in files)
        if declared > self.maximum_bytes:
            raise self._too_large(f"it declares rows of {declared:,} bytes")
        for file in files:
            names = file.schema_arrow.names
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                problem = f"{self.uri} has several columns with the name {', '.join(repeated)}"
                raise DataContractError(
                    f"{problem}; all its columns: {', '.join(names)}", "Correct the file and deliver it again."
                )
        return pa.concat_tables([_read(file) for file in files])

    def _too_large(self, why: str) -> DataContractError:
        return _too_large(self.uri, sum(len(part) for part in self.parts), why, self.maximum_bytes)


def _too_large(uri: str, size: int, why: str, maximum: int) -> DataContractError:
    problem = f"{uri} ({size:,} bytes) is too large: {why}, and CT_LANDED_MAXIMUM_BYTES allows {maximum:,}"
    hint = "Deliver fewer days in one file. If the file is right, raise that setting, and the memory of ingest."
    return DataContractError(problem, hint)


def _opened(part: bytes) -> pq.ParquetFile:
    return pq.ParquetFile(
        pa.BufferReader(part),
        # Arrow's default is nanoseconds, in which the year 9999 silently becomes 1816.
        coerce_int96_timestamp_unit="us",
        page_checksum_verification=True,
    )


def _read(file: pq.ParquetFile) -> pa.Table:
    return _marked(file.read(), set() if _in_utc(file.metadata.metadata or {}) else _int96(file.schema))


def _in_utc(metadata: dict[bytes, bytes]) -> bool:
    """Whether the INT96 columns of a file with this metadata are in UTC and in today's calendar.

    Hive and Impala write local time; both leave no trace. Spark names its version, and its old calendar if it used it.
    """
    return b"org.apache.spark.version" in metadata and b"org.apache.spark.legacyINT96" not in metadata


def _int96(schema: pq.ParquetSchema) -> set[str]:
    """The names of the columns of type INT96. Nested columns do not matter."""
    leaves = [schema.column(at) for at in range(len(schema))]
    return {leaf.path for leaf in leaves if leaf.physical_type == "INT96"}


def _marked(table: pa.Table, int96: set[str]) -> pa.Table:
    """`table` with a description of its type in the metadata of each `int96` column. `conform` uses it in messages."""
    metadata = {FILE_TYPE: b"INT96, a deprecated timestamp without a zone, which is UTC from some writers only"}
    fields = [field.with_metadata(metadata) if field.name in int96 else field for field in table.schema]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields)) if int96 else table


def read_landed(uri: str, maximum_bytes: int) -> Landed:
    """The file at `uri`, or the part files of the folder there.

    Raises InputError when there is neither, or the folder is not complete or has a link out of it; DataContractError
    when there are more than `maximum_bytes`; TransientError when the store does not answer.
    """
    try:
        found = storage.size(uri)
        uris = _part_uris(uri) if found is None else [uri]
        sizes = [storage.size(each) or 0 for each in uris]
        if sum(sizes) > maximum_bytes:
            raise _too_large(uri, sum(sizes), "its content alone is larger than its rows may be", maximum_bytes)
        parts = tuple(part for each in uris if (part := storage.read(each)) is not None)
    except OSError as error:
        raise TransientError(f"Cannot read {uri}: {error}", "Check that the store is running, then retry.") from error
    if len(parts) < len(uris) or not parts:
        raise InputError(f"{uri} has no part files, or one was deleted while it was read", "Deliver it again.")
    return Landed(uri, parts, hashlib.sha256(b"".join(parts)).hexdigest(), maximum_bytes)


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
