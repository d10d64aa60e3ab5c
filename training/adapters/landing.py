"""Landed files, and folders of part files: read whole, hashed, parsed."""

import hashlib
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from training import storage
from training.contract.errors import DataContractError, InputError, TransientError
from training.domain.conform import FILE_TYPE


class Landed(NamedTuple):
    """A landed file's bytes, or those of each part in the order of their names, and the SHA-256 of all in hex."""

    uri: str
    parts: tuple[bytes, ...]
    sha256: str

    @property
    def content(self) -> bytes:
        return b"".join(self.parts)

    def table(self) -> pa.Table:
        """The rows. Columns of Parquet's type INT96 say so in their field's metadata: Arrow calls them timestamps.

        Raises DataContractError when it is not a whole Parquet file, or when two of its columns have one name.
        """
        try:
            return pa.concat_tables([self._read(part) for part in self.parts])
        except (pa.ArrowException, OSError, ValueError) as error:
            hint = "Deliver it again as Parquet, under a temporary name that is renamed when all is written."
            raise DataContractError(
                f"{self.uri} ({len(self.content):,} bytes) is not a readable Parquet file: {error}", hint
            ) from error

    def _read(self, part: bytes) -> pa.Table:
        file = pq.ParquetFile(
            pa.BufferReader(part),
            # In nanoseconds, Arrow's choice, the year 9999 silently becomes 1816.
            coerce_int96_timestamp_unit="us",
            page_checksum_verification=True,
        )
        names = file.schema_arrow.names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            problem = f"{self.uri} has several columns of the name {', '.join(twice)}"
            raise DataContractError(
                f"{problem}; all its columns: {', '.join(names)}", "Correct the file and deliver it again."
            )
        return _marked(file.read(), _int96(file.schema))


def _int96(schema: pq.ParquetSchema) -> set[str]:
    """The columns of type INT96, by name; those inside of others do not matter."""
    leaves = [schema.column(at) for at in range(len(schema))]
    return {leaf.path for leaf in leaves if leaf.physical_type == "INT96"}


def _marked(table: pa.Table, int96: set[str]) -> pa.Table:
    """`table` with the words for its `int96` columns in their metadata, where `conform` looks for them."""
    said = {FILE_TYPE: b"INT96, a deprecated timestamp without a zone, which some writers mean as UTC, others not"}
    fields = [field.with_metadata(said) if field.name in int96 else field for field in table.schema]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields)) if int96 else table


def read_landed(uri: str) -> Landed:
    """The file at `uri`, or the part files of the folder there.

    Raises InputError when there is neither or the folder is not whole, TransientError when its store does not answer.
    """
    try:
        content = storage.read(uri)
    except IsADirectoryError:
        content = None
    except OSError as error:
        raise TransientError(f"Cannot read {uri}: {error}", "Retry when the store answers.") from error
    parts = _parts(uri) if content is None else (content,)
    return Landed(uri, parts, hashlib.sha256(b"".join(parts)).hexdigest())


def _parts(uri: str) -> tuple[bytes, ...]:
    """The contents of the part files in a folder that says by an empty file `_SUCCESS` that it is whole."""
    lies = storage.listing(uri)
    if not lies.files and not lies.folders:
        raise InputError(f"There is no file to read at {uri}", "Land the file, or mend the URI.")
    if not any(file.name == "_SUCCESS" for file in lies.files):
        hint = "Wait for its writer to finish; for one that writes none, add an empty file _SUCCESS last."
        raise InputError(f"{uri} is a folder without the file _SUCCESS, so it may not be whole", hint)
    if nested := [name for name in lies.folders if not name.startswith((".", "_"))]:
        hint = "Write it without partitionBy: the part files must lie right in the folder."
        raise InputError(f"{uri} has folders in it: {', '.join(nested[:3])}", hint)
    names = [file.name for file in lies.files if not file.name.startswith((".", "_"))]
    parts = tuple(storage.read(storage.join(uri, name)) for name in names)
    if not parts or None in parts:
        raise InputError(f"{uri} has no part files, or lost one while it was read", "Deliver it again.")
    return tuple(part for part in parts if part is not None)
