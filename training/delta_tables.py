"""The Delta tables in a folder, through delta-rs: opening them, errors of commits, and what keeps them small."""

import contextlib
import re
from collections.abc import Collection, Iterator
from datetime import date
from typing import Final
from urllib.parse import unquote

from deltalake import DeltaTable, PostCommitHookProperties
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from training import delta_log, file_digests, object_store, storage
from training.contract.errors import ConfigError, TransientError

#: By default a checkpoint deletes the entries of the log that are older than 30 days, and nobody can read the versions
#: of that time any more. Those of a source's tables are pinned by model versions, which can be made again. Tables that
#: are only appended to, predictions, get a commit every few seconds, and no model version pins them.
KEEP_THE_LOG: Final = PostCommitHookProperties(cleanup_expired_logs=False)
#: What delta-rs says, in errors of several types, when the object store refuses us, and when it does not answer.
_REFUSED: Final = re.compile("lacked (the necessary privileges|valid authentication credentials)")
_NO_ANSWER: Final = re.compile(r"Generic \w+ error")
#: Colours, arrows and line breaks in these errors.
_ORNAMENTS: Final = re.compile(r"(\x1b\[\d*m|↳|\s)+")


class DeltaTables:
    """The tables in the folder `root`: a local one, or an object-store URI that delta-rs knows.

    Credentials come from the environment. Every method raises TransientError when the object store does not answer,
    ConfigError when it refuses us, and DataContractError when the log of a table is lost or damaged. `root` with an
    escape such as `%20` is a ConfigError.
    """

    def __init__(self, root: str) -> None:
        if storage.is_remote(root) and unquote(root) != root:
            hint = f"Write {unquote(root)}, or choose a name without `%`."
            raise ConfigError(f"{root} is percent-encoded. delta-rs decodes it, and the other clients do not", hint)
        self.root = root
        #: Of the object store; None on a disk.
        self.options: dict[str, str] | None = None
        if storage.is_remote(root):
            retries = {"retry_timeout": f"{object_store.RETRY_TIMEOUT.total_seconds()}s"}
            self.options = retries | object_store.client_options(root)

    def uri(self, table: str) -> str:
        return f"{self.root}/{table}"

    def open(self, table: str, version: int | None = None) -> DeltaTable | None:
        """`table` at `version` (None: the newest); None when there is no such table."""
        try:
            return self.load(table, version)
        except TableNotFoundError:
            delta_log.refuse_lost_log(self.uri(table))
            return None

    def load(self, table: str, version: int | None) -> DeltaTable:
        """Raises TableNotFoundError, and DataContractError when the commit of the version, or the log, is not whole."""
        try:
            with self.answering():
                opened = DeltaTable(self.uri(table), version, self.options)
        except TableNotFoundError:
            raise
        except DeltaError as error:
            delta_log.refuse_damage(self.uri(table), error)
            raise
        delta_log.refuse_torn_commit(self.uri(table), opened.version())
        return opened

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """What delta-rs says of the object store becomes an error of ours."""
        try:
            yield
        except (OSError, DeltaError) as error:
            said = _ORNAMENTS.sub(" ", str(error))
            if self.options and _REFUSED.search(said):
                problem = f"The store of {self.root} refuses access: {said}"
                raise ConfigError(problem, object_store.KEYS_HINT) from error
            if self.options and _NO_ANSWER.search(said):
                raise TransientError(f"The store of {self.root} did not answer: {said}", hint="Retry.") from error
            raise

    @contextlib.contextmanager
    def committing(self, opened: DeltaTable) -> Iterator[None]:
        """As `answering`, and TransientError for a commit that met another one."""
        try:
            with self.answering():
                yield
        except CommitFailedError as error:
            raise TransientError(
                f"Another writer changed {opened.table_uri} meanwhile: {error}", hint="Retry."
            ) from error

    def vacuum(self, table: str, hours: int, keep: Collection[int], dry_run: bool = False) -> list[str]:
        """Delete the files that only versions older than `hours` hours have, but none of the versions in `keep`.

        Returns the names of the files, also of those that would be deleted and of those that are gone already while the
        log still names them. Versions in `keep` that the table does not have, of a table that was created again, are
        left out. Nothing happens when there is no table.
        """
        opened = self.open(table)
        if opened is None:
            return []
        kept = sorted(version for version in keep if version <= opened.version())
        with self.answering():
            # Delta refuses less than a week. The spec decides.
            return opened.vacuum(
                hours,
                dry_run=dry_run,
                enforce_retention_duration=False,
                post_commithook_properties=KEEP_THE_LOG,
                keep_versions=kept or None,
            )

    def remove(self, table: str, predicate: str) -> int:
        """Delete the rows of `table` that match the SQL `predicate`, in one commit. Returns their number.

        Earlier versions keep them until `vacuum`. Raises TransientError when another writer committed meanwhile.
        """
        opened = self.open(table)
        if opened is None:
            return 0
        with self.committing(opened):
            found = opened.delete(predicate, post_commithook_properties=KEEP_THE_LOG)
        flush_and_record(opened)
        return int(found["num_deleted_rows"])

    def compact(self, table: str, column: str, before: date) -> int:
        """Merge the small files of each day before `before` in the partition column `column`, and write a checkpoint.

        Rows and earlier versions stay as they are. Returns the number of files that were merged. Raises TransientError
        when another writer rewrote the table meanwhile; one that appends does not disturb.
        """
        opened = self.open(table)
        if opened is None:
            return 0
        started = opened.version()
        with self.committing(opened):
            done = opened.optimize.compact(
                [(column, "<", before.isoformat())], max_concurrent_tasks=1, post_commithook_properties=KEEP_THE_LOG
            )
            merged = int(done["numFilesRemoved"])
            if merged:
                opened.create_checkpoint()
        if merged:
            flush_and_record(opened, started)
        return merged


def flush_and_record(opened: DeltaTable, since: int | None = None) -> None:
    """Put the newest commit, or all after version `since`, on disk, and record the digests of their files."""
    delta_log.flush_newest(opened, since)
    newest = opened.version()
    for version in range(newest if since is None else since + 1, newest + 1):
        file_digests.record_commit(delta_log.folder_of(opened), version)
