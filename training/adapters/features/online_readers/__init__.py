"""Online readers of the prediction service: one module per kind of online store, named after the store.

Each registers a class with the protocol below in ONLINE_READERS.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from training.adapters.features.online import Found, View
from training.contract.implementations import Implementations
from training.settings import StateSettings


class ConcurrentReader(Protocol):
    """Reads one online store for the many requests of one event loop."""

    def __init__(self, settings: StateSettings, seconds: float) -> None:
        """Open the store at `settings.online`; a lookup may take `seconds`. Imports Feast, so call it in a thread."""
        ...

    async def find(self, rows: Sequence[Mapping[str, Any]], views: Sequence[View]) -> list[Found]:
        """What the store has for `rows` (events), one Found per view.

        Raises TransientError when the store does not answer in time.
        """
        ...

    def close(self) -> None:
        """Stop what the reader has started. It does not wait for lookups that are under way."""
        ...


ONLINE_READERS: Implementations[type[ConcurrentReader]] = Implementations("online reader", __name__)


def reader_for(online: str) -> type[ConcurrentReader]:
    """The reader for the value of CT_ONLINE_STORE: by the scheme of its URL, for a path the one of SQLite.

    Raises ConfigError when there is none.
    """
    scheme, separator, _ = online.partition("://")
    name = scheme.removesuffix("s") if scheme == "rediss" else scheme
    return ONLINE_READERS.find(name if separator else "sqlite")
