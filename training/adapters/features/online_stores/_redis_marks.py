"""Tells a Redis that has lost its rows from one that does not know an entity: both have no value for it.

After materialization has written all rows of a view, it puts a mark for the view beside them. A Redis that was flushed,
restarted without its data, or replaced by an empty replica has neither rows nor marks.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from training import atomic
from training.contract.errors import TransientError


def marks_key(project: str) -> bytes:
    """The key of the hash of marks: the name of a view → when its rows were written last."""
    return f"perennial:{project}:complete".encode()


class CompleteViews:
    """Which views have been seen with a mark, kept in `file`, so that a restarted process knows it, too.

    A view without a mark has lost its rows only if it had one: a store that an earlier version has filled has none.
    """

    def __init__(self, project: str, address: str, file: Path | None) -> None:
        self.key = marks_key(project)
        self.seen: frozenset[str] = frozenset()
        self._address, self._file = address, file
        if file is not None and file.is_file():
            self.seen = frozenset(json.loads(file.read_text()))

    def lost(self, views: Sequence[str], marks: Sequence[bytes | None]) -> TransientError | None:
        """The error for `views` (names) that had a mark and have none now; None when there is no such view."""
        marked = {view for view, mark in zip(views, marks, strict=True) if mark is not None}
        if not marked <= self.seen:
            self.seen |= marked
            if self._file is not None:
                atomic.write(self._file, json.dumps(sorted(self.seen)).encode())
        gone = sorted(self.seen.intersection(views) - marked)
        if not gone:
            return None
        problem = f"The online store at {self._address} has lost the rows of {', '.join(gone)}: it was emptied"
        return TransientError(problem, hint="Run `make restore-online`, or the DAG `<source>_restore_online`.")
