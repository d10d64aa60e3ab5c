"""Online stores: one module per kind, named after the scheme of its URL (`sqlite` for a path).

The module of a store holds everything that differs between stores: Feast's configuration, the store's errors, writing
and deletion of rows in Feast's layout, and reading for the prediction service. It registers a class with the protocol
OnlineStore in ONLINE_STORES.
"""

import contextlib
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from training.adapters.features.feast_config import repo_config
from training.adapters.features.views import View, ViewRows
from training.compat.feast import StoredRows
from training.contract.errors import StepError, TransientError
from training.contract.implementations import Implementations
from training.settings import StateSettings

if TYPE_CHECKING:
    from feast.repo_config import RepoConfig

#: A lookup of more events than this may take proportionally longer.
ROWS_PER_DEADLINE = 100


class ConcurrentReader(Protocol):
    """Reads one online store for the many requests of one event loop."""

    #: How many round trips to the store have ended. Lookups may share one.
    trips: int

    async def find(self, rows: Sequence[Mapping[str, Any]], views: Sequence[View]) -> list[ViewRows]:
        """Look up the entities of `rows` (events). Returns one ViewRows per view.

        Raises TransientError when the store does not answer in time, or has lost the rows of a view.
        """
        ...

    def close(self) -> None:
        """Stop what the reader has started. Does not wait for lookups that are in progress."""
        ...


class OnlineStore(Protocol):
    """A member of ONLINE_STORES: the store at `settings.online`."""

    def __init__(self, settings: StateSettings) -> None:
        """Does not connect."""
        ...

    def feast_settings(self) -> dict[str, Any]:
        """The section `online_store` of Feast's configuration. Creates what Feast expects to exist."""
        ...

    def contract_error(self, error: Exception) -> StepError | None:
        """The error of the step contract for an error of the store's client; None for any other error."""
        ...

    def write(self, config: "RepoConfig", view: Any, rows: StoredRows) -> None:
        """Put `rows` of `view` (feast.FeatureView) online, in the place of older ones of the same entities.

        A stock Feast client reads them. Killed and called again, it leaves the same.
        """
        ...

    def delete(self, config: "RepoConfig", view: Any, keys: Collection[bytes]) -> None:
        """Delete the rows of the entities `keys` (StoredRows.keys); no error for those that have none."""
        ...

    def keep_only(
        self, config: "RepoConfig", view: Any, keys: set[bytes], features: Iterable[str], columns: Iterable[str]
    ) -> int:
        """Delete the rows of all entities but `keys`, and the values of features that `view` no longer has.

        Feast can only delete all rows of a view. `view` is a feast.FeatureView. Those of `keys` have been written, with
        all its features. `features` and `columns` are the
        features and entity columns that its rows may have, now or from earlier definitions. Returns the number of
        entities deleted.
        """
        ...

    def mark_complete(self, config: "RepoConfig", view: str, complete: bool = True) -> str:
        """Note in the store that it has all rows of `view`, so that a reader can tell when the store has lost them.

        `complete`: False takes the note away, for a view that is withdrawn. Returns the note: the time.
        """
        ...

    def mark(self, config: "RepoConfig", view: str) -> str | None:
        """The note of `mark_complete` that the store has."""
        ...

    def purge(self, config: "RepoConfig") -> None:
        """Take what was deleted out of the store's own files, where they keep it in free space."""
        ...

    def reader(self, seconds: float, seen: Path | None = None) -> ConcurrentReader:
        """Open a reader whose lookups of up to ROWS_PER_DEADLINE events may take `seconds`.

        `seen`: the file in which it keeps, across restarts, which views were complete once.
        Imports Feast, so call it in a thread.
        """
        ...


ONLINE_STORES: Implementations[type[OnlineStore]] = Implementations("online store", __name__)


def online_store(settings: StateSettings) -> OnlineStore:
    """The store that CT_ONLINE_STORE names: by the scheme of its URL, or SQLite for a path.

    Raises ConfigError when there is no store for the scheme.
    """
    scheme, separator, _ = settings.online.partition("://")
    name = scheme.removesuffix("s") if scheme == "rediss" else scheme
    return ONLINE_STORES.find(name if separator else "sqlite")(settings)


def online_config(settings: StateSettings) -> "RepoConfig":
    """Feast's configuration for calls to its online store alone. They never open the registry that it names."""
    return repo_config(settings, "none", online_store(settings).feast_settings())


def store_address(settings: StateSettings) -> str:
    """Where the store is, without a password, for messages."""
    return settings.online.rpartition("@")[2].rpartition("://")[2]


def unavailable(settings: StateSettings, error: Exception) -> TransientError:
    hint = "Check that it is running and that this process may write to its folder, then retry."
    return TransientError(f"The online store at {store_address(settings)} did not answer: {error}", hint)


@contextlib.contextmanager
def contract_errors(settings: StateSettings) -> Iterator[None]:
    """Turn errors of the online store into errors of the step contract.

    Raises TransientError when the store does not answer, its host name has no address, or SQLite is locked; ConfigError
    when it rejects our credentials or the file is not an SQLite database.
    """
    try:
        yield
    except (ConnectionError, TimeoutError, socket.gaierror) as error:
        raise unavailable(settings, error) from error
    except Exception as error:
        if (found := online_store(settings).contract_error(error)) is not None:
            raise found from error
        raise
