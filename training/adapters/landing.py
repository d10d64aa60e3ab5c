"""Landed files: read whole, hashed, parsed."""

import hashlib
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from training import storage
from training.contract.errors import DataContractError, InputError, TransientError


class Landed(NamedTuple):
    """A landed file's bytes, and their SHA-256 in hex."""

    uri: str
    content: bytes
    sha256: str

    def table(self) -> pa.Table:
        """The rows. Raises DataContractError when it is not a whole Parquet file, or names two columns alike."""
        try:
            table = pq.ParquetFile(pa.BufferReader(self.content)).read()
        except (pa.ArrowException, OSError) as error:
            hint = "Deliver it again as Parquet, under a temporary name that is renamed when all is written."
            raise DataContractError(
                f"{self.uri} ({len(self.content):,} bytes) is not a readable Parquet file: {error}", hint
            ) from error
        names = table.column_names
        if len(set(names)) < len(names):
            raise DataContractError(f"{self.uri} names two columns alike: {', '.join(names)}", "Deliver it mended.")
        return table


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
