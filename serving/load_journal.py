"""Which versions this replica is loading and has loaded, on its disk: a load during which the service died is known.

Versions are known by the digest of their artifact.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from training import atomic
from training.contract.replicas import LoadRecord, LoadRecords

#: After so many deaths in a row a version is refused: one that is new, and one that this replica has loaded before or
#: that is champion. The service may also have been killed for another reason, and without its champion a model cannot
#: answer.
DEATHS_OF_A_NEW_VERSION, DEATHS_OF_A_TRUSTED_VERSION = 1, 3
#: Records that are kept.
MOST_RECORDS = 1000

log = logging.getLogger("perennial")


class LoadJournal:
    """The file `path`. For one process; any thread may call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._closed = False
        #: Digest → its record, in the order of their last loads.
        self._records = self._read()
        for digest, record in self._records.items():
            if record.loading:
                log.error("The service ended while it was loading %s version %d", record.model, record.version)
                died = {"loading": False, "deaths": record.deaths + 1, "died": datetime.now(UTC)}
                self._records[digest] = record.model_copy(update=died)

    def problem(self, digest: str, champion: bool = False) -> str | None:
        """Why the version must not be loaded; None when it may. The `champion` has been loaded by other replicas."""
        record = self._records.get(digest)
        if record is None or record.died is None:
            return None
        trusted = champion or bool(record.loaded_by)
        if record.deaths < (DEATHS_OF_A_TRUSTED_VERSION if trusted else DEATHS_OF_A_NEW_VERSION):
            return None
        times = "" if record.deaths == 1 else f", {record.deaths} times in a row"
        return f"The service ended while it was loading the version{times}, last at {record.died:%Y-%m-%d %H:%M:%S} UTC"

    def loaded_by(self, digest: str) -> str:
        """What `loading` was told when the version was last loaded here; empty when it never was, or died since."""
        record = self._records.get(digest)
        return record.loaded_by if record is not None and not record.deaths else ""

    @contextmanager
    def loading(self, model: str, version: int, digest: str, loaded_by: str = "") -> Iterator[None]:
        """Say on disk that the version is being loaded, until the block ends. The death of the process does not end it.

        `loaded_by`: what loads it, when the block ends without an error.
        """
        with self._lock:
            before = self._records.pop(digest, None) or LoadRecord(model=model, version=version)
            began = before.model_copy(update={"model": model, "version": version, "loading": True})
            self._write(digest, began)
        ended = before
        try:
            yield
            if loaded_by:
                ended = began.model_copy(update={"loaded_by": loaded_by, "deaths": 0, "died": None})
        finally:
            with self._lock:
                self._write(digest, ended.model_copy(update={"loading": False}))

    def forgive(self, model: str) -> None:
        """Allow the versions of `model` to be loaded again."""
        with self._lock:
            for digest, record in self._records.items():
                if record.model == model:
                    self._records[digest] = record.model_copy(update={"deaths": 0, "died": None})
            self._save()

    def close(self) -> None:
        """Before the service stops: the loads that are under way are no deaths."""
        with self._lock:
            self._closed = True
            for digest, record in self._records.items():
                self._records[digest] = record.model_copy(update={"loading": False})
            self._save()

    def _write(self, digest: str, record: LoadRecord) -> None:
        if self._closed:
            return
        self._records.pop(digest, None)
        self._records[digest] = record
        for old in list(self._records)[:-MOST_RECORDS]:
            del self._records[old]
        self._save()

    def _save(self) -> None:
        atomic.write(self._path, LoadRecords(versions=self._records).model_dump_json().encode())

    def _read(self) -> dict[str, LoadRecord]:
        try:
            return dict(LoadRecords.model_validate_json(self._path.read_bytes()).versions)
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            log.warning("%s cannot be read, so no version is known: %s", self._path, error)
            return {}
