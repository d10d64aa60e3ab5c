"""Distinguishes a store that has lost its rows from one that does not know an entity: neither has a value for it.

After materialization has written all rows of a view, it puts a mark for the view beside them: the time. A store that
was emptied, restarted without its data, or replaced by an empty one has neither rows nor marks. One that was restored
from an older copy has older marks.
"""

import json
import logging
import math
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from training import atomic
from training.contract.errors import TransientError

#: Seconds after which a reader looks at the marks again, though it finds all rows.
LOOK_SECONDS = 60.0
_RESTORE = "Run `make restore-online`, or the DAG `<source>_restore_online`."
log = logging.getLogger("perennial")


def marks_key(project: str) -> bytes:
    """The key of the hash of marks: the name of a view → when its rows were written last."""
    return f"perennial:{project}:complete".encode()


class CompleteViews:
    """Which views have been seen with a mark, kept in `file`, so that a restarted process knows it, too.

    A view without a mark has lost its rows only if it had one: a store that an earlier version has filled has none.
    """

    def __init__(self, project: str, address: str, file: Path | None) -> None:
        self.key = marks_key(project)
        #: View → its newest mark. Marks are times, which sort as texts; an earlier version kept the names alone.
        self._newest: dict[str, str] = {}
        #: Views whose mark is older than the newest.
        self.older: frozenset[str] = frozenset()
        self._address, self._file, self._looked = address, file, -math.inf
        if file is not None and file.is_file():
            kept = json.loads(file.read_text())
            self._newest = kept if isinstance(kept, dict) else dict.fromkeys(kept, "")

    def known(self, views: Collection[str]) -> bool:
        """Whether all of `views` (names) have been seen, and it is not time to look at their marks again."""
        looked = time.monotonic() - self._looked < LOOK_SECONDS
        return not views or (looked and self._newest.keys() >= set(views))

    def lost(self, views: Sequence[str], marks: Sequence[bytes | None]) -> TransientError | None:
        """The error for `views` (names) that had a mark and have none now; None when there is no such view.

        Views with an older mark than they had are logged: their rows are those of an older copy of the store.
        """
        self._looked = time.monotonic()
        marked = {view: mark.decode() for view, mark in zip(views, marks, strict=True) if mark is not None}
        self._note_older({view: mark for view, mark in marked.items() if mark < self._newest.get(view, "")}, views)
        newer = {view: mark for view, mark in marked.items() if mark > self._newest.get(view, "")}
        if newer:
            self._newest |= newer
            if self._file is not None:
                atomic.write(self._file, json.dumps(self._newest, sort_keys=True).encode())
        gone = sorted((self._newest.keys() & set(views)) - marked.keys())
        if not gone:
            return None
        problem = f"The online store at {self._address} has lost the rows of {', '.join(gone)}: it was emptied"
        return TransientError(problem, hint=_RESTORE)

    def _note_older(self, older: Mapping[str, str], views: Sequence[str]) -> None:
        for view, mark in sorted(older.items()):
            if view not in self.older:
                log.error(
                    "The online store at %s has the rows of %s as of %s, and had them as of %s: it was restored from "
                    "an older copy, and requests get older features. %s",
                    *(self._address, view, mark, self._newest[view], _RESTORE),
                )
        self.older = (self.older - set(views)) | older.keys()
