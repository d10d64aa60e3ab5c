"""What runs in Spark's Python workers: work on joined rows and other tasks, with our code, which a session gets as an
archive."""

import functools
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from training.domain.feature_engine import Work

_PACKAGE = Path(__file__).parent


@functools.cache
def code_archive() -> tuple[str, bytes]:
    """The name and the content of a zip file with the modules of this package, which Python can import from."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(_PACKAGE.rglob("*.py")):
            # With one time for all of them, so that the same code has the same name.
            entry = zipfile.ZipInfo(path.relative_to(_PACKAGE.parent).as_posix(), (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    content = written.getvalue()
    return f"perennial-{hashlib.sha256(content).hexdigest()[:16]}.zip", content


class Joined:
    """`work` as a function for DataFrame.mapInArrow.

    `schemas` are those of the events and of each view's columns. A batch has the columns of the events, and then for
    each view a struct, which is null where an event has no feature row. `files`: the names that `work` knows → those
    under which the files were sent.
    """

    def __init__(self, work: Work, schemas: Sequence[pa.Schema], files: dict[str, str]) -> None:
        self._work, self._schemas, self._files = work, schemas, files

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import SparkFiles

        files = {name: Path(SparkFiles.get(sent)) for name, sent in self._files.items()}
        events, *views = self._schemas
        for batch in batches:
            count = len(events)
            asked = _table(batch.columns[:count], events)
            found = [_table(each.flatten(), view) for each, view in zip(batch.columns[count:], views, strict=True)]
            yield _batch(self._work(asked, found, files))


class Numbered:
    """`task` as a function for DataFrame.mapInArrow. The rows have one column: the numbers of the tasks."""

    def __init__(self, task: Callable[[int], Iterable[bytes]]) -> None:
        self._task = task

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield _batch(self._task(number))


def _batch(messages: Iterable[bytes]) -> pa.RecordBatch:
    return pa.record_batch([pa.array(list(messages), pa.binary())], ["message"])


def _table(columns: Sequence[pa.Array], schema: pa.Schema) -> pa.Table:
    """`columns` with the names and types of `schema`. Spark has fewer types than Arrow."""
    typed = [column.cast(field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.table(typed, schema=schema)
