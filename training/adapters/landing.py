"""Landed files: read whole, hashed, parsed."""

import hashlib
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from training import storage
from training.contract.errors import DataContractError, InputError, TransientError
from training.domain.conform import FILE_TYPE


class Landed(NamedTuple):
    """A landed file's bytes, and their SHA-256 in hex."""

    uri: str
    content: bytes
    sha256: str

    def table(self) -> pa.Table:
        """The rows. Columns of Parquet's type INT96 say so in their field's metadata: Arrow calls them timestamps.

        Raises DataContractError when it is not a whole Parquet file, or when two of its columns have one name.
        """
        try:
            file = pq.ParquetFile(
                pa.BufferReader(self.content),
                # In nanoseconds, Arrow's choice, the year 9999 silently becomes 1816.
                coerce_int96_timestamp_unit="us",
                page_checksum_verification=True,
            )
            names = file.schema_arrow.names
            if twice := sorted({name for name in names if names.count(name) > 1}):
                problem = f"{self.uri} has several columns of the name {', '.join(twice)}"
                raise DataContractError(f"{problem}; all its columns: {', '.join(names)}", "Deliver it mended.")
            return _marked(file.read(), _int96(file.schema))
        except (pa.ArrowException, OSError, ValueError) as error:
            hint = "Deliver it again as Parquet, under a temporary name that is renamed when all is written."
            raise DataContractError(
                f"{self.uri} ({len(self.content):,} bytes) is not a readable Parquet file: {error}", hint
            ) from error


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
    """The file at `uri`. Raises InputError when there is none, TransientError when its store does not answer."""
    try:
        content = storage.read(uri)
    except IsADirectoryError:
        content = None
    except OSError as error:
        raise TransientError(f"Cannot read {uri}: {error}", "Retry when the store answers.") from error
    if content is None:
        raise InputError(f"There is no file to read at {uri}", "Land the file, or mend the URI.")
    return Landed(uri, content, hashlib.sha256(content).hexdigest())
