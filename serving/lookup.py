"""Looks up the online features of requests: shared round trips, a deadline, and a circuit breaker per model.

training/adapters/features/online_stores has a reader for each kind of store. When the store is slow or away,
CT_SERVING_STORE_DOWN decides: 503 at once, or an answer with the defaults of the features, which says so
(`features_defaulted`). A store that was emptied counts as one that is away.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from serving.breaker import Breaker
from serving.metrics import ModelMetrics
from serving.schema import BadRequest, Problem, Row
from training.adapters.features import MergedViews, View, ViewRows
from training.adapters.features.online_stores import ConcurrentReader, online_store
from training.contract.errors import StepError, TransientError
from training.settings import ServingSettings

log = logging.getLogger("perennial")


class StoreReader:
    """The connection to the online store, which all models share. Belongs to the event loop that calls `open`."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings, self._seconds = settings, settings.serving_lookup_seconds
        self._reader: ConcurrentReader | None = None
        self._prepared: asyncio.Task[None] | None = None
        self._failed_openings = 0

    @property
    def trips(self) -> int:
        """How many round trips have ended. Lookups that end at the same number have shared one."""
        return self._failed_openings + (self._reader.trips if self._reader else 0)

    def open(self) -> None:
        self._prepared = asyncio.get_running_loop().create_task(self._prepare())

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    async def look_up(self, rows: list[Row], views: Sequence[View]) -> list[ViewRows]:
        """The store's values for `rows`, one ViewRows per view. Raises TransientError when it does not answer."""
        if self._reader is None:
            await self._opened()
        assert self._reader is not None
        return await self._reader.find(rows, views)

    async def _opened(self) -> None:
        if self._prepared is None or (self._prepared.done() and self._prepared.exception()):
            self.open()
        assert self._prepared is not None
        try:
            await asyncio.wait_for(asyncio.shield(self._prepared), self._seconds)
        except TimeoutError:
            self._failed_openings += 1
            raise TransientError(f"The online store could not be opened in {self._seconds:g} s yet") from None
        except Exception as error:
            self._failed_openings += 1
            raise TransientError(f"The online store cannot be opened: {type(error).__name__}: {error}") from error

    async def _prepare(self) -> None:
        """Open the store in a thread, because importing Feast takes seconds."""
        seen = Path(self._settings.serving) / "online_views.json"
        self._reader = await asyncio.to_thread(lambda: online_store(self._settings).reader(self._seconds, seen))


class Lookup:
    """The lookups of one model."""

    def __init__(self, store: StoreReader, settings: ServingSettings, metrics: ModelMetrics) -> None:
        self.breaker = Breaker()
        #: Why the store could not be used at the last lookup; None when it could.
        self.problem: str | None = None
        self._store, self._metrics = store, metrics
        self._when_down = settings.serving_store_down

    async def find(self, rows: list[Row], merged: MergedViews) -> list[ViewRows]:
        """The store's values for `rows`, one ViewRows per view of `merged.views`.

        When the store cannot be used, CT_SERVING_STORE_DOWN decides: no values, or BadRequest (503). Errors that the
        store did not cause, such as a row that cannot be read, do not count for the circuit breaker.
        """
        if not merged.views:
            return []
        if not self.breaker.allows():
            return self._without(rows, merged, f"the online store is not called for a moment: {self.problem}")
        began = time.perf_counter()
        try:
            found = await self._store.look_up(rows, merged.views)
        except (TransientError, TimeoutError) as error:
            self.breaker.failed(self._store.trips)
            self.problem = _reason(error)
            return self._failed(rows, merged, self.problem)
        except Exception as error:
            self.breaker.undecided()
            return self._failed(rows, merged, _reason(error))
        except BaseException:
            self.breaker.undecided()  # The request was cancelled.
            raise
        self.breaker.succeeded(self._store.trips)
        self.problem = None
        self._metrics.looked_up(time.perf_counter() - began)
        return found

    async def probe(self, row: Row, views: Sequence[View]) -> list[ViewRows]:
        """As `find`, to find out whether the store can be used, whatever the circuit breaker says.

        Raises TransientError when it cannot, unless requests are answered without it.
        """
        try:
            found = await self._store.look_up([row], views)
        except (TransientError, TimeoutError) as error:
            self.problem = _reason(error)
            if self._when_down == "defaults":
                return [ViewRows.missing(view, 1) for view in views]
            raise TransientError(self.problem) from error
        self.problem = None
        self.breaker.recovered()
        return found

    def _failed(self, rows: list[Row], merged: MergedViews, reason: str) -> list[ViewRows]:
        self._metrics.lookups_failed.inc()
        log.warning("Lookup failed: %s", reason)
        return self._without(rows, merged, reason)

    def _without(self, rows: list[Row], merged: MergedViews, reason: str) -> list[ViewRows]:
        if self._when_down == "defaults":
            return merged.missing(len(rows))
        raise BadRequest(503, Problem(error=f"Features cannot be looked up: {reason}"), retry_after=1)


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, StepError) else f"{type(error).__name__}: {error}"
